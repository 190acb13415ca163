"""From the name of a text source to units of input: files by glob, a TFDS dataset, or "docs"."""

import dataclasses
import functools
import importlib
import importlib.util
import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from eelbert_jax.corpus import storage
from eelbert_jax.corpus.docstrings import find_documentation
from eelbert_jax.corpus.documents import (
    Chunk,
    ReadOptions,
    ReadTally,
    Unit,
    chunk_record,
    decode_at,
)
from eelbert_jax.corpus.files import find_file_units
from eelbert_jax.errors import UserError

DOCUMENTATION = "docs"
TFDS_NAME = re.compile(r"[a-z][a-z0-9_]*(/[\w.\-]+)?(:[\d.*]+)?")
"""NAME, NAME/CONFIG and NAME:VERSION."""
READ_AT_ONCE = 256
"""Examples of a TFDS dataset."""
MANY_UNITS = 256
"""A dataset is cut into about so many units: work for many processes."""


@dataclasses.dataclass(frozen=True)
class SourceOptions:
    """Say how a source is divided into units and where its data are.

    Attributes:
      min_unit_bytes: input is grouped, in the order of the names, into units of at least this size.
      max_unit_bytes: what can be cut is cut into units of at most this size.
      tfds_split: such as "train" or "train[:10%]".
    """

    min_unit_bytes: int = 4 << 20
    max_unit_bytes: int = 64 << 20
    tfds_split: str = "train"
    tfds_data_dir: str = ""
    tfds_download: bool = True
    docs_bytes: int = 64 << 20

    def __post_init__(self) -> None:
        if not 1 <= self.min_unit_bytes <= self.max_unit_bytes:
            raise UserError(
                "unit_mib must be positive and its min no larger than its max, got "
                f"{self.min_unit_bytes} and {self.max_unit_bytes} bytes."
            )


def find_units(source: str, options: SourceOptions, read: ReadOptions) -> list[Unit]:
    """Return the units of a source in their order, without reading it.

    Args:
      source: "docs", a glob of paths or of a URL (`**` crosses folders), or a TFDS name such as `wiki40b/en`.
    """
    if source == DOCUMENTATION:
        return list(find_documentation(options.docs_bytes, options.min_unit_bytes))
    pattern = storage.canonical(source)
    try:
        if files := storage.find_files(pattern):
            return list(find_file_units(files, options.min_unit_bytes, options.max_unit_bytes, read))
        is_folder = storage.is_folder(pattern)
    except OSError as error:
        raise UserError(f"Cannot read {error.filename or source}: {error.strerror or error}.") from error
    if is_folder:
        raise UserError(f"{source} is a folder. Name its files by a glob, for example '{source}/*.txt'.")
    if storage.is_url(pattern):
        raise UserError(f"No object matches {source!r}. Check the bucket's name and the glob.")
    if TFDS_NAME.fullmatch(source):
        return list(_tfds_units(source, options, read))
    raise UserError(
        f"No file matches {source!r}, and it is no TFDS dataset's name. Give a glob in quotes, a dataset "
        f"such as lm1b, or {DOCUMENTATION!r} for the documentation on this machine."
    )


@dataclasses.dataclass(frozen=True)
class TfdsUnit:
    """Read some examples of a TFDS dataset, each a document; `num_bytes` is their share of its size."""

    name: str
    full_name: str
    options: SourceOptions
    feature: str
    start: int
    stop: int
    num_bytes: int

    @property
    def versions(self) -> dict[str, str]:
        """None: the dataset's version is in its description."""
        return {}

    def describe(self) -> dict[str, Any]:
        """Return dataset with version, split, feature and range."""
        return {
            "dataset": self.full_name,
            "split": self.options.tfds_split,
            "feature": self.feature,
            "examples": [self.start, self.stop],
        }

    def read(self, options: ReadOptions, tally: ReadTally) -> Iterator[Chunk]:
        """Yield the documents of the range in order."""
        split = self.options.tfds_split
        examples = _data_source(_builder(self.name, self.options), split)
        for first in range(self.start, self.stop, READ_AT_ONCE):
            numbers = range(first, min(first + READ_AT_ONCE, self.stop))
            for number, example in zip(numbers, examples.__getitems__(numbers), strict=True):
                place = functools.partial("{}, {}, example {}".format, self.full_name, split, number)
                text = functools.partial(decode_at, place, example[self.feature], options, tally)
                yield from chunk_record(text, options, tally)
            share = (numbers.stop - self.start) / (self.stop - self.start)
            tally.num_bytes = int(self.num_bytes * share)


