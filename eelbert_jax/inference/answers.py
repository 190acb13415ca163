"""What `eelbert predict` answers: a record for every query, and the ways to write records."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from eelbert_jax.datasets.tables import Tally
from eelbert_jax.datasets.tasks import KINDS
from eelbert_jax.errors import UserError
from eelbert_jax.inference.predict import Model
from eelbert_jax.inference.queries import Chunks, Item, Query

NO_TAG = ("-", "-")
"""Instead of tag and probability, for a word beyond what the model reads."""

Record = dict[str, Any]


class Question(NamedTuple):
    """Say what a model is asked: words for [MASK], vectors, or else what it was fine-tuned for.

    `stride` 0 cuts long texts; else it is the tokens from one window to the next.
    """

    model: Model
    fill_mask: bool = False
    embed: bool = False
    top: int = 1
    stride: int = 0

    @property
    def reads_pairs(self) -> bool:
        """Whether a query is two texts."""
        task = self.model.task
        return not (self.fill_mask or self.embed or task is None) and task.reads_pairs

    def check(self) -> None:
        """Raise a `UserError` if the model does not answer so."""
        if self.fill_mask:
            self.model.require_masked_lm()
        elif not self.embed:
            self.model.require_task(*KINDS)

    def problem(self, query: Query) -> str | None:
        """Return why the model cannot answer a query, if so."""
        if (query.second is not None) != self.reads_pairs:
            what = "--fill_mask" if self.fill_mask else "--embed" if self.embed else _kind(self.model)
            wanted = (
                "two texts: --text and --second_text, or a tab between them"
                if self.reads_pairs
                else "one text (for a column of a table give --text_column)"
            )
            got = "one" if query.second is None else "two"
            return f"{query.place}: {what} reads {wanted}; got {got}."
        if self.fill_mask:
            try:
                self.model.masked_ids(_text(query))
            except UserError as error:
                return f"{query.place}: {error}"
        return None

    def records(self, queries: Sequence[Query]) -> list[Record]:
        """Return an answer a query."""
        texts = [_text(query) for query in queries]
        if self.fill_mask:
            masks = self.model.fill_mask(texts, top=self.top)
            return [_mask_record(*answer) for answer in zip(texts, masks, strict=True)]
        if self.embed:
            vectors = self.model.encode(texts, stride=self.stride)
            cut = self.model.truncated(texts) & (self.stride == 0)
            return [
                {"text": text, "vector": vector, "truncated": bool(is_cut)}
                for text, vector, is_cut in zip(texts, vectors, cut, strict=True)
            ]
        if self.model.require_task(*KINDS).kind == "tag":
            tagged = self.model.tag([query.first for query in queries], stride=self.stride)
            return [_tag_record([word._asdict() for word in words]) for words in tagged]
        seconds = [query.second or "" for query in queries] if self.reads_pairs else None
        answers = self.model.classify(texts, seconds, stride=self.stride)
        return [{**_texts(query), **answer._asdict()} for query, answer in zip(queries, answers, strict=True)]


def answer_all(question: Question, chunks: Chunks, tally: Tally) -> Iterator[list[Record]]:
    """Yield the records of every chunk; what comes before a bad record is answered before it is said.

    Raises:
      UserError: a bad record that `tally` does not leave out, or no text at all.
    """
    for chunk in chunks:
        good: list[Query] = []
        error = None
        try:
            for item in chunk:
                if (query := _good_query(question, item, tally)) is not None:
                    good.append(query)
        except UserError as raised:
            error = raised
        if good:
            tally.examples += len(good)
            yield question.records(good)
        if error is not None:
            raise error
    if not tally.examples:
        raise UserError(
            "There is no text to answer: give --text=TEXT, --file=FILE or lines on standard input."
        )


def _good_query(question: Question, item: Item, tally: Tally) -> Query | None:
    """Return an item that can be answered, None for one that is left out, or raise."""
    if isinstance(item, UserError):
        raise item
    problem = question.problem(item) if isinstance(item, Query) else item
    if isinstance(item, Query) and problem is None:
        return item
    is_first = not tally.bad_records
    tally.bad_record(str(problem))
    if is_first:
        print(f"Left out, the first of them: {problem}", file=sys.stderr)
    return None


@contextlib.contextmanager
def writer(output: str, *, as_json: bool, top: int) -> Iterator[Callable[[list[Record]], None]]:
    """Open what takes records: a .jsonl, a .tsv with all probabilities, an .npy of vectors, "" for stdout.

    Raises:
      UserError: the suffix is another, or the file cannot be written.
    """
    suffix = Path(output).suffix.lower()
    if output and suffix not in (".jsonl", ".tsv", ".npy"):
        raise UserError(f"--output={output}: expected a name that ends in .jsonl, .tsv or .npy.")
    try:
        opened = Path(output).expanduser().open("wb") if output else contextlib.nullcontext(sys.stdout.buffer)
    except OSError as error:
        raise UserError(f"Cannot write {output}: {error.strerror}; name another --output.") from error
    with opened as file:
        if suffix == ".npy":
            yield lambda records: _append_vectors(file, records)
            return

        def write(records: list[Record]) -> None:
            header = suffix == ".tsv" and not file.tell()
            if suffix == ".tsv":
                lines = [_tsv_line(list(_flat(records[0])))] * header
                lines += [_tsv_line([*_flat(record).values()]) for record in records]
            elif as_json or suffix == ".jsonl" or "vector" in records[0]:
                lines = [_json_line(record) for record in records]
            else:
                lines = [text_of(record, top) for record in records]
            file.write("".join(f"{line}\n" for line in lines).encode())
            file.flush()

        yield write


def text_of(record: Mapping[str, Any], top: int) -> str:
    """Return a record as text: a tab-separated line, a line a mask, or words in columns."""
    if "words" in record:
        lines = ["\t".join([word["word"], *_ranked(word["probabilities"], top)]) for word in record["words"]]
        return "\n".join([*lines, ""])
    if "masks" in record:
        lines = [", ".join(f"{g['token']} {g['probability']:.1%}" for g in mask) for mask in record["masks"]]
        return "\n  ".join([record["text"], *lines])
    if "labels" in record:
        fields = _ranked({label: record["probabilities"][label] for label in record["labels"]}, None)
        fields = [", ".join(fields[::2]), ", ".join(fields[1::2])]
    else:
        fields = [f"{record['score']:.4f}"] if "score" in record else _ranked(record["probabilities"], top)
    return "\t".join([*fields, *(record[name] for name in ("text", "second_text") if name in record)])


def _json_line(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False, default=np.ndarray.tolist)


def _ranked(probabilities: Mapping[str, float], top: int | None) -> Sequence[str]:
    ranked = sorted(probabilities.items(), key=lambda item: -item[1])[:top]
    return [field for name, share in ranked for field in (name, f"{share:.4f}")] or NO_TAG


def _flat(record: Record) -> Record:
    if "words" in record or "masks" in record or "vector" in record:
        raise UserError("--output=FILE.tsv is for labels and numbers of texts; take FILE.jsonl.")
    row = {name: value for name, value in record.items() if name != "probabilities"}
    return row | {f"p({name})": share for name, share in record.get("probabilities", {}).items()}


def _tsv_line(values: Sequence[Any]) -> str:
    texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return "\t".join(" ".join(text.split()) for text in texts)


def _append_vectors(file: BinaryIO, records: list[Record]) -> None:
    """Append rows to an .npy file, and write its header again, so that it is whole after every chunk."""
    if "vector" not in records[0]:
        raise UserError("--output=FILE.npy is for --embed; take FILE.jsonl or FILE.tsv.")
    vectors = np.stack([record["vector"] for record in records])
    file.seek(0)
    header = {"descr": "<f4", "fortran_order": False, "shape": (0, vectors.shape[1])}
    np.lib.format.write_array_header_1_0(file, header)
    start = file.tell()
    end = file.seek(0, 2)
    file.write(vectors.astype("<f4").tobytes())
    rows = (end - start) // (4 * vectors.shape[1]) + len(vectors)
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, {**header, "shape": (rows, vectors.shape[1])})
    file.flush()


def _text(query: Query) -> str:
    return query.first if isinstance(query.first, str) else " ".join(query.first)


def _texts(query: Query) -> Record:
    return {"text": _text(query)} | ({} if query.second is None else {"second_text": query.second})


def _tag_record(words: list[Record]) -> Record:
    return {"words": words, "truncated": any(word["tag"] is None for word in words)}


def _mask_record(text: str, masks: Sequence[Sequence[tuple[str, float]]]) -> Record:
    named = [[{"token": token, "probability": share} for token, share in guesses] for guesses in masks]
    return {"text": text, "masks": named}


def _kind(model: Model) -> str:
    task = model.require_task(*KINDS)
    return "a model that tags words" if task.kind == "tag" else f"a model for {task.name}"
