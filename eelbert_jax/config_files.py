"""Config files: found, loaded with a recipe, their keys listed."""

import contextlib
import importlib.util
import inspect
import os
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import config_dict

from eelbert_jax.errors import UserError, unknown

PACKAGE = Path(__file__).resolve().parent
CONFIG_ROOTS = (Path(), PACKAGE.parent, PACKAGE)
"""Where a relative config path is looked up: here, in a checkout, in an installed package."""


def load_config(path_and_recipe: str | os.PathLike[str]) -> config_dict.ConfigDict:
    """Load `FILE[:recipe]` and return what its `get_config` gives; shipped files are found from any folder.

    Raises:
      UserError: no such file, no `get_config` in it, or a recipe it does not take.
    """
    name, colon, recipe = os.fspath(path_and_recipe).partition(":")
    module = load_config_module(name)
    path, get_config = module.__file__, getattr(module, "get_config", None)
    if not callable(get_config):
        raise UserError(f"{path} has no function get_config(); a config file must define one.")
    if colon and not inspect.signature(get_config).parameters:
        raise UserError(f"{path} takes no recipe, got {recipe!r}; write --config={name} alone.")
    with _told(path):
        config = get_config(recipe) if colon else get_config()
    if not isinstance(config, config_dict.ConfigDict):
        raise UserError(f"get_config() of {path} must return a ConfigDict, got {type(config).__name__}.")
    return config


def load_config_module(name: str) -> ModuleType:
    """Import the config file `name` as a module, for what stands in it beside `get_config`."""
    return _load_module(_find_config(name))


def config_keys(config: config_dict.ConfigDict, prefix: str = "") -> dict[str, type]:
    """Return the dotted name and the type of every leaf and every group."""
    found: dict[str, type] = {}
    for name in config.keys():  # noqa: SIM118 (a ConfigDict iterates over keys, but this says so)
        kind = config.get_type(name)
        found[prefix + name] = kind
        if issubclass(kind, config_dict.ConfigDict):
            found |= config_keys(config[name], f"{prefix}{name}.")
    return found


def parse_recipe(
    recipe: str, sizes: Iterable[str], options: Mapping[str, Sequence[str]], numbers: Sequence[str] = ()
) -> tuple[str, dict[str, Any]]:
    """Split a recipe such as "tiny,embedding=table" into its size and a value for every option.

    `options` are the legal values by name, the default first; `numbers` take a positive integer, None where
    they are left out. A `UserError` names them all.
    """
    size, *words = recipe.split(",")
    if size not in sizes:
        raise UserError(f"Unknown recipe word {size!r}; the first word is a size: {', '.join(sizes)}.")
    chosen: dict[str, Any] = dict.fromkeys(numbers) | {name: values[0] for name, values in options.items()}
    for word in words:
        name, _, value = word.partition("=")
        if name in numbers and value.isdecimal() and int(value):
            chosen[name] = int(value)
        elif name in options and value in options[name]:
            chosen[name] = value
        else:
            known = [f"{key}={choice}" for key, choices in options.items() for choice in choices]
            known += [f"{key}=NUMBER" for key in numbers]
            raise UserError(f"Unknown recipe word {word!r}; known words: {', '.join(known)}.")
    return size, chosen


def _find_config(name: str) -> Path:
    for root in CONFIG_ROOTS:
        path = root / Path(name).expanduser()
        if path.is_file():
            return path
    shipped = {str(path.relative_to(root)) for root in CONFIG_ROOTS for path in root.glob("configs/**/*.py")}
    raise unknown("config file", name, sorted(shipped))


def _load_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"eelbert_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is no Python file; a config file ends in .py and defines get_config().")
    module = importlib.util.module_from_spec(spec)
    with _told(path):
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _told(path: str | os.PathLike[str] | None) -> Iterator[None]:
    """Turn what a config file raises into one line."""
    try:
        yield
    except UserError:
        raise
    except SyntaxError as error:
        raise UserError(
            f"{error.filename or path}, line {error.lineno}: {error.msg}; mend the config file."
        ) from error
    except Exception as error:
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
        ]
        where = f"{path}, line {lines[-1]}" if lines else f"{path}"
        raise UserError(f"{where}: {type(error).__name__}: {error}; mend the config file.") from error
