"""The command line: the table of jobs, parsing, help. Imports no job, and so not JAX."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_dict, config_flags

from eelbert_jax.config_files import config_keys, load_config
from eelbert_jax.errors import UserError, unknown
from eelbert_jax.workdir import CONFIG_NAME, make_writable, write_whole


@dataclasses.dataclass(frozen=True)
class Job:
    """Describe one job to the command line.

    Attributes:
      default_config: where the user names none; None: the job takes no config.
      workdir: "required", "none", or a default path.
      flags: (name, default, help); a bool, int, float or str default decides the type.
    """

    summary: str
    default_config: str | None
    workdir: str
    flags: tuple[tuple[str, bool | int | float | str, str], ...] = ()


DISTRIBUTED_FLAGS = (
    ("coordinator", "", "HOST:PORT of process 0 of a job of several (default: JAX_COORDINATOR_ADDRESS)"),
    ("num_processes", 0, "processes of the job (default: JAX_NUM_PROCESSES)"),
    ("process_id", -1, "which of them this is, from 0 (default: JAX_PROCESS_ID)"),
    (
        "distributed",
        False,
        "detect the other hosts; Slurm and GKE are detected without, Cloud TPU VMs are not",
    ),
    ("connect_seconds", 300, "how long to wait for the other processes"),
    ("heartbeat_seconds", 100, "end the job when a process was not heard of for so long"),
)
"""The flags of a job that may run as several processes: the arguments of `training.distributed.joined`."""

JOBS: Mapping[str, Job] = MappingProxyType(
    {
        "prepare": Job(
            "turn text into fixed rows of token ids: documents in, checksummed shards out",
            "configs/prepare.py",
            "required",
        ),
        "pretrain": Job(
            "train a BERT or EELBERT as a masked language model on prepared rows",
            "configs/pretrain.py",
            "required",
            (
                ("show_batch", 0, "print the rows of this update, as training saw them, and train nothing"),
                *DISTRIBUTED_FLAGS,
            ),
        ),
        "plan": Job(
            "say what a step of pre-training takes on devices that need not be here: memory, traffic, time",
            "configs/pretrain.py",
            "none",
            (
                ("topology", "", "devices such as v5e:16x16 or h200:8 (default: those of this machine)"),
                ("alternatives", True, "also what other batches and meshes would cost"),
                ("json", False, "print one JSON object instead of a page"),
            ),
        ),
        "embed": Job(
            "compute a teacher's vectors of sentences once, for a student to learn from",
            "configs/embed.py",
            "required",
            (("from", "", "the teacher: the workdir of a run, or a folder in the Hugging Face layout"),),
        ),
        "distill": Job(
            "train a small sentence encoder on a teacher's vectors",
            "configs/distill.py",
            "required",
            DISTRIBUTED_FLAGS,
        ),
        "finetune": Job(
            "fine-tune on a GLUE task or a table of your own: a checkpoint in, a classifier out",
            "configs/glue.py",
            "required",
            DISTRIBUTED_FLAGS,
        ),
        "evaluate": Job(
            "say how well cosines of sentence vectors agree with people's numbers, without fine-tuning",
            "configs/glue.py:tiny,task=stsb",
            "none",
            (
                ("from", "", "models, by commas: workdirs of runs, folders in the Hugging Face layout"),
                ("json", False, "print one JSON object a model instead of the table"),
            ),
        ),
        "drop_layers": Job(
            "drop whole layers of a model, to be fine-tuned then: a smaller model out (Poor Man's BERT)",
            "configs/glue.py",
            "required",
            (
                ("from", "", "the model: a run's workdir, or a folder as transformers saves it (required)"),
                (
                    "strategy",
                    "",
                    "top, even-alternate, odd-alternate, symmetric, bottom, or contribution (required)",
                ),
                ("num_layers", 0, "how many layers to drop, not how many to keep: the paper's K"),
                (
                    "tau",
                    0.0,
                    "of contribution, instead of a number: drop the layers across which the mean cosine of "
                    "[CLS] is above this, on the development set of --config.task",
                ),
            ),
        ),
        "baseline": Job(
            "score words alone on the task of a fine-tuning config: what a BERT has to beat",
            "configs/glue.py",
            "required",
            (
                (
                    "kind",
                    "",
                    "bag_of_words, tfidf, of tagged words tag_lookup, or all (default: the first that fits)",
                ),
            ),
        ),
        "sizes": Job(
            "print parameters and bytes of every size x embedding x counting convention",
            None,
            "none",
            (("json", False, "print one JSON object a line instead of the table"),),
        ),
        "sweep": Job(
            "run a grid of pre-trainings or fine-tunings, each its own process: a table of results out",
            "configs/sweeps/glue.py",
            "required",
            (
                ("job", "", "job of a cell: pretrain or finetune (default: JOB of the config file)"),
                ("processes", 1, "cells that run at a time"),
                ("print", False, "list the cells and their commands, and run nothing"),
                ("slurm", False, "print a Slurm array script of the unfinished cells, and run nothing"),
            ),
        ),
        "report": Job(
            "collect folders of runs into the papers' tables, measured beside reported: Markdown, CSV, PNG",
            None,
            "required",
            (
                ("runs", "", "folders that hold runs at any depth, or patterns, separated by commas"),
                ("benchmarks", "", "files of JSON lines that benchmarks printed, separated by commas"),
            ),
        ),
        "predict": Job(
            "answer texts: labels of a fine-tuned model, words for [MASK] of a pre-trained one",
            None,
            "none",
            (
                ("checkpoint", "", "workdir of the run whose model answers (required)"),
                ("text", "", "the text to answer"),
                ("second_text", "", "the second text, for a task of pairs"),
                (
                    "file",
                    "",
                    "texts: one a line, pairs separated by a tab; a table; a file of columns (default: "
                    "standard input)",
                ),
                (
                    "text_column",
                    "",
                    "column of the text in a table or in JSON lines (default: text), or the number of the "
                    "word's in a file of columns",
                ),
                ("second_text_column", "", "column of the second text (default: second_text)"),
                ("skip_bad", False, "leave out and count what cannot be answered (default: stop there)"),
                ("stride", 0, "read long texts in windows, one every so many tokens (default: cut them)"),
                ("fill_mask", False, "guess the words that [MASK] stands for, with a pre-trained model"),
                ("embed", False, "print a vector a text, of any model"),
                ("top", 1, "labels, or words a mask, that are shown, the most probable first"),
                ("json", False, "print one JSON object a text, with all probabilities"),
                ("output", "", "file for the answers: .jsonl, .tsv, of --embed .npy (default: print them)"),
                (
                    "glue_split",
                    "",
                    "write the GLUE submission of a test split instead (ax: MNLI's diagnostic)",
                ),
                ("workdir", "", "folder that receives the submission"),
            ),
        ),
        "pareto": Job(
            "score fine-tuned runs with float32, float16 and int8 weights: bytes against score",
            None,
            "required",
            (
                (
                    "runs",
                    "",
                    "folders that hold runs at any depth, or patterns, separated by commas (required)",
                ),
            ),
        ),
        "export": Job(
            "write a model as files that answer elsewhere, each compared there: ONNX, transformers, a page",
            None,
            "required",
            (
                ("from", "", "the model: a run's workdir, or a folder as transformers saves it (required)"),
                (
                    "to",
                    "onnx",
                    "onnx, hf (as transformers saves a BERT), hf_compact (code instead of the table), web "
                    "(a page that answers), or several with commas between",
                ),
                (
                    "inputs",
                    "",
                    "of onnx: ids, or for hashed embeddings signatures or vectors, or several (default: ids, "
                    "of a hash with vectors, which model.py runs)",
                ),
            ),
        ),
        "quickstart": Job(
            "see it all work in five minutes: prepare, pre-train and question a UNO, no data needed",
            "configs/quickstart.py",
            "runs/quickstart",
        ),
    }
)
"""Every job by name; the job's code is `eelbert_jax.jobs.NAME` with `main(argv)`."""


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
    """Write the resolved config as JSON into the workdir, which is made where missing, and return its path.

    Called first by every job, so that an unwritable workdir is found before any work is done.
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
