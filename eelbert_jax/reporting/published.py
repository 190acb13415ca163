"""What EELBERT (arXiv 2310.20144, EMNLP 2023 Industry Track) and Poor Man's BERT report, as data.

A figure marked `r` takes part in no comparison, and none is a pass line.
"""

from collections.abc import Mapping
from typing import NamedTuple

MARKS: Mapping[str, str] = {
    "P": "in the paper's published abstract or another public source",
    "R": "recollected from the paper, passes an arithmetic check",
    "r": "recollected from the paper, unverified: shown, never compared",
}
"""Provenance of a figure, from the strongest to the weakest."""


class Figure(NamedTuple):
    """Hold a number and its provenance, a key of `MARKS`."""

    value: float
    mark: str


class Measure(NamedTuple):
    """Hold a line of the papers' tables: a task, one of its metrics, and how the line is called."""

    task: str
    metric: str
    label: str


MEASURES = (
    Measure("sst2", "accuracy", "SST-2, accuracy"),
    Measure("qnli", "accuracy", "QNLI, accuracy"),
    Measure("rte", "accuracy", "RTE, accuracy"),
    Measure("wnli", "accuracy", "WNLI, accuracy"),
    Measure("mrpc", "accuracy", "MRPC, accuracy"),
    Measure("mrpc", "f1", "MRPC, F1"),
    Measure("qqp", "accuracy", "QQP, accuracy"),
    Measure("qqp", "f1", "QQP, F1"),
    Measure("mnli", "accuracy", "MNLI matched, accuracy"),
    Measure("mnli", "accuracy_mismatched", "MNLI mismatched, accuracy"),
    Measure("stsb", "pearson", "STS-B, Pearson"),
    Measure("stsb", "spearman", "STS-B, Spearman"),
    Measure("cola", "matthews_correlation", "CoLA, Matthews"),
)
"""The lines of tables 1 and 2, in the paper's order."""

SCORE_METRICS: Mapping[str, tuple[str, ...]] = {
    "cola": ("matthews_correlation",),
    "sst2": ("accuracy",),
    "mrpc": ("accuracy",),
    "stsb": ("pearson",),
    "qqp": ("accuracy",),
    "mnli": ("accuracy", "accuracy_mismatched"),
    "qnli": ("accuracy",),
    "rte": ("accuracy",),
}
"""The metrics whose mean is a task's share of an average; WNLI has none."""

AVERAGES: Mapping[str, tuple[str, ...]] = {
    "Score, mean of 8 tasks": tuple(SCORE_METRICS),
    "Score, mean of 6 tasks": tuple(task for task in SCORE_METRICS if task not in ("cola", "stsb")),
}
"""The paper's averages and their tasks: 8 for the base models (table 1), 6 for the small ones (table 2)."""

TASK_NAMES: Mapping[str, str] = {
    "cola": "CoLA",
    "sst2": "SST-2",
    "mrpc": "MRPC",
    "stsb": "STS-B",
    "qqp": "QQP",
    "mnli": "MNLI",
    "qnli": "QNLI",
    "rte": "RTE",
    "wnli": "WNLI",
}

TABLE_1_MODELS = ("BERT-base", "EELBERT-base")
TABLE_2_MODELS = ("BERT-mini", "EELBERT-mini", "BERT-tiny", "EELBERT-tiny", "UNO-EELBERT")


def _column(mark: str, *values: float, tasks_left_out: tuple[str, ...] = ()) -> dict[tuple[str, str], Figure]:
    keys = [(task, metric) for task, metric, _ in MEASURES if task not in tasks_left_out]
    return dict(zip(keys, [Figure(value, mark) for value in values], strict=True))


def _small(mark: str, *values: float) -> dict[tuple[str, str], Figure]:
    return _column(mark, *values, tasks_left_out=("wnli", "stsb", "cola"))


# fmt: off
SCORES: Mapping[str, Mapping[tuple[str, str], Figure]] = {
    "BERT-base": _column("R", .899, .866, .625, .521, .833, .882, .898, .864, .799, .802, .870, .867, .410),
    "EELBERT-base": _column(
        "R", .900, .864, .563, .563, .838, .887, .895, .861, .790, .795, .851, .849, .373
    ),
    "BERT-mini": _small("R", .851, .827, .552, .701, .814, .864, .815, .719, .730),
    "EELBERT-mini": _small("R", .835, .821, .560, .721, .814, .850, .803, .688, .697),
    "BERT-tiny": _small("R", .821, .616, .545, .684, .812, .780, .661, .577, .581),
    "EELBERT-tiny": _small("r", .749, .705, .516, .684, .812, .752, .712, .582, .598),
    "UNO-EELBERT": _small("r", .701, .609, .527, .684, .812, .728, .628, .54, .54),
}
"""Development-set figures of tables 1 and 2, by model and (task, metric)."""

