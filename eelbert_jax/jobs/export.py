"""`eelbert export`: a trained model in, files that answer elsewhere out, each run there before it counts."""

import contextlib
import dataclasses
import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eelbert_jax import cli
from eelbert_jax.compress.quantize import WEIGHTS
from eelbert_jax.compress.vector_size import shorten_vectors
from eelbert_jax.datasets import metrics
from eelbert_jax.datasets.conll import TokenExamples, TokenTask
from eelbert_jax.datasets.encoding import Encoded, encode_texts, encode_words
from eelbert_jax.datasets.splits import find_glue_dir, read_splits
from eelbert_jax.datasets.tasks import CLASSIFY, GLUE_TASKS, REGRESS, TAG, Task
from eelbert_jax.errors import UserError, unknown
from eelbert_jax.export.packed_folder import write_packed_folder
from eelbert_jax.export.page import PAGE_NAME, check_page, model_page, runtime_page
from eelbert_jax.export.sentences import SENTENCES
from eelbert_jax.export.transformers_folder import write_transformers_folder
from eelbert_jax.inference.load import load
from eelbert_jax.inference.predict import Model
from eelbert_jax.objectives.classify import decide
from eelbert_jax.reporting.card import model_card
from eelbert_jax.workdir import (
    CARD_NAME,
    CHECKSUMS_NAME,
    CONFIG_NAME,
    ONNX_NAME,
    RESULT_NAME,
    locked,
    read_json,
    write_json,
    write_whole,
)

TARGETS = ("onnx", "hf", "hf_compact", "int8", "stablehlo", "web")
"""Each a folder of its own in the workdir."""
QUANTIZED = "model_quantized.onnx"
"""The graph that the page in an ONNX folder runs."""
MOST_ROWS = 1000
"""Rows of a development set that an export is tried on."""


def export(
    source: str | Path,
    workdir: str | Path,
    targets: Sequence[str],
    inputs: Sequence[str] = (),
    vector_size: int = 0,
    weights: Sequence[str] = WEIGHTS,
) -> None:
    """Write a model as each of `targets`, check it, and say what is there; one that fails costs no other.

    `inputs` of the ONNX graphs are some of `encoder.INPUTS`; (): ids, and of hashed embeddings vectors too.
    `vector_size` is that of a sentence encoder's vectors; 0: as trained.
    `weights` are how those are kept, "float32" among them.

    Raises:
      UserError: a target is unknown, does not fit the model or answers otherwise than it; the rest is there.
    """
    for what, words, known in (("target of --to", targets, TARGETS), ("kind of --weights", weights, WEIGHTS)):
        for word in words:
            if word not in known:
                raise unknown(what, word, known)
    if "float32" not in weights:
        raise UserError("--weights has no float32, which model.py answers with: add it.")
    model, source, folder = load(source), Path(source).expanduser(), Path(workdir).expanduser()
    if vector_size:
        config, params = shorten_vectors(model.config, model.params, vector_size)
        model = dataclasses.replace(model, config=config, params=params)
    wrong: list[str] = []
    with locked(folder):
        for target in targets:
            place, coarse = folder / target, list[str]()
            try:
                if place.exists():
                    raise UserError(f"{place} is there already: take another --workdir, or remove it.")
                with _whole_or_not(place):
                    if target == "onnx":
                        notes, coarse = _write_onnx(place, model, source, inputs, weights)
                    else:
                        notes = _WRITERS[target](place, model, source)
                    _finish(place, model_card(source, model.step, model.config, model.task, notes))
            except UserError as error:
                wrong.append(f"{target}: {error}")
            else:
                wrong += coarse
                print("\n".join([f"{place}:", *(f"  {note}" for note in notes)]))
    if wrong:
        raise UserError("\n".join(wrong))


def _finish(place: Path, card: str) -> None:
    """Write the card and the checksums of a whole folder."""
    write_whole(place / CARD_NAME, card)
    files = sorted(path for path in place.rglob("*") if path.is_file())
    write_json(place / CHECKSUMS_NAME, {str(path.relative_to(place)): _digest(path) for path in files})


@contextlib.contextmanager
def _whole_or_not(folder: Path) -> Iterator[None]:
    """Make a folder, and remove it where the block fails."""
    folder.mkdir()
    try:
        yield
    except BaseException:
        shutil.rmtree(folder)
        raise