def _tfds_units(source: str, options: SourceOptions, read: ReadOptions) -> Iterator[TfdsUnit]:
    builder = _builder(source, options)
    feature = _text_feature(builder, read)
    num_examples = len(_data_source(builder, options.tfds_split))
    if not num_examples:
        raise UserError(f"{source} has no example in split {options.tfds_split!r}.")
    split_info = builder.info.splits[options.tfds_split]
    total = max(split_info.num_bytes * num_examples // split_info.num_examples, num_examples)
    unit_bytes = min(max(total // MANY_UNITS, options.min_unit_bytes), options.max_unit_bytes)
    step = max(1, unit_bytes * num_examples // total)
    for start in range(0, num_examples, step):
        stop = min(start + step, num_examples)
        share = total * (stop - start) // num_examples
        yield TfdsUnit(source, builder.info.full_name, options, feature, start, stop, share)


@functools.cache
def _builder(name: str, options: SourceOptions) -> Any:
    import tensorflow_datasets as tfds  # only here: the import takes seconds, and few sources need it

    data_dir = os.path.expanduser(options.tfds_data_dir) or None
    try:
        try:
            builder = tfds.builder(name, data_dir=data_dir)
        except tfds.core.DatasetNotFoundError:
            _import_legacy_builder(re.split("[/:]", name)[0])
            builder = tfds.builder(name, data_dir=data_dir)
        if not builder.is_prepared() and options.tfds_download:
            builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    except (ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"No file matches {name!r}, and TFDS has no such dataset: {reason}") from error
    if not builder.is_prepared():
        _fetch(builder, name, options)
    return builder


def _fetch(builder: Any, name: str, options: SourceOptions) -> None:
    if not options.tfds_download:
        raise UserError(
            f"{name} is not prepared in {builder.data_dir}. Name the right folder by --config.tfds.data_dir, "
            "or let it be downloaded by --config.tfds.download=True."
        )
    try:
        builder.download_and_prepare()
    except Exception as error:  # the code of a dataset runs here, with the network and anything else
        reason = (str(error).strip() or "no reason given").splitlines()[-1]
        raise UserError(
            f"TFDS could not fetch {name} ({type(error).__name__}: {reason}). Prepare it where that is "
            "possible (`tfds build NAME --file_format=array_record`; large ones need apache-beam installed), "
            "and name the folder by --config.tfds.data_dir."
        ) from error


def _import_legacy_builder(name: str) -> None:
    """Register a builder that TFDS finds by itself only where TensorFlow is installed."""
    for folder in ("text", "summarization", "question_answering", "translate"):
        package = f"tensorflow_datasets.{folder}"
        if importlib.util.find_spec(package) and importlib.util.find_spec(f"{package}.{name}"):
            importlib.import_module(f"{package}.{name}")


def _data_source(builder: Any, split: str) -> Any:
    try:
        return builder.as_data_source(split=split)
    except NotImplementedError as error:
        raise UserError(
            f"{builder.data_dir} is in the {builder.info.file_format.value} format, which cannot be read by "
            "index. Convert it with `tfds build --file_format=array_record`, or choose another "
            "--config.tfds.data_dir."
        ) from error
    except ValueError as error:
        known = ", ".join(sorted(builder.info.splits))
        raise UserError(f"{builder.info.full_name} has no split {split!r}; it has {known}.") from error


def _text_feature(builder: Any, read: ReadOptions) -> str:
    features = builder.info.features
    strings = sorted(name for name in features if np.dtype(features[name].np_dtype).hasobject)
    name = read.text_field or ("text" if "text" in strings else strings[0] if len(strings) == 1 else "")
    if name not in strings:
        raise UserError(
            f"Cannot tell the text of {builder.info.full_name}, whose string features are "
            f"{', '.join(strings) or 'none'}. Set --config.text_field to one of them."
        )
    return name
