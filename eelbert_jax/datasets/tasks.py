"""The tasks as data: GLUE's ten and their kin in one table, and the shape that a user's own task takes."""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from eelbert_jax.errors import UserError

KINDS = CLASSIFY, MULTILABEL, REGRESS, TAG = ("classify", "multilabel", "regress", "tag")
"""What a task asks for: a class a text, any number of labels a text, a number a text, a tag a word."""

PAIR_ENCODERS = ("cross", "bi")


@dataclasses.dataclass(frozen=True)
class Task:
    """Describe a task of one text or a pair of texts, with a class, several, or a number for a label.

    Attributes:
      folder: in the GLUE layout; "" for a user's own tables.
      text_fields: features of the TFDS dataset (`glue/NAME`), one or two.
      text_columns: columns of the files that hold the same.
      labels: names of the classes in the order of their ids, as TFDS has them; () for a number.
      metrics: names in `metrics.METRICS`; the first one selects the best step.
      files: (split, file in the folder) for every split.
      dev_splits: splits with labels that training may not see; the first one selects.
      test_splits: splits whose labels are hidden.
      columns: names of the columns where the files have no header line; GLUE's test files always have one.
      dev_every: every so many rows of the training file, from the first, are the dev split; 0: it has a file.
      label_separator: stands between the labels of a cell; "": a cell is one label, or a list of them.
      label_lists: the labels of a text are a list.
      official: a task of GLUE; any other figure may not be called one.
      submission_labels: how a submission to the GLUE server spells each class.
    """

    name: str
    folder: str
    text_fields: tuple[str, ...]
    text_columns: tuple[str, ...]
    label_column: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    files: tuple[tuple[str, str], ...]
    dev_splits: tuple[str, ...] = ("dev",)
    test_splits: tuple[str, ...] = ("test",)
    columns: tuple[str, ...] = ()
    dev_every: int = 0
    label_separator: str = ""
    label_lists: bool = False
    official: bool = True
    submission_labels: tuple[str, ...] = ()
    submission_files: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        if not self.labels:
            return REGRESS
        return MULTILABEL if self.label_separator or self.label_lists else CLASSIFY

    @property
    def is_custom(self) -> bool:
        """Whether its files are a user's own tables."""
        return not self.folder

    @property
    def reads_pairs(self) -> bool:
        """Whether it is about two texts."""
        return len(self.text_fields) == 2

    @property
    def num_labels(self) -> int:
        """Outputs of the task's head: the classes, or 1."""
        return len(self.labels) or 1

    @property
    def splits(self) -> tuple[str, ...]:
        """All splits."""
        return tuple(split for split, _ in self.files)

    def file_of(self, split: str) -> str:
        """Return the file of a split."""
        if split not in self.splits:
            raise UserError(f"Task {self.name!r} has no split {split!r}; it has {', '.join(self.splits)}.")
        return dict(self.files)[split]

    def label_ids(self) -> dict[str, int]:
        """Return the id of a class by its name and, as most of GLUE's files write it, by its number.

        In a user's own tables a label is its name and nothing else.
        """
        names = {label: i for i, label in enumerate(self.labels)}
        return names if self.is_custom else names | {str(i): i for i in range(len(self.labels))}


def _glue(
    name: str, folder: str, fields: str, label_column: str, labels: str, metrics: str, **others: Any
) -> Task:
    """Return an official task from space-separated names, with the usual files."""
    files = tuple((split, f"{split}.tsv") for split in ("train", "dev", "test"))
    usual: dict[str, Any] = {
        "text_columns": tuple(fields.split()),
        "files": files,
        "submission_labels": tuple("01") if labels else (),
        "submission_files": (f"{folder}.tsv",),
    }
    return Task(
        name,
        folder,
        text_fields=tuple(fields.split()),
        label_column=label_column,
        labels=tuple(labels.split()),
        metrics=tuple(metrics.split()),
        **(usual | others),
    )


_PAIR = "sentence1 sentence2"
_TWO_WAY = ("entailment", "not_entailment")
_THREE_WAY = ("entailment", "neutral", "contradiction")
_NLI_COLUMNS = ("sentence1", "sentence2")
_QQP_COLUMNS = ("id", "qid1", "qid2", "question1", "question2", "is_duplicate")
_MNLI_SPLITS = ("train", "dev_matched", "dev_mismatched", "test_matched", "test_mismatched")

