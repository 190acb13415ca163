"""Answer texts with the model of this folder; onnxruntime, tokenizers and numpy are all it takes.

python model.py "a gorgeous, witty, seductive movie"          prints a JSON line a text
from model import Model; Model().classify(["a gorgeous, witty, seductive movie"])
"""

import functools
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import tokenizers


class Model:
    """Answer; `weights` is "", "fp16" or "quantized", and `threads` what a text may take (0: all)."""

    def __init__(self, folder=Path(__file__).parent, weights="", threads=1):
        self.folder, options, self.hash = Path(folder), onnxruntime.SessionOptions(), None
        options.intra_op_num_threads = threads
        session = functools.partial(onnxruntime.InferenceSession, sess_options=options)
        config = self.read("config.json", json.loads)
        self.task = config["eelbert_jax"].get("task", {})
        self.tokenizer = self.read("tokenizer.json", tokenizers.Tokenizer.from_buffer)
        self.tokenizer.encode_special_tokens = True  # "[SEP]" in a text is text
        self.tokenizer.enable_truncation(self.task.get("max_length", config["max_position_embeddings"]))
        self.tokenizer.enable_padding(pad_id=config["pad_token_id"])
        name = f"_{weights}.onnx" if weights else ".onnx"
        if (self.folder / f"onnx/model_vectors{name}").exists():
            self.hash, name = self.read("onnx/word_vectors.onnx", session), f"_vectors{name}"
            shape = config["vocab_size"], self.hash.get_outputs()[0].shape[1]
            self.table, self.is_known = np.empty(shape, np.float32), np.zeros(shape[0], bool)
        self.session = self.read(f"onnx/model{name}", session)

    def read(self, name, how):
        """Return what `how` makes of the bytes of a file, which are those that were exported."""
        data, sums = (self.folder / name).read_bytes(), self.folder / "checksums.json"
        if sums.exists() and json.loads(sums.read_text()).get(name) != hashlib.sha256(data).hexdigest():
            raise ValueError(f"{self.folder / name} is damaged: copy the folder again.")
        try:
            return how(data)
        except Exception as error:
            found = f"onnxruntime {onnxruntime.__version__} and tokenizers {tokenizers.__version__}"
            raise ValueError(f"{name} is not read by {found}: take 1.18 and 0.21 or newer.") from error

    def run(self, output, texts, answer, **how):
        """Return what `answer` makes of each text's encoding and output; a text is a string or a pair."""
        if isinstance(texts, str):
            raise TypeError(f"{texts[:40]!r} is a string: pass a list of texts.")
        by_length = sorted(range(len(texts)), key=lambda i: sum(map(len, texts[i])))
        answers = [None] * len(texts)
        for start in range(0, len(texts), 32):
            places = by_length[start : start + 32]
            rows = self.tokenizer.encode_batch([texts[i] for i in places], **how)
            parts = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
            feed = {name: np.array([getattr(row, part) for row in rows]) for name, part in parts.items()}
            if self.hash:
                feed["word_vectors"] = self.word_vectors(feed["input_ids"])
            for i, row, found in zip(places, rows, self.session.run([output], feed)[0], strict=True):
                answers[i] = answer(row, found)
        return answers

    def word_vectors(self, ids):
        """Return a table, float32 [V, E], that has the hashed vectors of `ids`; each is computed once."""
        is_new = ~self.is_known[ids]
        if is_new.any():
            new = np.unique(ids[is_new])
            self.table[new], self.is_known[new] = self.hash.run(None, {"input_ids": new})[0], True
        return self.table

    def encode(self, texts):
        """Return a vector a text, float32 [n, D]: a sentence encoder's, else the mean of its states."""
        is_sentence_encoder = self.session.get_outputs()[0].name == "sentence_embedding"
        output = "sentence_embedding" if is_sentence_encoder else "last_hidden_state"

        def vector(row, found):
            return found if is_sentence_encoder else found[: sum(row.attention_mask)].mean(axis=0)

        return np.array(self.run(output, texts, vector))

    def classify(self, texts, second_texts=None):
        """Return of every text or pair its class and probability, each label's probability, or its number."""
        pairs = texts if second_texts is None else list(zip(texts, second_texts, strict=True))
        logits = np.array(self.run("logits", pairs, lambda _, found: found), np.float64)
        if self.task["kind"] == "regress":
            return (logits[:, 0] * self.task["std"] + self.task["mean"]).tolist()
        if self.task["kind"] == "multilabel":
            shares = (1 / (1 + np.exp(-logits))).tolist()
            return [list(zip(self.task["labels"], row, strict=True)) for row in shares]
        shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        return [(self.task["labels"][row.argmax()], float(row.max())) for row in shares]

    def tag(self, sentences):
        """Return the tag of every word of sentences, each a list of words; None where it was cut off."""
        is_read = functools.partial(self.tokenizer.encode, add_special_tokens=False)
        # Of what nothing is left, and what is too long, is [UNK].
        given = [[word if is_read(word).ids else "a" * 101 for word in words] for words in sentences]

        def tags(row, logits):
            pieces = reversed([*zip(row.word_ids, logits.argmax(axis=-1), strict=True)])
            # A word's first piece has the last say.
            return {word: self.task["labels"][best] for word, best in pieces if word is not None}

        found = self.run("logits", given, tags, is_pretokenized=True)
        return [
            [of_words.get(i) for i in range(len(words))] for words, of_words in zip(given, found, strict=True)
        ]


if __name__ == "__main__":
    model, texts = Model(), sys.argv[1:]
    if model.task.get("kind") == "tag":
        answers = model.tag([text.split() for text in texts])
    elif model.task:
        answers = model.classify(*((texts[::2], texts[1::2]) if model.task["reads_pairs"] else (texts,)))
    else:
        answers = model.encode(texts).tolist()
    print("\n".join(map(json.dumps, answers)))
