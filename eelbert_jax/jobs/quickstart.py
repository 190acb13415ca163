"""`eelbert quickstart`: from nothing to a trained UNO that answers, in five minutes on two cores."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import ml_collections
import numpy as np

from eelbert_jax import cli
from eelbert_jax.corpus.rows import Rows, unigram_entropy
from eelbert_jax.datasets.vectors import unit
from eelbert_jax.hashing.statistics import nearest_neighbours
from eelbert_jax.inference.load import load
from eelbert_jax.jobs.prepare import prepare_rows, summary
from eelbert_jax.jobs.pretrain import pretrain
from eelbert_jax.model.config import sized
from eelbert_jax.model.count import count_parameters
from eelbert_jax.training.writer import duration, read_metrics
from eelbert_jax.vocabulary import CONTINUATION_PREFIX
from eelbert_jax.workdir import MANIFEST_NAME, METRICS_NAME, claim

MEGABYTE = 10**6
BERT_BASE_UNCASED_SIZE = 30522


class Outcome(NamedTuple):
    """Hold held-out losses before and after training, and the entropy to beat, in nats a target."""

    loss_before: float
    loss_after: float
    unigram_entropy: float


def quickstart(config: ml_collections.ConfigDict, workdir: str | Path) -> Outcome:
    """Prepare, pre-train, question; resume what an interrupted run left."""
    started = time.monotonic()
    rows_dir, model_dir = Path(workdir) / "rows", Path(workdir) / "model"
    claim(Path(workdir), "quickstart")
    cli.write_config(config, workdir)

    _heading("Preparing the documentation installed on this machine")
    if (rows_dir / MANIFEST_NAME).exists():
        # What is installed may have changed since, and with it the corpus; the rows stay what they are.
        print(f"Taking the rows that are finished in {rows_dir}.")
    else:
        print(summary(prepare_rows(config.prepare, rows_dir, sys.stdout)))
    held_out = Rows.open(rows_dir, "heldout")
    entropy = unigram_entropy(held_out[np.arange(len(held_out))], held_out.vocabulary.special_ids)

    _heading("Pre-training a UNO-EELBERT on it")
    config = ml_collections.ConfigDict(config)
    config.pretrain.data.rows = str(rows_dir)
    figures = pretrain(config.pretrain, model_dir)
    records = read_metrics(model_dir / METRICS_NAME)
    outcome = Outcome(_first(records, "heldout_loss"), figures["heldout_loss"], entropy)
    trained = load(model_dir)

    _heading("Nearest tokens by the hash alone, before any training")
    words = [token for token in trained.vocabulary.tokens if not token.startswith(CONTINUATION_PREFIX)]
    neighbours = nearest_neighbours(
        config.neighbours_of, trained.config.hash, words, trained.config.hidden_size, config.num_neighbours
    )
    for word, near in neighbours.items():
        print(f'  "{word}": ' + ", ".join(f"{token} {cosine:.2f}" for token, cosine in near))

    _heading("Guesses for masked words")
    guessed = trained.fill_mask(config.sentences, top=config.num_guesses)
    for sentence, masks in zip(config.sentences, guessed, strict=True):
        print(f"  {sentence}")
        for guesses in masks:
            print("    " + ", ".join(f"{token} {share:.0%}" for token, share in guesses))

    _heading("Result")
    plot_losses(records, entropy, Path(workdir) / "loss.png")
    print("\n".join([*size_lines(trained.vocabulary.size), *loss_lines(outcome)]))
    print(f"  loss curve       {Path(workdir) / 'loss.png'}")
    print(f"  time             {duration(time.monotonic() - started)}")

    _heading("Likeness of sentences by pocket, which was trained for longer and comes with the package")
    print("\n".join(likeness_lines(config.compared)))
    print('  Search a folder of text by meaning: eelbert search --in=DIR "QUERY"')
    return outcome


def likeness_lines(sentences: Sequence[str]) -> list[str]:
    """Return the cosine of the first sentence with each of the others in the released encoder, as text."""
    vectors = unit(load("pocket").encode(sentences))
    likeness = vectors[1:] @ vectors[0]
    others = zip(likeness, sentences[1:], strict=True)
    return [f"  {sentences[0]}", *(f"    {cosine:.2f}  {said}" for cosine, said in others)]


def size_lines(vocab_size: int) -> list[str]:
    """Return parameters and bytes of UNO and BERT-tiny, with this vocabulary and with BERT's, as text."""
    lines = [f"  {'parameters (EELBERT counts: without decoder)':<46}{'UNO-EELBERT':>20}{'BERT-tiny':>22}"]
    for size in sorted({vocab_size, BERT_BASE_UNCASED_SIZE}):
        uno = count_parameters(sized("uno", vocab_size=size))["MLM"]
        tiny = count_parameters(sized("tiny", vocab_size=size, embedding="table"))["MLM"]
        cells = "".join(
            f"{number:>{width},} {number * 4 / MEGABYTE:5.2f} MB" for number, width in ((uno, 11), (tiny, 13))
        )
        lines.append(f"  {f'with a vocabulary of {size:,}':<46}{cells}")
    return lines


def loss_lines(outcome: Outcome) -> list[str]:
    """Return the losses before and after beside what they have to beat, as text."""
    gain = outcome.unigram_entropy - outcome.loss_after
    verdict = f"{gain:.3f} below the entropy" if gain > 0 else "NOT below the entropy: train longer"
    return [
        f"  unigram entropy  {outcome.unigram_entropy:.3f} nats a token, held-out: to beat by using context",
        f"  loss before      {outcome.loss_before:.3f}",
        f"  loss after       {outcome.loss_after:.3f}, {verdict}",
    ]


def plot_losses(records: Sequence[dict[str, float]], entropy: float, path: Path) -> None:
    """Draw the training and the held-out loss over steps, and the unigram entropy as a line."""
    from matplotlib.figure import Figure  # late: takes a second and nothing else here needs it

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, label, style in (("train_loss", "training", "-"), ("heldout_loss", "held out", "o-")):
        points = [(record["step"], record[name]) for record in records if name in record]
        axes.plot(*zip(*points, strict=True), style, label=label)
    axes.axhline(entropy, color="black", linestyle="--", label="unigram entropy")
    axes.set_xlabel("step")
    axes.set_ylabel("masked-LM loss (nats a token)")
    axes.legend()
    figure.savefig(path, dpi=120)


def main(argv: list[str]) -> None:
    """Run the job from the command line."""
    config, workdir, _ = cli.parse("quickstart", argv)
    quickstart(config, workdir)


def _first(records: Sequence[dict[str, float]], name: str) -> float:
    return next(record[name] for record in records if name in record)


def _heading(text: str) -> None:
    print(f"\n{text}", flush=True)
