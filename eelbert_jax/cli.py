"""The command line that all jobs share: their flags, their config files, their help.

Every call parses into a private `absl.flags.FlagValues`, so that one process (a test, a sweep) can parse many
command lines. Leaves to the jobs what the config means.
"""

import difflib
import importlib.util
import inspect
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_dict, config_flags

from eelbert_jax.errors import UserError
from eelbert_jax.job_table import JOBS, Job
from eelbert_jax.workdir import CONFIG_NAME, make_writable, write_whole

PACKAGE = Path(__file__).resolve().parent
CONFIG_ROOTS = (Path(), PACKAGE.parent, PACKAGE)
"""Where a relative config path is looked up: here, in a checkout, in an installed package."""


class Invocation(NamedTuple):
    """A parsed command line.

    Attributes:
      config: the resolved, locked config; an empty one for a job that takes none.
      workdir: the folder that receives the job's files; "" for a job that writes none.
      flags: the job's own flags by name.
    """

    config: config_dict.ConfigDict
    workdir: str
    flags: dict[str, Any]


def parse(job: str, argv: list[str]) -> Invocation:
    """Parse the words after `eelbert JOB`.

    The config file is loaded here and handed to `config_flags` as a dictionary, because its own file loader
    turns every error of a config into a traceback. Source: ours.

    Args:
      job: a key of `JOBS`.
      argv: the words after the job's name.

    Raises:
      UserError: an unknown flag or config key, a value of the wrong type, a missing file or flag.
    """
    spec = JOBS[job]
    values = _define_flags(spec)
    config_file, rest = _take_config_flag(job, spec, argv)
    config = config_dict.ConfigDict() if config_file is None else load_config(config_file)
    if config_file is not None:
        _check_override_keys(config, config_file, rest)
    try:
        if config_file is not None:
            config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=["", *rest])
        positional = values(["eelbert", *rest])[1:]
    except flags.UnrecognizedFlagError as error:
        known = [f"--{name}" for name in values] + (["--config"] if spec.default_config else [])
        raise UserError(_unknown(f"flag of {job}", f"--{error.flagname}", known)) from error
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(f"Cannot parse the command line of {job}: {' '.join(str(error).split())}") from error
    if positional:
        raise UserError(f"{job} takes flags only, got {positional[0]!r}; write --NAME=VALUE.")
    parsed: dict[str, Any] = values.flag_values_dict()
    if config_file is not None:
        config = parsed["config"]
    if spec.workdir != "none" and not parsed["workdir"] and not parsed.get(spec.writes_nothing_with):
        raise UserError(f"{job} needs a folder for its files: add --workdir=DIR.")
    workdir = "" if spec.workdir == "none" else os.path.expanduser(parsed["workdir"] or "")
    return Invocation(config, workdir, {name: parsed[name] for name, _, _ in spec.flags})


