"""Find the runs under some folders and read what they left."""

import dataclasses
import glob
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eelbert_jax import store
from eelbert_jax.datasets.conll import TOKENS
from eelbert_jax.datasets.tasks import GLUE_TASKS
from eelbert_jax.errors import UserError
from eelbert_jax.model.config import EMBEDDINGS, SIZES
from eelbert_jax.record import Fields, Result, Start
from eelbert_jax.reporting.pretraining import (
    PretrainingRun,
    is_pretraining,
    read_checkpoint,
    read_pretraining,
)
from eelbert_jax.reporting.published import MEASURES, TASK_NAMES
from eelbert_jax.reporting.text import tell_apart
from eelbert_jax.training.writer import has_metrics
from eelbert_jax.workdir import CONFIG_NAME, METRICS_NAME, RESULT_NAME, read_json

OWN = ("custom", TOKENS)
"""Tasks of a user's own files, described by the config's group of that name."""
HOW_TO_READ = (
    *("text_column", "second_text_column", "label_column", "labels", "regression", "columns", "dev_every"),
    *("word_column", "tag_column"),
)


class Recipe(NamedTuple):
    """Hold what seeds of one experiment have in common."""

    learning_rate: float
    batch_size: int
    num_epochs: float
    num_train: int


@dataclasses.dataclass(frozen=True)
class FineTuningRun:
    """Hold a finished run of `eelbert finetune` or `eelbert baseline`; `start` is None from scratch.

    `task` is as a report names it: of a user's own files (`is_own`), another name is another task.
    """

    folder: str
    task: str
    is_own: bool
    start: Start | None
    result: Result

    @property
    def recipe(self) -> Recipe:
        """What was chosen besides the seed."""
        chosen = self.result
        return Recipe(
            chosen.learning_rate, chosen.batch_size, chosen.num_epochs, chosen.num_examples["train"]
        )

    @property
    def num_dev(self) -> dict[str, int]:
        """Examples by development split."""
        return {split: number for split, number in self.result.num_examples.items() if split != "train"}


class Found(NamedTuple):
    """Hold what lies under the folders of a report; folders without a finished run are named, not dropped."""

    pretraining: tuple[PretrainingRun, ...]
    finetuning: tuple[FineTuningRun, ...]
    unfinished: tuple[str, ...]


class _Folder(NamedTuple):
    """Hold a run's folder, its config ({}: none), and what it may be called, the shortest first."""

    path: Path
    config: Mapping[str, Any]
    names: tuple[str, ...]

    @property
    def is_finished(self) -> bool:
        return (self.path / RESULT_NAME).is_file()

    @property
    def is_pretraining(self) -> bool:
        return is_pretraining(self.config) and has_metrics(self.path)


def find_runs(roots: str) -> Found:
    """Read all runs under some folders or patterns, separated by commas, each run once."""
    folders: dict[Path, _Folder] = {}
    for root in split_paths(roots, "--runs"):
        for folder in _run_folders(root):
            folders.setdefault(folder.path.resolve(), folder)
    if not folders:
        raise UserError(
            f"No run under {roots}: a run is a folder with {RESULT_NAME} (`eelbert finetune`), or with "
            f"{CONFIG_NAME} and {METRICS_NAME} (`eelbert pretrain`)."
        )
    named = dict(
        zip(tell_apart([folder.names for folder in folders.values()]), folders.values(), strict=True)
    )
    finished = {name: folder for name, folder in named.items() if folder.is_finished}
    others = {name: folder for name, folder in named.items() if not folder.is_finished}
    pretraining = [
        read_pretraining(folder.path, folder.config, name)
        for name, folder in others.items()
        if folder.is_pretraining
    ]
    unfinished = [name for name, folder in others.items() if not folder.is_pretraining]
    return Found(tuple(sorted(pretraining, key=_order)), tuple(_read_finished(finished)), tuple(unfinished))


def split_paths(text: str, flag: str) -> list[Path]:
    """Return the paths that a comma-separated list of paths and patterns names.

    A name may hold a comma, as a sweep's folders do: the longest that is there counts, before any pattern.
    """
    words, found = text.split(","), []
    while words:
        for length in range(len(words), 0, -1):
            name = os.path.expanduser(",".join(words[:length]).strip())
            here = store.listing(name) if store.is_url(name) else name and os.path.exists(name)
            paths = [name] if here else sorted(glob.glob(name))
            if paths:
                break
        else:
            if words[0].strip():
                raise UserError(
                    f"Nothing is at {words[0].strip()!r}; give paths or patterns: {flag}=PATH,PATH."
                )
            length = 1
        found += [store.folder(path) for path in paths]
        words = words[length:]
    return found


