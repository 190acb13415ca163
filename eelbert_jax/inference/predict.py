"""A model that answers: vectors, classes, tags, words for [MASK]; compiled once for each length of rows."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from eelbert_jax.datasets.encoding import Encoded, encode_texts, encode_words, encoded_rows
from eelbert_jax.datasets.tasks import TaskRecord
from eelbert_jax.errors import UserError, warn_once
from eelbert_jax.inference.compiled import BATCH_SIZE, best_tokens, head_outputs, outputs, vectors
from eelbert_jax.inference.labels import (
    Guesses,
    Label,
    Labels,
    Score,
    Tag,
    decisions,
    label_of,
    labels_of,
    probabilities,
    tag_of,
)
from eelbert_jax.inference.windows import (
    WordWindow,
    mean_of_windows,
    text_windows,
    word_windows,
)
from eelbert_jax.model import bert
from eelbert_jax.model.backbone import BertModel
from eelbert_jax.model.config import BertConfig
from eelbert_jax.vocabulary import Vocabulary

MASKED_BATCH_SIZE = 8
"""Rows a batch of masked texts: each mask has a probability for every token of the vocabulary."""
POOLINGS = ("mean", "cls")


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """Answer with a pre-trained, fine-tuned or imported model.

    Attributes:
      params: "bert", and the heads that it has: "cls" (masked LM), "classifier", "projection" (sentences).
      step: completed updates; None of an imported model.
      trained_length: tokens of the rows that it was pre-trained on; None where no record says.
    """

    path: Path
    config: BertConfig
    vocabulary: Vocabulary
    params: Any
    constants: Any
    lowercase: bool
    step: int | None
    task: TaskRecord | None
    trained_length: int | None = None

    def with_params(self, params: Any) -> "Model":
        """Return the same with other weights, a wide hash projected by theirs."""
        constants = jax.device_put(bert.constants(self.config, self.vocabulary, params))
        return dataclasses.replace(self, params=params, constants=constants)

    @property
    def is_imported(self) -> bool:
        """Whether it is of a folder in the Hugging Face layout."""
        return self.step is None

    @property
    def encoder_variables(self) -> dict[str, Any]:
        """What `BertModel` is applied with; a trained table has no constants."""
        return {"params": self.params["bert"], "constants": self.constants.get("bert", {})}

    @property
    def vector_size(self) -> int:
        """Width of what `encode` gives."""
        return self.config.sentence_size or self.config.hidden_size

    @property
    def num_encoder_parameters(self) -> int:
        """Numbers that a vector takes: those of the encoder, and of the projection if it has one."""
        return sum(leaf.size for leaf in jax.tree.leaves(self._encoder_params()))

    @property
    def fingerprint(self) -> str:
        """Identify the weights of the encoder and of its projection, if any: 16 hex digits."""
        digest = hashlib.sha256()
        for path, leaf in jax.tree_util.tree_leaves_with_path(self._encoder_params()):
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.asarray(leaf).tobytes())
        return digest.hexdigest()[:16]

    @property
    def max_length(self) -> int:
        """Tokens that it reads at most, [CLS] and [SEP] among them."""
        return self.config.num_positions if self.task is None else self.task.max_length

    def require_pretrained(self) -> None:
        """Raise a `UserError` if it is fine-tuned."""
        if self.task is not None and not self.is_imported:
            raise UserError(
                f"{self.path} holds a model fine-tuned on {self.task.name}; a pre-trained one is needed "
                "here: name the workdir of `eelbert pretrain`."
            )

    def require_masked_lm(self) -> None:
        """Raise a `UserError` if it has no head to predict tokens with."""
        if "cls" not in self.params:
            self.require_pretrained()
            raise UserError(
                f"{self.path} holds no head to predict tokens with; name a model that was saved as "
                "BertForMaskedLM."
            )

    def require_task(self, *kinds: str) -> TaskRecord:
        """Return its task; raise a `UserError` if it has none of these kinds."""
        if self.task is None:
            raise UserError(
                f"{self.path} holds no fine-tuned model: run `eelbert finetune --config.pretrained="
                f"{self.path}` and name its workdir."
            )
        if self.task.kind not in kinds:
            method = "tag" if self.task.kind == "tag" else "classify"
            raise UserError(f"{self.path} is fine-tuned on {self.task.name}: ask it with {method}().")
        return self.task

    def encode(self, texts: Iterable[str], *, pooling: str | None = None, stride: int = 0) -> np.ndarray:
        """Return a vector a text, float32 [n, D], of texts of any length.

        Args:
          pooling: as for `vectors`.
          stride: 0 cuts a text to `max_length` tokens; else the mean of windows, one every so many tokens.

        Raises:
          UserError: `texts` is a string or `stride` leaves tokens out.
        """
        texts = _texts(texts, "encode")
        encoded, text_ids = self._encode(texts, None, stride)
        return mean_of_windows(self.vectors(encoded, pooling), text_ids, len(texts))

    def vectors(
        self, encoded: Encoded, pooling: str | None = None, batch_size: int = BATCH_SIZE
    ) -> np.ndarray:
        """Return a vector a row, float32 [n, D].

        `pooling` is "mean" of the tokens' last hidden states or "cls", that of the first token; None is the
        model's own: a sentence encoder's projected mean, else the mean.
        """
        check_pooling(pooling)
        width, step = (
            self.config.hidden_size,
            functools.partial(
                vectors,
                BertModel(self.config, with_pooler=False),
                pooling or "mean",
                self.encoder_variables,
            ),
        )
        if pooling is None and self.config.sentence_size is not None:
            width, step = (
                self.config.sentence_size,
                functools.partial(head_outputs, bert.BertForSentenceEmbedding(self.config), self._variables),
            )
        found = np.zeros((len(encoded), width), np.float32)
        for rows, output in outputs(step, encoded, batch_size):
            found[rows] = output
        return found

    def classify(
        self, texts: Iterable[str], second_texts: Iterable[str] | None = None, *, stride: int = 0
    ) -> Sequence[Label | Labels | Score]:
        """Return the class, the labels or the number of every text, or pair with its second text.

        `stride` as for `encode`, but not for pairs; probabilities and numbers are means over the windows.

        Raises:
          UserError: the model does not read such texts, `texts` is a string, or `stride` leaves tokens out.
        """
        task = self.require_task("classify", "multilabel", "regress")
        first = _texts(texts, "classify")
        second = None if second_texts is None else _texts(second_texts, "classify")
        takes_pairs = second is not None if self.is_imported else task.reads_pairs  # a folder does not say
        if (second is not None) != takes_pairs or (second is not None and len(first) != len(second)):
            wanted = "as many second texts as texts" if takes_pairs else "one list of texts"
            got = f" and {len(second)}" if second is not None else ""
            raise UserError(f"A model for {task.name} reads {wanted}; got {len(first)}{got}.")
        encoded, text_ids = self._encode(first, second, stride)
        logits = self.logits(encoded)
        truncated = np.zeros(len(first), np.bool_)
        truncated[text_ids] = encoded.truncated
        if task.kind == "regress":
            numbers = mean_of_windows(logits * task.std + task.mean, text_ids, len(first))[:, 0]
            return [Score(*answer) for answer in zip(numbers.tolist(), truncated.tolist(), strict=True)]
        shares_of = decisions if task.kind == "multilabel" else probabilities
        answer = labels_of if task.kind == "multilabel" else label_of
        shares = mean_of_windows(shares_of(logits), text_ids, len(first)).tolist()
        return [
            answer(dict(zip(task.labels, row, strict=True)), cut)
            for row, cut in zip(shares, truncated.tolist(), strict=True)
        ]

    def logits(self, encoded: Encoded) -> np.ndarray:
        """Return what the head says of a row a text, or a pair, float32 [n, C]."""
        logits = np.zeros((len(encoded), self.config.num_labels), np.float32)
        for rows, output in self._logits(encoded):
            logits[rows] = output
        return logits

    def tag(self, sentences: Iterable[str | Sequence[str]], *, stride: int = 0) -> list[list[Tag]]:
        """Return the tag of every word of every sentence: its words, or a text with white space between them.

        `stride` as for `encode`; with 0 the words beyond `max_length` tokens have no tag.

        Raises:
          UserError: the model tags no words, `sentences` is a string, or `stride` leaves tokens out.
        """
        task = self.require_task("tag")
        if isinstance(sentences, str):
            raise _no_list("tag", sentences)
        words = [each.split() if isinstance(each, str) else _texts(each, "tag") for each in sentences]
        if stride:
            windows = list(word_windows(words, self.vocabulary, self.lowercase, self.max_length, stride))
        else:
            windows = [WordWindow(i, 0, sentence) for i, sentence in enumerate(words) if sentence]
        encoded = self._watched(
            encode_words(
                [window.words for window in windows], self.vocabulary, self.max_length, self.lowercase
            )
        )
        sums = [np.zeros((len(sentence), len(task.labels))) for sentence in words]
        for rows, output in self._logits(encoded):
            for i, logits in zip(rows, output, strict=True):
                shares, window = probabilities(logits[encoded.word_starts[i]]), windows[i]
                sums[window.sentence][window.start : window.start + len(shares)] += shares
        return [
            [tag_of(*answer, task.labels) for answer in zip(sentence, rows, strict=True)]
            for sentence, rows in zip(words, sums, strict=True)
        ]

    def truncated(self, texts: Iterable[str]) -> np.ndarray:
        """Return whether each text has more tokens than the model reads, bool [n]."""
        return self._encode(_texts(texts, "truncated"), None, 0)[0].truncated

    def fill_mask(self, texts: Iterable[str], *, top: int = 5) -> list[list[Guesses]]:
        """Return for each text, for each of its [MASK], the `top` most probable tokens.

        Raises:
          UserError: the model has no head for it, `top` is not in 1..V, `texts` is a string, or a text has no
            [MASK] or more tokens than the model reads.
        """
        self.require_masked_lm()
        if not 1 <= top <= self.vocabulary.size:
            raise UserError(f"Asked for {top} tokens a mask; take 1 to {self.vocabulary.size}.")
        texts = _texts(texts, "fill_mask")
        ids = [self.masked_ids(text) for text in texts]
        encoded = self._watched(encoded_rows(ids, self.max_length, self.vocabulary.pad_id))
        step = functools.partial(best_tokens, bert.BertForMaskedLM(self.config), top, self._variables)
        found: list[list[Guesses]] = [[] for _ in texts]
        for rows, (shares, tokens) in outputs(
            lambda ids, mask, _: step(ids, mask, self._mask_positions(ids)), encoded, MASKED_BATCH_SIZE
        ):
            for i, *guesses in zip(rows, tokens, shares, strict=True):
                num_masks = np.count_nonzero(encoded.ids[i] == self.vocabulary.mask_id)
                found[i] = [self._named(*guess) for guess in zip(*guesses, strict=True)][:num_masks]
        return found

    def masked_ids(self, text: str) -> np.ndarray:
        """Return the ids of a text, int32 [l]; raise a `UserError` without [MASK] or if it is too long."""
        pieces = self._masking_tokenizer.encode(text).ids
        masks = pieces.count(self.vocabulary.mask_id)
        row, _ = self.vocabulary.row(pieces)
        if not masks or len(row) > self.max_length:
            shown = text if len(text) <= 60 else f"{text[:57]}..."
            raise UserError(
                f"{shown!r} must have a {self.vocabulary.mask_token} and at most {self.max_length} tokens; "
                f"it has {masks} and {len(row)}."
            )
        return row

    @functools.cached_property
    def _masking_tokenizer(self) -> Any:
        return self.vocabulary.tokenizer(self.lowercase, special_tokens=True)

    @property
    def _variables(self) -> dict[str, Any]:
        return {"params": self.params, "constants": self.constants}

    def _encoder_params(self) -> dict[str, Any]:
        return {name: self.params[name] for name in ("bert", "projection") if name in self.params}

    def _encode(self, first: list[str], second: list[str] | None, stride: int) -> tuple[Encoded, np.ndarray]:
        if not stride:
            encoded = encode_texts(first, second, self.vocabulary, self.max_length, self.lowercase)
            return self._watched(encoded), np.arange(len(first), dtype=np.int32)
        if second is not None:
            raise UserError(
                f"stride={stride} is for single texts; pairs are cut to {self.max_length} tokens."
            )
        windows, text_ids = text_windows(first, self.vocabulary, self.lowercase, self.max_length, stride)
        return self._watched(windows), text_ids

    def _watched(self, encoded: Encoded) -> Encoded:
        """Return the rows; warn, once a model, where they reach positions that pre-training never saw."""
        trained = self.trained_length
        if trained is not None and encoded.lengths.max(initial=0) > trained:
            warn_once(
                f"{self.path} was pre-trained on rows of {trained} tokens, and some texts are longer: answers"
                " to them rest on positions that it has hardly or never seen."
            )
        return encoded

    def _logits(self, encoded: Encoded) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        assert self.task is not None
        model = model_class(self.task)(self.config)
        return outputs(functools.partial(head_outputs, model, self._variables), encoded)

    def _mask_positions(self, input_ids: np.ndarray) -> np.ndarray:
        """Return where masks stand, int32 [B, P]; P is a power of two, so that few programs are compiled."""
        masked = [np.flatnonzero(row == self.vocabulary.mask_id) for row in input_ids]
        width = 1 << (max(map(len, masked)) - 1).bit_length()
        return np.stack([np.resize(row, width) for row in masked]).astype(np.int32)

    def _named(self, tokens: np.ndarray, shares: np.ndarray) -> Guesses:
        return [
            (self.vocabulary.spelling(i), share) for i, share in zip(tokens, shares.tolist(), strict=True)
        ]


def check_pooling(pooling: str | None) -> None:
    """Refuse what `Model.vectors` knows no way for."""
    if pooling not in (None, *POOLINGS):
        raise UserError(f"pooling={pooling!r} is not one of {', '.join(POOLINGS)}.")


def model_class(task: TaskRecord) -> type[nn.Module]:
    """Return the module of a fine-tuned model."""
    return bert.classifier(task.kind, task.pair_encoder)


def _texts(texts: Iterable[str], method: str) -> list[str]:
    """Return texts as a list; a string is an iterable of strings too, and refused."""
    if isinstance(texts, str):
        raise _no_list(method, texts)
    found = list(texts)
    for place, text in enumerate(found):
        if not isinstance(text, str):
            raise UserError(f"{method}() takes strings; number {place} is {text!r}.")
    return found


def _no_list(method: str, text: str) -> UserError:
    return UserError(
        f"{method}() takes a list of texts, got the string {text[:40]!r}: write {method}([text])."
    )
