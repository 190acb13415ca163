"""Write a model as a folder that transformers loads, and ask it there.

hf           a BERT as transformers saves it, the hashed vectors written out: nothing has to be trusted
hf_compact   code and vocabulary in the table's place: 1.4 MB of a UNO, loaded with trust_remote_code=True
"""

import dataclasses
import importlib.util
import json
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from eelbert_jax.datasets.encoding import encode_texts, gather
from eelbert_jax.errors import UserError
from eelbert_jax.export.expected import outputs
from eelbert_jax.export.sentences import SENTENCES
from eelbert_jax.inference.predict import Model
from eelbert_jax.interchange.folder import CONFIG, MODULES, WEIGHTS, config_values, write_folder
from eelbert_jax.interchange.hf import WORD_EMBEDDINGS, to_hf
from eelbert_jax.interchange.tokenizer_files import SETTINGS, WHOLE, tokenizer_settings
from eelbert_jax.vocabulary import save_vocabulary, tokenizer_json
from eelbert_jax.workdir import VOCABULARY_NAME, write_json, write_whole

TOLERANCE = 1e-5
"""Largest difference from transformers' outputs, relative to the largest where that is beyond 1."""

CODE = "modeling_eelbert"
HASH = {"errors": "eelbert_jax", "hash_spec": "eelbert_jax.hashing", "hash_reference": "eelbert_jax.hashing"}
"""Files of the hash that go along, as they stand here but for how they import each other."""
DENSE, IDENTITY = "2_Dense", "torch.nn.modules.linear.Identity"
"""Where sentence-transformers keeps a projection, and what it does to it."""
HEADS = ("MaskedLM", "SequenceClassification", "TokenClassification")