def load_config(path_and_recipe: str | os.PathLike[str]) -> config_dict.ConfigDict:
    """Load `FILE[:recipe]` and return what its `get_config` gives.

    The shipped configs are found from any folder. Config files use this to build on one another.

    Args:
      path_and_recipe: path of a Python file, optionally with a colon and the words for its `get_config`.

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
    config = get_config(recipe) if colon else get_config()
    if not isinstance(config, config_dict.ConfigDict):
        raise UserError(f"get_config() of {path} must return a ConfigDict, got {type(config).__name__}.")
    return config


def load_config_module(name: str) -> ModuleType:
    """Import the config file `name` as a module, for what stands in it beside `get_config`.

    Raises:
      UserError: no such file, or no Python in it.
    """
    return _load_module(_find_config(name))


def config_words(job: str, argv: list[str]) -> tuple[str | None, list[str]]:
    """Return the config file of a command line and its `--config.KEY=VALUE` words, to hand them on.

    Args:
      job: a key of `JOBS`.
      argv: words that `parse` takes.
    """
    config_file, rest = _take_config_flag(job, JOBS[job], argv)
    kept: list[str] = []
    takes_next = False
    for word in rest:
        names_key = word.startswith(("--config.", "-config.", "--noconfig.", "-noconfig."))
        if names_key or (takes_next and not word.startswith("--")):
            kept.append(word)
        takes_next = names_key and "=" not in word
    return config_file, kept


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
    recipe: str, sizes: Iterable[str], options: Mapping[str, Sequence[str]]
) -> tuple[str, dict[str, str]]:
    """Split a recipe such as "tiny,embedding=table" into its size and its options.

    Args:
      recipe: a size, then NAME=VALUE words, separated by commas.
      sizes: legal sizes.
      options: legal values by name, the default first.

    Returns:
      The size, and a value for every option.

    Raises:
      UserError: an unknown word; names the legal ones.
    """
    size, *words = recipe.split(",")
    if size not in sizes:
        raise UserError(f"Unknown recipe word {size!r}; the first word is a size: {', '.join(sizes)}.")
    chosen = {name: values[0] for name, values in options.items()}
    for word in words:
        name, _, value = word.partition("=")
        if name not in options or value not in options[name]:
            known = [f"{key}={choice}" for key, choices in options.items() for choice in choices]
            raise UserError(f"Unknown recipe word {word!r}; known words: {', '.join(known)}.")
        chosen[name] = value
    return size, chosen


def write_config(
    config: config_dict.ConfigDict, workdir: str | os.PathLike[str], name: str = CONFIG_NAME
) -> Path:
    """Write the resolved config as JSON into the workdir, making the folder where needed.

    Called first by every job, it also finds an unwritable workdir before any work is done. Written through a
    temporary file, so that a kill leaves the old one or the new one. Source: ours.

    Returns:
      The path of the file.

    Raises:
      UserError: the folder cannot be made or written.
    """
    path = Path(workdir) / name
    make_writable(path.parent)
    write_whole(path, json.dumps(config.to_dict(), indent=2) + "\n")
    return path


def overview() -> str:
    """Return the text of `eelbert --help`."""
    width = max(len(name) for name in JOBS)
    lines = [f"  {name:<{width}}  {job.summary}" for name, job in JOBS.items()]
    return "\n".join(
        [
            "usage: eelbert JOB [--config=FILE[:recipe]] [--config.KEY=VALUE ...] [--workdir=DIR]",
            "",
            "Pre-train, measure and question BERTs without an embedding table.",
            "",
            "jobs:",
            *lines,
            "",
            "`eelbert JOB --help` shows a job's flags.",
        ]
    )


def job_help(job: str) -> str:
    """Return the text of `eelbert JOB --help`."""
    spec = JOBS[job]
    rows: list[tuple[str, str]] = []
    if spec.default_config is not None:
        rows.append(
            ("--config=FILE[:recipe]", f"config file and its recipe (default: {spec.default_config})")
        )
        rows.append(("--config.KEY=VALUE", "override one value; the config file documents every key"))
    if spec.workdir != "none":
        default = "required" if spec.workdir == "required" else f"default: {spec.workdir}"
        rows.append(("--workdir=DIR", f"folder that receives the job's files ({default})"))
    for name, default_value, text in spec.flags:
        rows.append((f"--{name}{_value_hint(default_value)}", text))
    rows.append(("--help", "show this text"))
    width = max(len(left) for left, _ in rows)
    lines = [f"  {left:<{width}}  {right}" for left, right in rows]
    return "\n".join([f"usage: eelbert {job} [flags]", "", _sentence(spec.summary), "", "flags:", *lines])


def unknown_job(name: str) -> UserError:
    """Return the error for a job that does not exist, with the nearest one that does."""
    return UserError(_unknown("job", name, JOBS))


def _define_flags(spec: Job) -> flags.FlagValues:
    values = flags.FlagValues()
    if spec.workdir != "none":
        default = None if spec.workdir == "required" else spec.workdir
        flags.DEFINE_string("workdir", default, "folder for the job's files", flag_values=values)
    for name, default_value, text in spec.flags:
        if isinstance(default_value, bool):
            flags.DEFINE_bool(name, default_value, text, flag_values=values)
        elif isinstance(default_value, int):
            flags.DEFINE_integer(name, default_value, text, flag_values=values)
        else:
            flags.DEFINE_string(name, default_value, text, flag_values=values)
    return values


def _take_config_flag(job: str, spec: Job, argv: list[str]) -> tuple[str | None, list[str]]:
    """Split off `--config=FILE` or `--config FILE`; the last one wins, as with every flag."""
    config_file, rest, words = spec.default_config, [], iter(argv)
    for word in words:
        if word in ("--config", "-config"):
            value = next(words, "")
        elif word.startswith(("--config=", "-config=")):
            value = word.partition("=")[2]
        else:
            rest.append(word)
            continue
        if spec.default_config is None:
            raise UserError(f"{job} takes no --config.")
        if not value:
            raise UserError(f"--config needs a file, for example --config={spec.default_config}.")
        config_file = value
    return config_file, rest


def _find_config(name: str) -> Path:
    for root in CONFIG_ROOTS:
        path = root / Path(name).expanduser()
        if path.is_file():
            return path
    shipped = {str(path.relative_to(root)) for root in CONFIG_ROOTS for path in root.glob("configs/**/*.py")}
    raise UserError(_unknown("config file", name, sorted(shipped)))


def _load_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"eelbert_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is no Python file; a config file ends in .py and defines get_config().")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UserError(
            f"{error.filename or path}, line {error.lineno}: {error.msg}; mend the config file."
        ) from error
    return module


def _check_override_keys(config: config_dict.ConfigDict, config_file: str, argv: list[str]) -> None:
    """Refuse an override of a key that the config does not have, naming the nearest one that it has."""
    known = config_keys(config)
    for word in argv:
        name = word.partition("=")[0].lstrip("-")
        if not word.startswith("-") or not name.startswith(("config.", "noconfig.")):
            continue
        key = name.partition(".")[2]
        if key not in known:
            raise UserError(
                _unknown(f"key of {config_file}", f"config.{key}", [f"config.{k}" for k in known])
            )
        if known[key] is type(None):
            raise UserError(
                f"config.{key} is None in {config_file} and has no type; make it a placeholder(type)."
            )


def _unknown(what: str, got: str, known: Iterable[str]) -> str:
    """Return "Unknown WHAT 'GOT'" with the nearest legal name, or with all of them where none is near."""
    legal = list(known)
    near = difflib.get_close_matches(got, legal, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(legal) or 'none'}."
    return f"Unknown {what} {got!r}; {hint}"


def _value_hint(default: bool | int | str) -> str:
    if isinstance(default, bool):
        return ""
    return "=NUMBER" if isinstance(default, int) else "=TEXT"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
