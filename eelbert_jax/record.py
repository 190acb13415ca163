"""The record of a finished run, `result.json`, and strict reading of JSON: errors name file and key."""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from eelbert_jax import store
from eelbert_jax.errors import UserError
from eelbert_jax.workdir import DROPPED_NAME, RESULT_NAME, read_json, write_whole

Record = TypeVar("Record")


class Fields:
    """Take typed values out of a JSON object; an error names file and key."""

    def __init__(self, path: Path, values: Mapping[str, Any], prefix: str = "") -> None:
        self._path, self._values, self._prefix = path, values, prefix

    def take(self, key: str, *kinds: type) -> Any:
        """Return a value of one of `kinds`; float takes integers too and has to be finite."""
        if key not in self._values:
            raise self.wrong(key, "is missing", kinds)
        value = self._values[key]
        legal = (*kinds, int) if float in kinds else kinds
        if not isinstance(value, legal) or (isinstance(value, bool) and bool not in kinds):
            raise self.wrong(key, f"is {value!r}", kinds)
        if isinstance(value, float) and not math.isfinite(value):
            raise self.wrong(key, f"is {value!r}", kinds)
        return value

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def group(self, key: str) -> "Fields":
        """Return the object under `key`."""
        return Fields(self._path, self.take(key, dict), f"{self._prefix}{key}.")

    def values(self, key: str, kind: type) -> dict[str, Any]:
        """Return the object under `key`, whose values are all of `kind`."""
        group = self.group(key)
        return {name: group.take(name, kind) for name in group._values}

    def items(self, key: str, kind: type) -> list[Any]:
        """Return the list under `key`, whose items are all of `kind`."""
        names = [f"{key}[{i}]" for i in range(len(self.take(key, list)))]
        found = Fields(self._path, dict(zip(names, self.take(key, list), strict=True)), self._prefix)
        return [found.take(name, kind) for name in names]

    def record(self, kind: type[Record]) -> Record:
        """Return the dataclass `kind` of these values, each by the type of its field.

        A missing value is the field's default; values that `kind` does not know are passed over.
        """
        hints = typing.get_type_hints(kind)
        return kind(
            **{
                field.name: self._typed(field.name, hints[field.name])
                for field in dataclasses.fields(kind)  # type: ignore[arg-type]
                if field.name in self or not _has_default(field)
            }
        )

    def _typed(self, key: str, hint: Any) -> Any:
        if typing.get_origin(hint) is dict:
            return self.values(key, typing.get_args(hint)[1])
        kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        if typing.get_origin(hint) is list:
            return self.items(key, typing.get_args(hint)[0])
        nested: Any = next((kind for kind in kinds if dataclasses.is_dataclass(kind)), None)
        if nested is None:
            return self.take(key, *kinds)
        others = [kind for kind in kinds if kind is not nested]
        return None if self.take(key, dict, *others) is None else self.group(key).record(nested)

    def wrong(self, key: str, what: str, kinds: Sequence[type]) -> UserError:
        """Return the error for `key`."""
        wanted = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
        return UserError(
            f"{self._path}: {self._prefix}{key} {what}, expected {wanted}. Run again with this version, or "
            "move the folder away."
        )


def _has_default(field: dataclasses.Field) -> bool:
    missing = dataclasses.MISSING
    return field.default is not missing or field.default_factory is not missing


@dataclasses.dataclass(frozen=True)
class Start:
    """The pre-trained model that a run started from; None is what an imported one cannot know."""

    workdir: str
    step: int | None
    tokens: int | None = None
    heldout_loss: float | None = None


@dataclasses.dataclass(frozen=True)
class ModelRecord:
    """What a model is.

    Attributes:
      size: None of a baseline that is no BERT, and of sizes that have no name.
      embedding: kind of token embedder; None for such a baseline.
      parameters: trained numbers, 2-class convention.
    """

    name: str
    size: str | None
    embedding: str | None
    parameters: int


@dataclasses.dataclass(frozen=True)
class Dropped:
    """The layers that a model lost, and when.

    Attributes:
      origin: folder of the model that had them all and was not fine-tuned yet.
      num_layers: of that model.
      kept_layers: those left of it, numbered from 1 there.
      strategy: that chose the last ones.
      order: what was done to the model so far, "drop" or "tune" each time.
    """

    origin: str
    num_layers: int
    kept_layers: list[int]
    strategy: str
    order: list[str]

    @property
    def num_dropped(self) -> int:
        """K, the layers that are gone."""
        return self.num_layers - len(self.kept_layers)

    def tuned(self) -> "Dropped":
        """Return what it is after a fine-tuning."""
        return dataclasses.replace(self, order=[*self.order, "tune"])

    @classmethod
    def of(cls, folder: str | Path) -> "Dropped | None":
        """Return what a model's folder, or a run's, says of lost layers; None: it has all."""
        folder = store.folder(folder)
        if (folder / DROPPED_NAME).is_file():
            return Fields(folder / DROPPED_NAME, read_json(folder / DROPPED_NAME)).record(cls)
        return Result.read(folder / RESULT_NAME).dropped if (folder / RESULT_NAME).is_file() else None


@dataclasses.dataclass(frozen=True)
class Result:
    """What a finished fine-tuning or baseline leaves in `result.json`. Later fields have defaults.

    Attributes:
      official: whether the split is GLUE's.
      split: the development split of `metrics`; figures of a second one have its name as suffix.
      pretrained: None: from scratch.
      seed: of head, dropout and order.
      best_step: the step of `metrics`; `final_metrics` are of the last one.
      degenerate: whether the model of `metrics` gives all examples of a split one class.
      majority: the metrics of always giving the most frequent label.
      num_examples: by split, "train" among them.
      test_metrics: of the best step on a labelled test file, scored once at the end; empty without one.
      data: SHA-256 by split of the files of one's own task, to tell tasks apart.
      dropped: None of a model that has all its layers.
    """

    task: str
    official: bool
    split: str
    model: ModelRecord
    pretrained: Start | None
    seed: int
    learning_rate: float
    batch_size: int
    num_epochs: float
    selection: str
    best_step: int
    total_steps: int
    metrics: dict[str, float]
    final_metrics: dict[str, float]
    degenerate: bool
    majority: dict[str, float]
    num_examples: dict[str, int]
    truncated: int
    hardware: str
    commit: str | None
    seconds: float
    test_metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    data: dict[str, str] = dataclasses.field(default_factory=dict)
    dropped: Dropped | None = None

    def write(self, workdir: Path) -> None:
        """Write `result.json` whole."""
        write_whole(workdir / RESULT_NAME, json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Result":
        """Read a `result.json`; an error names the key that is missing or of another type."""
        fields = Fields(path, read_json(path))
        result = fields.record(cls)
        if "train" not in result.num_examples:
            raise fields.group("num_examples").wrong("train", "is missing", (int,))
        if not result.metrics:
            raise fields.group("metrics").wrong("any metric", "is missing", (float,))
        return result

    @property
    def main_metric(self) -> str:
        """The metric that selected the best step."""
        return next(iter(self.metrics))