def write_transformers_folder(folder: Path, model: Model, compact: bool) -> list[str]:
    """Write the folder, ask it where transformers is installed, and say what is there.

    Raises:
      UserError: transformers knows no such model, or answers otherwise; the caller removes the folder.
    """
    if model.task is not None and model.task.pair_encoder == "bi":
        raise UserError("No head of transformers reads the texts of a pair apart (pair_encoder=bi).")
    if "projection" in model.params:
        write_sentence_modules(folder, model)
        encoder = {name: part for name, part in model.params.items() if name != "projection"}
        config = dataclasses.replace(model.config, sentence_size=None)
        model = dataclasses.replace(model, params=encoder, config=config)
    # What a checkpoint does not hold, since a run may change it: the published rate, for who trains on.
    config = dataclasses.replace(model.config, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    if compact:
        _write_compact(folder, dataclasses.replace(model, config=config))
    else:
        write_folder(
            folder,
            config,
            model.vocabulary,
            model.params,
            lowercase=model.lowercase,
            task=model.task,
            trained_length=model.trained_length,
        )
    size = f"{WEIGHTS}: {(folder / WEIGHTS).stat().st_size / 1e6:.3f} MB"
    if importlib.util.find_spec("transformers") is None or importlib.util.find_spec("torch") is None:
        return [size, "not tried: transformers or torch is not installed here"]
    return [size, f"asked in transformers, outputs within {_difference(folder, model, compact):.1e}"]


def write_sentence_modules(folder: Path, model: Model) -> None:
    """Write what sentence-transformers does behind the encoder: a mean over tokens, and the projection.

    A BERT of transformers has no place for that: there the folder is the encoder alone.
    """
    kinds = {"": "Transformer", "1_Pooling": "Pooling", DENSE: "Dense"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    width, size = np.shape(model.params["projection"]["kernel"])
    pooling = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True}
    linear = {"in_features": width, "out_features": size, "bias": True}
    write_whole(folder / MODULES, json.dumps(modules, indent=2) + "\n")
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": model.max_length})
    for path, values in (("1_Pooling", pooling), (DENSE, {**linear, "activation_function": IDENTITY})):
        (folder / path).mkdir()
        write_json(folder / path / CONFIG, values)
    projection = {f"linear.{name}": np.asarray(leaf) for name, leaf in model.params["projection"].items()}
    kernel = np.ascontiguousarray(projection.pop("linear.kernel").T)
    weights = save({**projection, "linear.weight": kernel}, {"format": "pt"})
    write_whole(folder / DENSE / WEIGHTS, weights)


def _write_compact(folder: Path, model: Model) -> None:
    if model.config.has_trained_table:
        raise UserError(
            f"embedding={model.config.embedding!r} is a table, which nothing replaces: take --to=hf."
        )
    vocabulary = np.frombuffer(model.vocabulary.text.encode("utf-8", "surrogatepass"), np.uint8)
    state = to_hf(model.params, model.config)
    state[WORD_EMBEDDINGS.replace("weight", "vocabulary")] = vocabulary
    write_whole(
        folder / WEIGHTS, save({k: np.ascontiguousarray(v) for k, v in state.items()}, {"format": "pt"})
    )
    values = config_values(model.config, model.params, model.task, model.trained_length)
    write_json(folder / CONFIG, {**values, **_own_type(values, len(vocabulary))})
    write_whole(folder / WHOLE, tokenizer_json(model.vocabulary, model.lowercase))
    write_json(
        folder / SETTINGS, tokenizer_settings(model.vocabulary, model.lowercase, model.config.num_positions)
    )
    save_vocabulary(model.vocabulary, folder / VOCABULARY_NAME)
    code = resources.files("eelbert_jax.export.outside").joinpath(f"{CODE}.py").read_text()
    write_whole(folder / f"{CODE}.py", code)
    for name, package in HASH.items():
        code = resources.files(package).joinpath(f"{name.removeprefix('hash_')}.py").read_text()
        code = code.replace("eelbert_jax.hashing.", ".hash_").replace("eelbert_jax.errors", ".errors")
        write_whole(folder / f"{name}.py", code)


def _own_type(values: dict[str, Any], vocabulary_bytes: int) -> dict[str, Any]:
    autos = {"AutoConfig": "EelbertConfig", "AutoModel": "EelbertModel"}
    autos |= {f"AutoModelFor{head}": f"EelbertFor{head}" for head in HEADS}
    return {
        "model_type": "eelbert",
        "architectures": [name.replace("Bert", "Eelbert") for name in values["architectures"]],
        "auto_map": {auto: f"{CODE}.{name}" for auto, name in autos.items()},
        "vocabulary_bytes": vocabulary_bytes,
    }


def _difference(folder: Path, model: Model, compact: bool) -> float:
    """Return how far transformers' outputs are from the model's; its tokenizer has to read the same."""
    texts = [text for text in SENTENCES if "[" not in text]  # there a bracketed name is a special token
    encoded = encode_texts(texts, None, model.vocabulary, model.config.num_positions, model.lowercase)
    rows = [gather(encoded, np.array([i]), len(ids)) for i, ids in enumerate(encoded.ids)]
    asked = {
        "texts": texts,
        "ids": [ids[0].tolist() for ids, _, _ in rows],
        "types": [types[0].tolist() for _, _, types in rows],
    }
    found = _ask(folder, asked, compact)
    if found["wrong"] or found["ids"] != asked["ids"]:
        raise UserError(
            f"transformers reads {folder} otherwise: {found['wrong'] or 'its tokenizer differs'}."
        )
    largest, scale = 0.0, 1.0
    padded = gather(encoded, np.arange(len(rows)), max(map(len, encoded.ids)))
    expected = outputs(model, *padded)
    name = "logits" if "logits" in expected else "last_hidden_state"
    for i, output in enumerate(found["outputs"]):
        theirs = np.array(output, np.float32)
        ours = expected[name][i][..., : theirs.shape[-1]]
        ours = ours[: len(theirs)] if theirs.ndim == 2 else ours
        largest, scale = (
            max(largest, float(np.abs(ours - theirs).max())),
            max(scale, float(np.abs(ours).max())),
        )
    if not largest / scale <= TOLERANCE:
        raise UserError(f"{folder} answers otherwise in transformers, by {largest / scale:.1e}.")
    return largest / scale


def _ask(folder: Path, asked: dict[str, Any], compact: bool) -> dict[str, Any]:
    script = str(resources.files("eelbert_jax.export.outside").joinpath("ask_transformers.py"))
    words = [sys.executable, "-I", script, str(folder), *(["trusted"] if compact else [])]
    answer = subprocess.run(words, input=json.dumps(asked), capture_output=True, text=True, check=False)
    if answer.returncode:
        raise UserError(f"transformers does not load {folder}: {answer.stderr.strip().splitlines()[-1]}")
    return json.loads(answer.stdout.splitlines()[-1])
