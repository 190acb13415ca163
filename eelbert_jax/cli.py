"""The command line of a job: parsing, help. Imports no job, and so not JAX."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_dict, config_flags

from eelbert_jax import store
from eelbert_jax.commands import DISTRIBUTED_FLAGS, IN_STORES, JOBS, Job
from eelbert_jax.config_files import config_keys, load_config
from eelbert_jax.errors import UserError, unknown
from eelbert_jax.workdir import CONFIG_NAME, make_writable, write_whole


class Invocation(NamedTuple):
    """Hold a parsed command line; `config` or `workdir` is empty where the job takes none."""

    config: config_dict.ConfigDict
    workdir: str
    flags: dict[str, Any]


def parse(job: str, argv: list[str]) -> Invocation:
    """Parse the words after `eelbert JOB`, without touching the flags of the process.

    The config file is loaded here, since the loader of `config_flags` turns every error into a traceback.

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
        raise unknown(f"flag of {job}", f"--{error.flagname}", known) from error
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(f"Cannot parse the command line of {job}: {' '.join(str(error).split())}") from error
    if positional:
        raise UserError(f"{job} takes flags only, got {positional[0]!r}; write --NAME=VALUE.")
    parsed: dict[str, Any] = values.flag_values_dict()
    if config_file is not None:
        config = parsed["config"]
    if spec.workdir != "none" and not parsed["workdir"]:
        raise UserError(f"{job} needs a folder for its files: add --workdir=DIR.")
    workdir = "" if spec.workdir == "none" else os.path.expanduser(parsed["workdir"] or "")
    if store.is_url(workdir) and job not in IN_STORES:
        raise UserError(f"{job} writes to a folder of this machine, got --workdir={workdir}.")
    return Invocation(config, workdir, {name: parsed[name] for name, _, _ in spec.flags})


def distributed_flags(invocation: Invocation) -> dict[str, Any]:
    """Return the arguments of `training.distributed.joined`."""
    return {name: invocation.flags[name] for name, *_ in DISTRIBUTED_FLAGS}


def config_words(job: str, argv: list[str]) -> tuple[str | None, list[str]]:
    """Return the config file of a command line and its `--config.KEY=VALUE` words, to hand them on."""
    config_file, rest = _take_config_flag(job, JOBS[job], argv)
    kept: list[str] = []
    takes_next = False
    for word in rest:
        names_key = word.startswith(("--config.", "-config.", "--noconfig.", "-noconfig."))
        if names_key or (takes_next and not word.startswith("--")):
            kept.append(word)
        takes_next = names_key and "=" not in word
    return config_file, kept


def write_config(
    config: config_dict.ConfigDict, workdir: str | os.PathLike[str], name: str = CONFIG_NAME
) -> Path:
    """Write the resolved config as JSON into the workdir, made where missing, and return its path."""
    path = store.folder(workdir) / name
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
        elif isinstance(default_value, float):
            flags.DEFINE_float(name, default_value, text, flag_values=values)
        else:
            flags.DEFINE_string(name, default_value, text, flag_values=values)
    return values


def _take_config_flag(job: str, spec: Job, argv: list[str]) -> tuple[str | None, list[str]]:
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


def _check_override_keys(config: config_dict.ConfigDict, config_file: str, argv: list[str]) -> None:
    known = config_keys(config)
    for word in argv:
        name = word.partition("=")[0].lstrip("-")
        if not word.startswith("-") or not name.startswith(("config.", "noconfig.")):
            continue
        key = name.partition(".")[2]
        if key not in known:
            raise unknown(f"key of {config_file}", f"config.{key}", [f"config.{k}" for k in known])
        if known[key] is type(None):
            raise UserError(
                f"config.{key} is None in {config_file} and has no type; make it a placeholder(type)."
            )


def _value_hint(default: bool | int | float | str) -> str:
    if isinstance(default, bool):
        return ""
    return "=NUMBER" if isinstance(default, int | float) else "=TEXT"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
