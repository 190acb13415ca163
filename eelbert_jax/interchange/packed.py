"""Read and write a model as one file of int8 weights, what they are of in its header; vocab.txt beside it.

The form of the released models. A matrix `a/b/kernel` is int8 beside its float32 `a/b/kernel:scales`; what
is no matrix stays float32. The hash's vectors are in no file: they are computed when it is read.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from eelbert_jax import store
from eelbert_jax.compress.quantize import Int8, dequantize, quantize
from eelbert_jax.datasets.tasks import TaskRecord
from eelbert_jax.errors import UserError
from eelbert_jax.interchange.folder import Imported
from eelbert_jax.model.config import BertConfig, identity
from eelbert_jax.subwords import load_tokenizer, save_tokenizer
from eelbert_jax.vocabulary import Vocabulary
from eelbert_jax.workdir import PACKED_NAME, write_whole

RECORD = "eelbert_jax"
"""Key of the header: {"identity": ..., "task": ..., "trained_length": ...} as JSON."""
SCALES = ":scales"


def is_packed(path: str | Path) -> bool:
    """Return whether `path` is a folder with such a file."""
    return (store.folder(path) / PACKED_NAME).is_file()


def write_packed(
    path: Path,
    config: BertConfig,
    vocabulary: Vocabulary,
    params: Mapping[str, Any],
    *,
    lowercase: bool,
    task: TaskRecord | None = None,
    trained_length: int | None = None,
) -> int:
    """Write the file and its vocabulary into a folder; return the bytes of the file."""
    tensors: dict[str, np.ndarray] = {}
    for name, leaf in traverse_util.flatten_dict(quantize(params), sep="/").items():
        if isinstance(leaf, Int8):
            tensors[name], tensors[name + SCALES] = leaf.values, leaf.scales
        else:
            tensors[name] = leaf
    record = {
        "identity": identity(config, vocabulary, lowercase),
        "task": None if task is None else task.to_dict(),
        "trained_length": trained_length,
    }
    content = save(
        {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()},
        {RECORD: json.dumps(record)},
    )
    write_whole(path / PACKED_NAME, content)
    save_tokenizer(vocabulary, path)
    return len(content)


def read_packed(path: Path) -> Imported:
    """Return the model with float32 parameters.

    Raises:
      UserError: the file is damaged, or its vocabulary or hash are not what this version computes.
    """
    file = path / PACKED_NAME
    try:
        with safe_open(file, "numpy") as opened:
            record = json.loads((opened.metadata() or {})[RECORD])
        tensors = load_file(file)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}); fetch or export it again.") from error
    saved = record["identity"]
    vocabulary = load_tokenizer(path)
    config = BertConfig.from_identity(saved["model"])
    computed = identity(config, vocabulary, saved["lowercase"])
    if wrong := [name for name in computed if computed[name] != saved[name]]:
        raise UserError(
            f"{path}: its {' and '.join(wrong)} are other than those that {PACKED_NAME} was written for; "
            "fetch or export the folder again."
        )
    task = None if record["task"] is None else TaskRecord.from_dict(record["task"])
    if task is not None:
        config = dataclasses.replace(config, num_labels=max(len(task.labels), 1))
    flat = {
        name: Int8(tensor, tensors[name + SCALES]) if name + SCALES in tensors else tensor
        for name, tensor in tensors.items()
        if not name.endswith(SCALES)
    }
    params = dequantize(traverse_util.unflatten_dict(flat, sep="/"))
    return Imported(config, vocabulary, params, saved["lowercase"], task, record["trained_length"])