def _run_folders(root: Path) -> Iterator[_Folder]:
    """Yield the runs under `root`; what lies inside a run's folder is none."""
    resolved = root.resolve()
    for path, below, files in store.walk(root):
        below.sort()
        config = read_json(path / CONFIG_NAME) if CONFIG_NAME in files else {}
        is_run = RESULT_NAME in files or ("task" in config and "pretrained" in config)
        if is_run or (is_pretraining(config) and has_metrics(path)):
            parts = (resolved / path.relative_to(root)).parts
            least = len(parts) - len(resolved.parts) + 1
            names = tuple(str(Path(*parts[-length:])) for length in range(least, len(parts) + 1))
            yield _Folder(path, config, names)
            below.clear()


def _order(run: PretrainingRun) -> tuple[int, int, str]:
    """Sort by size, the table before the hashes, as the paper does."""
    size = list(SIZES).index(run.size) if run.size else len(SIZES)
    return size, EMBEDDINGS.index(run.embedding), run.folder


def _read_finished(folders: Mapping[str, _Folder]) -> list[FineTuningRun]:
    read = [(name, folder, Result.read(folder.path / RESULT_NAME)) for name, folder in folders.items()]
    own = {
        name: _OwnTask.of(name, folder.config, result)
        for name, folder, result in read
        if _is_own(folder, result)
    }
    task_names = _name_own_tasks(list(own.values()))
    runs = []
    for name, folder, result in read:
        needed = [metric for task, metric, _ in MEASURES if task == result.task and result.official]
        missing = [metric for metric in needed if metric not in result.metrics]
        if missing:
            where = Fields(folder.path / RESULT_NAME, {}, "metrics.")
            raise where.wrong(", ".join(missing), "is missing", (float,))
        task = result.task
        if name in own:
            task = task_names[own[name]]
        elif task in TASK_NAMES and not result.official:
            task = f"{task} (unofficial split)"
        start = None if result.pretrained is None else _completed(result.pretrained)
        runs.append(FineTuningRun(name, task, name in own, start, result))
    return runs


def _is_own(folder: _Folder, result: Result) -> bool:
    return folder.config.get("task") in OWN or result.task not in GLUE_TASKS


class _OwnTask(NamedTuple):
    """Tell a user's own task from another: by content of its files, where known, else by their place."""

    content: str
    place: str
    names: tuple[str, ...]

    @classmethod
    def of(cls, folder: str, config: Mapping[str, Any], result: Result) -> "_OwnTask":
        group = config.get(config.get("task", ""), {})
        reading = {key: group[key] for key in HOW_TO_READ if group.get(key) is not None}
        files = [group.get("train"), group.get("dev"), result.num_examples]
        data = {split: digest for split, digest in result.data.items() if split != "test"}
        place, content = (json.dumps([result.task, reading, of], sort_keys=True) for of in (files, data))
        path = Path(group.get("train") or f"{result.task} ({sum(result.num_examples.values())} examples)")
        short = str(Path(*path.parts[-2:])) if result.task in OWN else result.task
        column = group.get("label_column", group.get("tag_column", "-"))
        names = [short, *(f"{name} ({column})" for name in (short, path, f"{path}, as in {folder}"))]
        return cls(content if result.data else "", place, tuple(names))


def _name_own_tasks(tasks: Sequence[_OwnTask]) -> dict[_OwnTask, str]:
    """Return a name for each task; older records, without the content, go by their place."""
    content_at = {task.place: task.content for task in tasks if task.content}
    identities = [task.content or content_at.get(task.place, task.place) for task in tasks]
    firsts = dict(zip(reversed(identities), reversed(tasks), strict=True))
    names = dict(zip(firsts, tell_apart([task.names for task in firsts.values()]), strict=True))
    return {task: names[identity] for task, identity in zip(tasks, identities, strict=True)}


def _completed(start: Start) -> Start:
    """Return where a run started; what its record lacks is read from the pre-training run, if it is here."""
    workdir = start.workdir if store.is_url(start.workdir) else os.path.normpath(start.workdir)
    if start.tokens is None and start.heldout_loss is None:
        return read_checkpoint(workdir, start.step)
    return dataclasses.replace(start, workdir=workdir)
