"""Answer texts with the model of this folder; onnxruntime, tokenizers and numpy are all it takes.

    python model.py "a gorgeous, witty, seductive movie"          prints a JSON line a text
    from model import Model; Model().classify(["a gorgeous, witty, seductive movie"])

A hashed embedding is computed once a token: `onnx/word_vectors.onnx` makes it, a table keeps it, and the
graph looks it up there as a BERT's does.
"""

import functools
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

UNKNOWN = "a" * 101
"""A word too long to be read: it becomes [UNK], as one does of which nothing is left."""


class Model:
    """Answer; `weights` is "", "fp16" or "quantized", and `threads` what a text may take (0: all)."""

    def __init__(self, folder=Path(__file__).parent, weights="", threads=1):
        self.folder, self.options = Path(folder), onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads
        sums = self.folder / "checksums.json"
        self.sums = json.loads(sums.read_text()) if sums.exists() else {}
        self.config = json.loads(self.read("config.json"))
        self.task = self.config["eelbert_jax"].get("task", {})
        self.tokenizer = Tokenizer.from_str(self.read("tokenizer.json").decode())
        self.tokenizer.encode_special_tokens = True  # "[SEP]" in a text is text
        self.tokenizer.enable_truncation(self.task.get("max_length", self.config["max_position_embeddings"]))
        self.tokenizer.enable_padding(pad_id=self.config["pad_token_id"])
        ending = f"_{weights}.onnx" if weights else ".onnx"
        self.hash, graph = None, f"onnx/model{ending}"
        if (self.folder / f"onnx/model_vectors{ending}").exists():
            self.hash, graph = self.session_of("onnx/word_vectors.onnx"), f"onnx/model_vectors{ending}"
            shape = self.config["vocab_size"], self.hash.get_outputs()[0].shape[1]
            self.table, self.is_known = np.empty(shape, np.float32), np.zeros(shape[0], bool)
        self.session = self.session_of(graph)

    def read(self, name):
        """Return the bytes of a file of the folder, which are those that were exported."""
        data = (self.folder / name).read_bytes()
        if self.sums.get(name) not in (None, hashlib.sha256(data).hexdigest()):
            raise ValueError(f"{self.folder / name} is damaged: copy the folder again.")
        return data

    def session_of(self, name):
        """Return a graph of the folder, ready to run."""
        data, version = self.read(name), onnxruntime.__version__
        try:
            return onnxruntime.InferenceSession(data, self.options)
        except Exception as error:
            raise ValueError(f"onnxruntime {version} does not run {name}: take 1.18 or newer.") from error

    def run(self, output, texts, batch_size=32, **how):
        """Yield an encoding and its output for each of `texts`, each a string or a pair of them."""
        if isinstance(texts, str):
            raise TypeError(f"{texts[:40]!r} is a string: pass a list of texts.")
        for start in range(0, len(texts), batch_size):
            rows = self.tokenizer.encode_batch(texts[start : start + batch_size], **how)
            names = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
            feed = {name: np.array([getattr(row, of) for row in rows]) for name, of in names.items()}
            if self.hash:
                feed["word_vectors"] = self.word_vectors(feed["input_ids"])
            yield from zip(rows, self.session.run([output], feed)[0], strict=True)

    def word_vectors(self, ids):
        """Return the table of hashed vectors, float32 [V, E], in which the rows of `ids` are known."""
        is_known = self.is_known[ids]
        if not is_known.all():
            new = np.unique(ids[~is_known])
            self.table[new] = self.hash.run(None, {"input_ids": new})[0]
            self.is_known[new] = True
        return self.table

    def encode(self, texts):
        """Return a vector a text, float32 [n, D]: a sentence encoder's, else the mean of its states."""
        if "sentence_embedding" in [output.name for output in self.session.get_outputs()]:
            return np.array([vector for _, vector in self.run("sentence_embedding", texts)])
        found = self.run("last_hidden_state", texts)
        return np.array([states[np.array(row.attention_mask) > 0].mean(axis=0) for row, states in found])

    def classify(self, texts, second_texts=None):
        """Return of every text or pair its class and probability, each label's probability, or its number."""
        pairs = texts if second_texts is None else list(zip(texts, second_texts, strict=True))
        logits = np.array([each for _, each in self.run("logits", pairs)], np.float64)
        if self.task["kind"] == "regress":
            return (logits[:, 0] * self.task["std"] + self.task["mean"]).tolist()
        if self.task["kind"] == "multilabel":
            shares = 1 / (1 + np.exp(-logits))
            return [list(zip(self.task["labels"], row, strict=True)) for row in shares.tolist()]
        shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        return [(self.task["labels"][row.argmax()], float(row.max())) for row in shares]

    def tag(self, sentences):
        """Return the tag of every word of sentences, each a list of words; None where it was cut off."""
        answers, split = [], functools.partial(self.tokenizer.encode, add_special_tokens=False)
        sentences = [[word if split(word).ids else UNKNOWN for word in words] for words in sentences]
        found = self.run("logits", sentences, is_pretokenized=True)
        for words, (row, logits) in zip(sentences, found, strict=True):
            tags, words_of = dict.fromkeys(range(len(words))), row.word_ids
            for place in reversed(range(len(words_of))):  # so that a word's first piece has the last say
                if words_of[place] is not None:
                    tags[words_of[place]] = self.task["labels"][logits[place].argmax()]
            answers.append(list(tags.values()))
        return answers


if __name__ == "__main__":
    model, texts = Model(), sys.argv[1:]
    if model.task.get("kind") == "tag":
        answers = model.tag([text.split() for text in texts])
    elif model.task:
        answers = model.classify(*((texts[::2], texts[1::2]) if model.task["reads_pairs"] else (texts,)))
    else:
        answers = model.encode(texts).tolist()
    print("\n".join(map(json.dumps, answers)))
