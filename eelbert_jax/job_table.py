"""The table of jobs: what `eelbert --help` and the parser know of each, without importing any.

It stands away from the jobs, so that help is answered without importing JAX.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType


@dataclasses.dataclass(frozen=True)
class Job:
    """Describe one job to the command line.

    Attributes:
      summary: one line for `eelbert --help`; what goes in and what comes out.
      default_config: config file used where the user names none; None: the job takes no config.
      workdir: "required", "none", or the default path of the folder that receives the job's files.
      flags: the job's own flags as (name, default, help); a bool, int or str default decides the type.
      writes_nothing_with: name of the flag that makes the workdir needless; "" for none.
    """

    summary: str
    default_config: str | None
    workdir: str
    flags: tuple[tuple[str, bool | int | str, str], ...] = ()
    writes_nothing_with: str = ""


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
                ("plan", False, "train nothing: compile the step and say what it takes (needs no workdir)"),
                ("topology", "", "with --plan: devices that need not be here, such as v5e:16x16 or h200:8"),
                ("alternatives", True, "with --plan: also what other batches and meshes would cost"),
                ("json", False, "with --plan: print one JSON object instead of a page"),
            ),
            writes_nothing_with="plan",
        ),
        "finetune": Job(
            "fine-tune on a GLUE task or a table of your own: a checkpoint in, a classifier out",
            "configs/glue.py",
            "required",
        ),
        "baseline": Job(
            "score a bag of words on the task of a fine-tuning config: what a BERT has to beat",
            "configs/glue.py",
            "required",
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
                ("sampler", "grid", "grid: every cell; optuna: the promising ones of a full grid"),
                ("trials", 20, "cells that optuna chooses"),
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
                ("file", "", "texts, one a line, pairs separated by a tab (default: standard input)"),
                ("fill_mask", False, "guess the words that [MASK] stands for, with a pre-trained model"),
                ("top", 1, "labels, or words a mask, that are shown, the most probable first"),
                ("json", False, "print one JSON object a text, with all probabilities"),
                (
                    "glue_split",
                    "",
                    "write the GLUE submission of a test split instead (ax: MNLI's diagnostic)",
                ),
                ("workdir", "", "folder that receives the submission"),
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