_TASKS = (
    _glue(
        "cola",
        "CoLA",
        "sentence",
        "is_acceptable",
        "unacceptable acceptable",
        "matthews_correlation",
        columns=("source", "is_acceptable", "mark", "sentence"),
    ),
    _glue("sst2", "SST-2", "sentence", "label", "negative positive", "accuracy"),
    _glue(
        "mrpc",
        "MRPC",
        _PAIR,
        "Quality",
        "not_equivalent equivalent",
        "accuracy f1",
        text_columns=("#1 String", "#2 String"),
    ),
    _glue("stsb", "STS-B", _PAIR, "score", "", "pearson spearman"),
    _glue("qqp", "QQP", "question1 question2", "is_duplicate", "not_duplicate duplicate", "accuracy f1"),
    _glue(
        "mnli",
        "MNLI",
        "premise hypothesis",
        "gold_label",
        " ".join(_THREE_WAY),
        "accuracy",
        text_columns=_NLI_COLUMNS,
        files=tuple((split, f"{split}.tsv") for split in _MNLI_SPLITS),
        dev_splits=("dev_matched", "dev_mismatched"),
        test_splits=("test_matched", "test_mismatched"),
        submission_labels=_THREE_WAY,
        submission_files=("MNLI-m.tsv", "MNLI-mm.tsv"),
    ),
    _glue(
        "qnli",
        "QNLI",
        "question sentence",
        "label",
        " ".join(_TWO_WAY),
        "accuracy",
        submission_labels=_TWO_WAY,
    ),
    _glue("rte", "RTE", _PAIR, "label", " ".join(_TWO_WAY), "accuracy", submission_labels=_TWO_WAY),
    _glue("wnli", "WNLI", _PAIR, "label", "not_entailment entailment", "accuracy"),
    # The diagnostic set has no training data: it is a second test set for a model trained on MNLI.
    _glue(
        "ax",
        "diagnostic",
        "premise hypothesis",
        "",
        " ".join(_THREE_WAY),
        "matthews_correlation",
        text_columns=_NLI_COLUMNS,
        files=(("test", "diagnostic.tsv"),),
        dev_splits=(),
        submission_labels=_THREE_WAY,
        submission_files=("AX.tsv",),
    ),
    # A sample of QQP's training file, for those who cannot have the whole. Every tenth row is held out; the
    # rows are in random order. No pair stands on both sides, but a question may. Never to be printed as QQP.
    _glue(
        "qqp_sample",
        "QQP",
        "question1 question2",
        "is_duplicate",
        "not_duplicate duplicate",
        "accuracy f1",
        files=(("train", "train_sample.tsv"), ("dev", "train_sample.tsv")),
        test_splits=(),
        columns=_QQP_COLUMNS,
        dev_every=10,
        official=False,
        submission_files=(),
    ),
)

GLUE_TASKS: Mapping[str, Task] = MappingProxyType({task.name: task for task in _TASKS})
"""Every task by name. Source: GLUE (Wang et al. 2019); names, fields and order of classes as in TFDS."""


@dataclasses.dataclass(frozen=True)
class TaskRecord:
    """What a model was fine-tuned for: a checkpoint carries it, so that nothing has to be guessed.

    Attributes:
      labels: names of the classes or tags in the order of the outputs; () for numbers.
      max_length: tokens that an example had at most.
      mean: of the training labels of a regression; the model's output 0 stands for it.
      std: their standard deviation; the model's output 1 is so far above the mean.
      pair_encoder: "cross" reads the texts of a pair in one row, "bi" each alone; a regression's output is
        then their cosine, 1 for the highest label of training and -1 for the lowest.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    reads_pairs: bool
    max_length: int
    mean: float = 0.0
    std: float = 1.0
    pair_encoder: str = "cross"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"A task's kind is one of {', '.join(KINDS)}, got {self.kind!r}.")
        if self.pair_encoder not in PAIR_ENCODERS:
            raise UserError(f"pair_encoder={self.pair_encoder!r} is not one of {', '.join(PAIR_ENCODERS)}.")
        if self.pair_encoder == "bi" and not self.reads_pairs:
            raise UserError(
                f"pair_encoder=bi reads pairs, and {self.name} has single texts: leave it at cross."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types; `from_dict` reads them back."""
        fields = {**dataclasses.asdict(self), "labels": list(self.labels)}
        if self.pair_encoder == "cross":  # as in records of before there was another
            del fields["pair_encoder"]
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "TaskRecord":
        """Read what `to_dict` gave."""
        return cls(**{**fields, "labels": tuple(fields["labels"])})


def find_task(name: str) -> Task:
    """Return a task of the table; the error for an unknown one names the nearest."""
    if name not in GLUE_TASKS:
        near = difflib.get_close_matches(name.lower(), GLUE_TASKS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(GLUE_TASKS)}."
        raise UserError(f"Unknown task {name!r}; {hint}")
    return GLUE_TASKS[name]


def check_labels(labels: Sequence[str], checkpoint_labels: Sequence[str]) -> None:
    """Refuse classes that a checkpoint's head knows by other names or in another order.

    The head's outputs have numbers only, so that another order would exchange the answers silently.
    """
    if tuple(labels) == tuple(checkpoint_labels):
        return
    ours, theirs = (", ".join(names) or "none (a number)" for names in (labels, checkpoint_labels))
    if sorted(labels) == sorted(checkpoint_labels):
        raise UserError(
            f"The labels are in another order than the checkpoint's: {ours} here, {theirs} there, so that "
            "answers would be exchanged. Name the labels in the checkpoint's order."
        )
    raise UserError(
        f"The checkpoint was trained for other labels: {ours} here, {theirs} there. "
        "Choose the task of the checkpoint, or leave its classifier: --config.new_head=True."
    )