def _write_onnx(
    folder: Path, model: Model, source: Path, inputs: Sequence[str], weights: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return notes on what is there, and what was too coarse to be."""
    try:
        from eelbert_jax.export.encoder import check_inputs
        from eelbert_jax.export.onnx_folder import write_onnx_folder
    except ModuleNotFoundError as error:
        raise _needs("onnx", error) from error
    inputs = inputs or (("ids",) if model.config.has_trained_table else ("ids", "vectors"))
    for name in inputs:
        check_inputs(model.config, name)  # again for each graph; here before the reading
    trial = _trial(model, source)
    encoded = _encoded(model, trial)
    lines, coarse = [f"checked in onnxruntime on {trial.what}"], []
    for record in write_onnx_folder(folder, model, inputs, encoded, weights):
        found = record.difference
        answers = f", {found.changed} of {found.answers} answers changed" if found.answers else ""
        if record.is_right:
            size = f"{record.num_bytes / 1e6:.3f} MB"
            score = "" if found.logits is None else trial.score(found.logits)
            lines.append(f"{record.file}: {size}, outputs within {found.largest:.1e}{answers}{score}")
        else:
            others = ",".join(name for name in weights if name != record.weights)
            coarse.append(
                f"{folder / record.file} was removed: {record.weights} weights are too coarse for this "
                f"model, whose {found.output} they change by {found.largest:.1e}, more than "
                f"{found.limit(record.weights):g}{answers}, on {trial.what}. The other files are right and "
                f"stay; --weights={others} leaves it out."
            )
    if (folder / ONNX_NAME / QUANTIZED).exists():
        write_whole(folder / PAGE_NAME, runtime_page(source.name))
    return lines, coarse


def _write_int8(folder: Path, model: Model, source: Path) -> list[str]:
    trial = _trial(model, source)
    return [f"{write_packed_folder(folder, model, _encoded(model, trial))}, on {trial.what}"]


def _write_hf(folder: Path, model: Model, _: Path) -> list[str]:
    return write_transformers_folder(folder, model, compact=False)


def _write_hf_compact(folder: Path, model: Model, _: Path) -> list[str]:
    return write_transformers_folder(folder, model, compact=True)


def _write_stablehlo(folder: Path, model: Model, source: Path) -> list[str]:
    from eelbert_jax.export.stablehlo import write_stablehlo_folder

    trial = _trial(model, source)
    try:
        return [f"checked on {trial.what}", *write_stablehlo_folder(folder, model, _encoded(model, trial))]
    except ModuleNotFoundError as error:  # of what writes the files
        raise _needs("stablehlo", error) from error


def _needs(target: str, error: ModuleNotFoundError) -> UserError:
    return UserError(f"--to={target} needs the package {error.name}: pip install 'eelbert_jax[export]'.")


def _write_web(folder: Path, model: Model, source: Path) -> list[str]:
    page = model_page(model, source.name)
    trial = _trial(model, source)
    write_whole(folder / PAGE_NAME, page)
    answers = check_page(page, model, trial.first, trial.second)
    check = "not run here: install Node.js, which would"
    if answers is not None:
        check = f"{answers}, in Node on {trial.what}"
    return [f"{PAGE_NAME}: {len(page.encode()) / 1e6:.3f} MB with int8 weights and the vocabulary, {check}"]


_WRITERS: dict[str, Callable[[Path, Model, Path], list[str]]] = {
    "hf": _write_hf,
    "hf_compact": _write_hf_compact,
    "int8": _write_int8,
    "stablehlo": _write_stablehlo,
    "web": _write_web,
}
"""Of targets but ONNX: what writes a folder of a model from a source, and returns notes on what is there."""


class Trial(NamedTuple):
    """Hold what an export is tried on.

    Attributes:
      first: texts, or the words of sentences.
      second: the other texts of pairs.
      what: how many of what they are.
      score: gives words on how good logits [n, C] are; "" where that is not known.
    """

    first: Any
    second: Any
    what: str
    score: Callable[[np.ndarray], str] = lambda _: ""


def _trial(model: Model, source: Path) -> Trial:
    """Return what an export is tried on: the run's development set where it is at hand."""
    task = model.task
    found = _development_set(source) if task is not None and (source / RESULT_NAME).is_file() else None
    if found is not None:
        of_run, split, examples = found
        first = (examples.words if isinstance(examples, TokenExamples) else examples.first)[:MOST_ROWS]
        cut = f"the first {len(first)} of " * (len(examples) > len(first))
        what = f"{cut}{len(examples)} examples of {of_run.name} {split}"
        if isinstance(examples, TokenExamples):
            return Trial(first, None, what)
        labels = examples.labels[:MOST_ROWS]
        second = examples.second and examples.second[:MOST_ROWS]

        def score(logits: np.ndarray) -> str:
            if task is None or task.kind not in (CLASSIFY, REGRESS):
                return ""
            scores = metrics.scores(of_run.metrics[:1], decide(logits, task), labels)
            return "".join(f", {name} {value:.4f}" for name, value in scores.items())

        return Trial(first, second, what, score)
    if task is not None and task.kind == TAG:
        words = tuple(tuple(text.split()) for text in SENTENCES if text.split())
        return Trial(words, None, f"{len(words)} sentences")
    if task is not None and task.reads_pairs:
        return Trial(SENTENCES[::2], SENTENCES[1::2], f"{len(SENTENCES) // 2} pairs of sentences")
    return Trial(SENTENCES, None, f"{len(SENTENCES)} sentences")


def _encoded(model: Model, trial: Trial) -> Encoded:
    if model.task is not None and model.task.kind == TAG:
        return encode_words(trial.first, model.vocabulary, model.max_length, model.lowercase)
    return encode_texts(trial.first, trial.second, model.vocabulary, model.max_length, model.lowercase)


def _development_set(source: Path) -> tuple[Task | TokenTask, str, Any] | None:
    """Return a run's task, the name of its development set and the examples; None: they are not at hand."""
    settings = read_json(source / CONFIG_NAME)
    if settings["task"] in GLUE_TASKS and find_glue_dir(settings["data"]["glue_dir"]) is None:
        return None
    try:
        task, splits = read_splits(settings)
    except UserError as error:
        print(f"The development set of {source} is not at hand: {error}")
        return None
    split = next(split for split in splits if split != "train")
    return task, split, splits[split]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(argv: list[str]) -> None:
    """Run the job from the command line."""
    _, workdir, flags = cli.parse("export", argv)
    if not flags["from"]:
        raise UserError("export needs a model: add --from=DIR, the workdir of a run.")
    inputs = [name for name in flags["inputs"].split(",") if name]
    weights = flags["weights"].split(",")
    export(flags["from"], workdir, flags["to"].split(","), inputs, flags["vector_size"], weights)