AVERAGE_SCORES: Mapping[str, Mapping[str, Figure]] = {
    "BERT-base": {"Score, mean of 8 tasks": Figure(.775, "R")},
    "EELBERT-base": {"Score, mean of 8 tasks": Figure(.760, "R")},
    "BERT-mini": {"Score, mean of 6 tasks": Figure(.753, "R")},
    "EELBERT-mini": {"Score, mean of 6 tasks": Figure(.747, "R")},
    "BERT-tiny": {"Score, mean of 6 tasks": Figure(.671, "R")},
    "EELBERT-tiny": {"Score, mean of 6 tasks": Figure(.666, "r")},
    "UNO-EELBERT": {"Score, mean of 6 tasks": Figure(.632, "r")},
}

MEGABYTES: Mapping[str, Figure] = {
    "BERT-base": Figure(438, "R"),
    "EELBERT-base": Figure(344, "R"),
    "BERT-mini": Figure(44.8, "R"),
    "EELBERT-mini": Figure(13.5, "R"),
    "BERT-tiny": Figure(17.7, "R"),
    "EELBERT-tiny": Figure(2.04, "R"),
    "UNO-EELBERT": Figure(1.2, "P"),
}
"""Of the float32 model."""

LATENCY_MS: Mapping[str, tuple[Figure, Figure]] = {
    "base": (Figure(162, "r"), Figure(165, "r")),
    "tiny": (Figure(1.7, "r"), Figure(3.9, "r")),
}
"""Milliseconds a sentence on a laptop's processor, by size: (BERT, EELBERT). Table 5."""

TOP_DROPPED: Mapping[str, Mapping[int, Figure]] = {
    "BERT": {0: Figure(86.19, "P"), 2: Figure(84.86, "P"), 4: Figure(84.19, "P"), 6: Figure(83.28, "P")},
    "XLNet": {0: Figure(86.14, "P"), 2: Figure(85.60, "P"), 4: Figure(85.91, "P"), 6: Figure(84.33, "P")},
    "RoBERTa": {0: Figure(86.88, "P"), 2: Figure(87.71, "P"), 4: Figure(86.94, "P"), 6: Figure(85.23, "P")},
    "DistilBERT": {
        0: Figure(83.43, "P"), 1: Figure(82.94, "P"), 2: Figure(82.68, "P"), 3: Figure(80.15, "P"),
    },
}
"""Means of 7 tasks by the layers dropped from the top. Source: Poor Man's BERT (arXiv 2004.03844)."""

TOP_DROPPABLE: Mapping[str, tuple[Figure, ...]] = {
    task: tuple(Figure(layers, "r") for layers in within)
    for task, within in (
        ("sst2", (2, 5, 7)), ("mnli", (3, 4, 6)), ("qnli", (1, 4, 5)), ("qqp", (7, 8, 9)),
        ("stsb", (6, 7, 8)),
    )
}
"""Layers of BERT that can go from the top within 1, 2 and 3 points. Source: as `TOP_DROPPED`."""
# fmt: on

RATIO_PAIRS = (
    ("EELBERT-base", "BERT-base"),
    ("EELBERT-mini", "BERT-mini"),
    ("EELBERT-tiny", "BERT-tiny"),
    ("UNO-EELBERT", "BERT-tiny"),
)

CLAIMS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "ratios": (
        ("EELBERT-base is 1.5 % below BERT-base with 21 % fewer parameters.", "P"),
        ("UNO-EELBERT is within 4 % of BERT-tiny and 15 times smaller.", "P"),
    ),
    "hash function": (
        ("No real difference at base; the n-gram hash is better at mini. No figures known.", "R"),
    ),
    "hash initialization": (("+0.5 points at base and +1.6 at mini over random normal.", "P"),),
    "latency": (("2 to 4 times slower for tiny, no difference for base.", "r"),),
}
"""What the paper says in words, with the mark, by the part of a report."""

MAJORITY_CLASS = (("mrpc", "accuracy", 0.684), ("mrpc", "f1", 0.812))
"""Reported figures that are those of always answering the most frequent class: they carry no signal."""


def score(model: str | None, task: str, metric: str) -> Figure | None:
    """Return what the paper reports of a model, None where it reports nothing."""
    return SCORES[model].get((task, metric)) if model is not None and model in SCORES else None


def has_signal(model: str | None, task: str, metric: str) -> bool:
    """Whether what the paper reports of a model is not just the majority class's figure."""
    figure = score(model, task, metric)
    return figure is None or (task, metric, figure.value) not in MAJORITY_CLASS


def is_unverified(model: str | None) -> bool:
    """Whether all that is known of a model's scores is recollection that passed no check."""
    known = SCORES.get(model or "", {})
    return bool(known) and all(figure.mark == "r" for figure in known.values())


def average_score(model: str | None, name: str) -> Figure | None:
    """Return the average `name` that the paper reports of a model, None where it reports none."""
    return AVERAGE_SCORES[model].get(name) if model is not None and model in AVERAGE_SCORES else None


def weakest(marks: list[str]) -> str:
    """Return the weakest of some marks: what a figure computed from several figures deserves."""
    return max(marks, key=list(MARKS).index)
