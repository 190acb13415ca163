"""The jobs of the command line: what each is for, its config, its flags. Imports no job, and so not JAX."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType


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

A_MODEL = "a released one's name, a run's workdir, or a folder as transformers saves it"
"""What `inference.load` takes."""

IN_STORES = ("prepare", "pretrain", "finetune", "distill", "baseline", "sweep")
"""Jobs whose workdir may lie in an object store."""

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
            (("from", "", f"the teacher: {A_MODEL} (required)"),),
        ),
        "distill": Job(
            "train a small model on a teacher's sentence vectors, or on its states and predictions",
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
                ("from", "", "models, by commas: released ones by their names, runs, folders"),
                ("suite", "pairs", "pairs (the task of --config), or sentences: pairs, probes, retrieval"),
                (
                    "misspellings",
                    "",
                    "of sentences: a file of lines wrong->right, what people write for words, to score too",
                ),
                ("json", False, "print one JSON object a model instead of the table"),
            ),
        ),
        "drop_layers": Job(
            "drop whole layers of a model, to be fine-tuned then: a smaller model out (Poor Man's BERT)",
            "configs/glue.py",
            "required",
            (
                ("from", "", f"the model: {A_MODEL} (required)"),
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
            "run a grid of pre-trainings, distillations or fine-tunings, each a process: a table out",
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
                ("checkpoint", "", f"the model: {A_MODEL} (required)"),
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
        "search": Job(
            'find the passages of a folder of text that are nearest in meaning: --in=DIR "some words"',
            None,
            "none",
            (
                ("in", "", "folder with files of text, at any depth; its index is kept there (required)"),
                ("from", "pocket", f"the model: {A_MODEL}"),
                ("top", 5, "passages that are shown"),
                ("json", False, "print one JSON object a passage"),
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
                ("from", "", f"the model: {A_MODEL} (required)"),
                (
                    "to",
                    "onnx",
                    "onnx, hf (as transformers saves a BERT), hf_compact (code instead of the table), int8 "
                    "(one file for eelbert_jax.load), stablehlo (for jax alone), web (a page that answers), "
                    "or several with commas between",
                ),
                (
                    "inputs",
                    "",
                    "of onnx: ids, or for hashed embeddings signatures or vectors, or several (default: ids, "
                    "of a hash with vectors, which model.py runs)",
                ),
                (
                    "vector_size",
                    0,
                    "of a sentence encoder: entries of its vectors, as the model's width, which keeps their "
                    "cosines but for one direction (0: as trained)",
                ),
                (
                    "weights",
                    "float32,float16,int8",
                    "of onnx: how its graphs keep their weights; float32, and others beside it",
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
