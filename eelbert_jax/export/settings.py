"""What stands beside an exported graph: the configuration, and how text is read."""

import dataclasses
from pathlib import Path
from typing import Any

from eelbert_jax.inference.predict import Model
from eelbert_jax.interchange.folder import CONFIG, EXTRAS, config_values
from eelbert_jax.interchange.tokenizer_files import SETTINGS, WHOLE, tokenizer_settings
from eelbert_jax.subwords import Subwords, save_tokenizer
from eelbert_jax.vocabulary import tokenizer_json
from eelbert_jax.workdir import write_json, write_whole


def write_settings(folder: Path, model: Model) -> None:
    """Write config.json, tokenizer.json, tokenizer_config.json and, of a WordPiece, vocab.txt."""
    # What a MiniALBERT or a sentence encoder has stands in the graph, and no reader of the file asks for it.
    plain: dict[str, Any] = {
        "embedding_size": None,
        "num_hidden_groups": None,
        "adapter_size": None,
        "sentence_size": None,
    }
    config: Any = dataclasses.replace(model.config, **plain, pooling="pooler")
    values = config_values(config, model.params, model.task, model.trained_length)
    write_json(folder / CONFIG, {EXTRAS: {}, **values})
    write_json(folder / SETTINGS, tokenizer_settings(model.vocabulary, model.lowercase, model.max_length))
    save_tokenizer(model.vocabulary, folder)
    if not isinstance(model.vocabulary, Subwords):
        write_whole(folder / WHOLE, tokenizer_json(model.vocabulary, model.lowercase))
