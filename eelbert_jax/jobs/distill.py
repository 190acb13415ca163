"""`eelbert distill`: a teacher's vectors, or a teacher and rows of text, in; a small encoder out."""

import dataclasses
from pathlib import Path

import jax
import ml_collections

from eelbert_jax import cli, store
from eelbert_jax.datasets.encoding import check_max_length
from eelbert_jax.datasets.vectors import Vectors
from eelbert_jax.errors import UserError
from eelbert_jax.inference.load import load
from eelbert_jax.inference.predict import Model
from eelbert_jax.jobs.fitting import check, encoder_start, make_fit_config
from eelbert_jax.jobs.pretrain import pretrain
from eelbert_jax.model.config import bert_config, identity
from eelbert_jax.objectives.distil import DistilEmbedding, EmbeddingTerms
from eelbert_jax.objectives.distil_layers import DistilLayers, Teacher, Terms
from eelbert_jax.objectives.masked_lm import MaskedLM
from eelbert_jax.training import distributed
from eelbert_jax.training.fit import environment, fit, run_in
from eelbert_jax.training.sharding import Layout
from eelbert_jax.vocabulary import check_same, check_unknown, load_vocabulary, unknown_among
from eelbert_jax.workdir import FIGURES_NAME, write_json


def distill(config: ml_collections.ConfigDict, workdir: str | Path) -> dict[str, float]:
    """Train as `config` says, resuming what the workdir holds; return the figures of the last evaluation.

    Raises:
      UserError: the teacher, the text or the config do not fit; else as `fit`.
    """
    if "teacher" in config:
        return pretrain(config, workdir, lambda masked_lm: with_teacher(masked_lm, config), "distill")
    return _distill_vectors(config, workdir)


def with_teacher(masked_lm: MaskedLM, config: ml_collections.ConfigDict) -> DistilLayers:
    """Return the objective that learns from the teacher of a config too.

    Raises:
      UserError: there is none, or it reads text otherwise than the rows, or does not fit the student.
    """
    options = config.teacher.to_dict()
    path, dtype = options.pop("model"), options.pop("dtype")
    if path is None:
        raise UserError(
            "No teacher to learn from: set --config.teacher.model=DIR, a run's workdir or a Hugging Face "
            "folder."
        )
    teacher, rows = load(path), masked_lm.train_rows
    assert rows is not None
    check_same(rows.vocabulary, teacher.vocabulary, f"the rows in {config.data.rows}", path)
    if teacher.lowercase != rows.lowercase:
        raise UserError(
            f"The teacher in {path} has lowercase={teacher.lowercase}, the rows {rows.lowercase}."
        )
    fields = {field.name: getattr(masked_lm, field.name) for field in dataclasses.fields(masked_lm)}
    teacher_config = dataclasses.replace(teacher.config, dtype=dtype)
    return DistilLayers(
        **fields,
        teacher=Teacher(path, teacher_config, teacher.params, teacher.constants),
        terms=Terms(**options),
    )


def _distill_vectors(config: ml_collections.ConfigDict, workdir: str | Path) -> dict[str, float]:
    workdir = store.folder(workdir)
    with run_in(workdir, "distill", config.watchdog_seconds) as supervision:
        layout, _ = check(config), _terms(config)
        pretrained = None if config.pretrained is None else load(config.pretrained, encoder_only=True)
        vectors = _open_vectors(config)
        objective = make_objective(config, layout, vectors, pretrained)
        figures = fit(
            objective,
            make_fit_config(config, objective),
            objective.layout,
            workdir,
            start=encoder_start(config, objective, pretrained),
            identity=identity(objective.config, vectors.vocabulary, vectors.identity["lowercase"]),
            record={
                **config.to_dict(),
                "vectors": vectors.identity,
                "run": {**environment(), "row_length": config.max_length},
            },
            vocabulary=vectors.vocabulary,
            supervision=supervision,
        ).figures
        if jax.process_index() == 0:
            write_json(workdir / FIGURES_NAME, figures)
        return figures


def _open_vectors(config: ml_collections.ConfigDict) -> Vectors:
    if config.data.vectors is None:
        raise UserError(
            "No vectors to learn: set --config.data.vectors=DIR to a folder made by `eelbert embed`."
        )
    own_vocabulary = None if config.vocabulary is None else load_vocabulary(config.vocabulary)
    vectors = Vectors.open(config.data.vectors)
    if own_vocabulary is None:
        return vectors
    vectors = vectors.in_vocabulary(own_vocabulary)
    found = unknown_among(vectors.ids, vectors.vocabulary)
    check_unknown(*found, config.max_unknown_percent, lowercase=True)  # the case is the teacher's, no choice
    return vectors


def _terms(config: ml_collections.ConfigDict) -> EmbeddingTerms:
    """Return what is learned of vectors; refuse that, and the noise, out of its range."""
    if not 0.0 <= config.noise_percent <= 100.0:
        raise UserError(f"--config.noise_percent must lie in [0, 100], got {config.noise_percent}.")
    return EmbeddingTerms(**config.loss.to_dict())


def make_objective(
    config: ml_collections.ConfigDict, layout: Layout, vectors: Vectors, pretrained: Model | None
) -> DistilEmbedding:
    """Return what to learn, with the sizes of the model to start from, if any."""
    vocabulary = vectors.vocabulary
    model_config = bert_config(config.model, vocabulary.size)
    if pretrained is not None:
        check_same(vocabulary, pretrained.vocabulary, "the vectors", str(config.pretrained))
        model_config = dataclasses.replace(pretrained.config, dtype=model_config.dtype)
    check_max_length(config.max_length, model_config.num_positions)
    train, heldout = vectors.splits(
        config.max_length, config.heldout_every, config.noise_percent, config.seed
    )
    return DistilEmbedding(
        dataclasses.replace(model_config, sentence_size=vectors.values.shape[1]),
        vocabulary,
        layout,
        train,
        batch_size=config.batch_size,
        seed=config.seed,
        heldout=heldout,
        terms=_terms(config),
    )


def main(argv: list[str]) -> None:
    """Run the job from the command line."""
    invocation = cli.parse("distill", argv)
    with distributed.joined(**cli.distributed_flags(invocation)):
        figures = distill(invocation.config, invocation.workdir)
    if jax.process_index() == 0:
        print("  ".join(f"{name} {value:.4f}" for name, value in figures.items()))
