"""A teacher's vectors, and a student that learns them, through the jobs."""

import importlib
import itertools
import json

import chex
import jax
import numpy as np
import pytest

from eelbert_jax import cli
from eelbert_jax.datasets.encoding import eval_batches
from eelbert_jax.datasets.glue import Examples
from eelbert_jax.datasets.splits import make_batch
from eelbert_jax.datasets.tables import Tally
from eelbert_jax.datasets.vectors import Vectors
from eelbert_jax.errors import UserError
from eelbert_jax.inference.load import load
from eelbert_jax.jobs import evaluate, pareto
from eelbert_jax.jobs.distill import distill, make_objective
from eelbert_jax.jobs.embed import embed
from eelbert_jax.jobs.finetune import set_up
from eelbert_jax.jobs.fitting import encoder_start
from eelbert_jax.sweeping.results import distilling_figures
from eelbert_jax.training.losses import similarity_distance
from eelbert_jax.training.sharding import make_layout
from eelbert_jax.vocabulary import SPECIAL_TOKENS, Vocabulary, save_vocabulary
from support.models import VOCABULARY, save_pretrained

WORDS = (("the", "a"), ("running", "file", "table"), ("opens", "runner", "run"), (".", "s"))
TEXTS = [" ".join(words) for words in itertools.product(*WORDS)]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return save_pretrained(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(TEXTS))
    return path


def embed_config(text, **changes):
    config = cli.load_config("configs/embed.py")
    config.update(source=str(text), dtype="float32", max_length=16, **changes)
    return config


@pytest.fixture(scope="module")
def vectors(teacher, text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vectors")
    embed(embed_config(text), str(teacher), folder)
    return folder


def student_config(vectors, **changes):
    config = cli.load_config("configs/distill.py:embedding,size=micro")
    config.data.vectors = str(vectors)
    config.update(max_length=16, heldout_every=6, batch_size=8, **{"num_epochs": 20, **changes})
    return config


@pytest.fixture(scope="module")
def student(vectors, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("student")
    return workdir, distill(student_config(vectors), workdir)


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_a_student_comes_near_its_teacher_on_sentences_that_it_has_not_seen(student):
    workdir, figures = student
    heldout = [record["heldout_cosine"] for record in records(workdir) if "heldout_cosine" in record]
    assert heldout[0] < 0.5 < 0.8 < figures["heldout_cosine"]
    assert figures["heldout_distance"] < 0.5


def test_a_students_vectors_are_near_its_teachers(student, teacher):
    ours, theirs = load(student[0]).encode(TEXTS), load(teacher).encode(TEXTS)
    assert ours.shape == theirs.shape
    cosines = np.sum(ours * theirs, axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosines.mean() > 0.8
    shuffled = np.sum(ours * theirs[::-1], axis=1)
    assert np.sum(ours * theirs, axis=1).mean() > shuffled.mean()


def test_a_fine_tuning_starts_from_a_students_encoder(student, tmp_path):
    table = tmp_path / "table.tsv"
    rows = [f"{text}\t{text.split()[0]}\n" for text in TEXTS]
    table.write_text("sentence\tlabel\n" + "".join(rows))
    config = cli.load_config("configs/glue.py:micro,task=custom")
    config.update(pretrained=str(student[0]), num_epochs=1)
    config.custom.update(train=str(table), dev_every=4)
    objective, pretrained, _ = set_up(config)
    assert objective.config.sentence_size is None
    like = jax.eval_shape(objective.init, jax.random.key(0))
    start = encoder_start(config, objective, pretrained)
    assert start.text == f"Starting from the encoder of {student[0]}."
    chex.assert_trees_all_equal(start.params(like), {"bert": load(student[0]).params["bert"]})


def test_a_student_can_be_a_teacher_and_a_start(student, text, vectors, tmp_path, capsys):
    embed(embed_config(text), str(student[0]), tmp_path / "vectors")
    config = student_config(tmp_path / "vectors", pretrained=str(student[0]))
    config.num_epochs = 0
    figures = distill(config, tmp_path / "run")
    assert figures["heldout_cosine"] == pytest.approx(1.0, abs=1e-3)
    assert f"Starting from the encoder of {student[0]}" in capsys.readouterr().out


def test_a_student_has_a_vocabulary_of_its_own(vectors, tmp_path):
    more = Vocabulary((*VOCABULARY.tokens, "runningfile"))
    save_vocabulary(more, tmp_path / "vocab.txt")
    workdir = tmp_path / "run"
    distill(student_config(vectors, vocabulary=str(tmp_path / "vocab.txt"), num_epochs=1), workdir)
    assert load(workdir).vocabulary == more


def test_a_run_that_gets_no_better_ends(vectors, tmp_path):
    distill(student_config(vectors, patience_evals=1, opt={"learning_rate": 1e-12}), tmp_path)
    evaluated = [record["step"] for record in records(tmp_path) if "heldout_cosine" in record]
    assert len(evaluated) == 3  # before training; the first epoch; the second, which is no better


def test_a_vocabulary_of_other_text_is_refused(vectors, tmp_path):
    save_vocabulary(Vocabulary((*SPECIAL_TOKENS, "the", ".")), tmp_path / "vocab.txt")
    words = [text.split() for text in TEXTS if not text.startswith("a ")]  # [UNK] to the teacher: left out
    percent = 100 * np.mean([word not in ("the", ".") for text in words for word in text])
    config = student_config(vectors, vocabulary=str(tmp_path / "vocab.txt"), num_epochs=0)
    with pytest.raises(UserError, match=rf"{percent:.1f} % .*\[UNK\], .*max_unknown_percent=5: .*vocabulary"):
        distill(config, tmp_path / "run")
    config.max_unknown_percent = percent + 0.1
    distill(config, tmp_path / "run")


def test_a_finished_embedding_and_student_are_left_as_they_are(student, teacher, text, vectors, capsys):
    before = (vectors / "manifest.json").read_bytes()
    embed(embed_config(text), str(teacher), vectors)
    assert (vectors / "manifest.json").read_bytes() == before
    assert distill(student_config(vectors), student[0]) == student[1]
    assert "finished: nothing to do" in capsys.readouterr().out


def test_vectors_of_another_teacher_or_text_are_refused(student, teacher, text, vectors, tmp_path):
    with pytest.raises(UserError, match=r"another teacher or text .*pooling"):
        embed(embed_config(text, pooling="cls"), str(teacher), vectors)
    shorter = tmp_path / "text.txt"
    shorter.write_text("\n".join(TEXTS[1:]))
    with pytest.raises(UserError, match=r"another teacher or text .*text:"):
        embed(embed_config(shorter), str(teacher), vectors)
    embed(embed_config(shorter), str(teacher), tmp_path / "vectors")
    with pytest.raises(UserError, match=r"other settings: vectors\.text"):
        distill(student_config(tmp_path / "vectors"), student[0])


def test_a_start_with_another_vocabulary_is_refused(vectors, tmp_path, monkeypatch):
    monkeypatch.setattr("support.models.VOCABULARY", type(VOCABULARY)((*VOCABULARY.tokens[:-1], "new")))
    start = save_pretrained(tmp_path / "start")
    with pytest.raises(UserError, match="The vocabulary of the vectors"):
        distill(student_config(vectors, pretrained=str(start)), tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("embed", r"embed needs a teacher: add --from=DIR"),
        ("distill", r"No vectors to learn: set --config\.data\.vectors=DIR"),
    ],
)
def test_what_is_missing_is_named(name, said, tmp_path):
    job = importlib.import_module(f"eelbert_jax.jobs.{name}")
    with pytest.raises(UserError, match=said):
        job.main([f"--workdir={tmp_path}"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"noise_percent": 101.0}, r"noise_percent must lie in \[0, 100\], got 101"),
        ({"loss": {"cosine_weight": -1.0}}, r"none may be negative .* got 1\.0, -1\.0, 0\.0"),
        ({"loss": {"distance_weight": 0.0}}, r"one has to be positive, got 0\.0, 0\.0, 0\.0"),
    ],
)
def test_what_is_learned_is_checked_before_vectors_are_read(tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        distill(student_config(tmp_path / "none", **changes), tmp_path)


def test_pairs_that_are_all_as_like_as_the_teachers_have_no_distance():
    teacher = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0].astype(np.float32)
    weights = np.array([1, 1, 1, 0], np.float32)
    ours = 7 * teacher @ turn
    ours[3] = 5.0  # a row of the filled-up batch
    assert float(similarity_distance(ours, teacher, weights)) == pytest.approx(0, abs=1e-6)
    assert float(similarity_distance(ours[::-1], teacher, weights)) > 0.1
    assert float(similarity_distance(np.zeros_like(ours), teacher, weights)) == pytest.approx(1)
    assert float(similarity_distance(ours[:1], teacher[:1], weights[:1])) == 0


def test_a_runs_figures_make_it_a_finished_cell_and_a_point(student, tmp_path, monkeypatch):
    workdir, figures = student
    found = distilling_figures(workdir)
    assert (found.main, found.value) == ("heldout_cosine", figures["heldout_cosine"])
    assert distilling_figures(tmp_path) is None
    numbers = np.arange(len(TEXTS) // 2, dtype=np.float32)
    pairs = Examples(tuple(TEXTS[::2]), tuple(TEXTS[1::2]), numbers, np.arange(len(numbers)), Tally())
    monkeypatch.setattr(pareto, "_stsb", lambda: pairs)
    points = pareto.pareto(str(workdir), tmp_path / "out")
    assert [point.weights for point in points] == ["int8", "float16", "float32"]
    score = evaluate.similarity(load(workdir).encode, pairs)["spearman"]
    assert points[-1].score == pytest.approx(score)
    assert points[-1].model == "EELBERT-micro"


@pytest.mark.slow
@pytest.mark.parametrize("weights", [(1.0, 0.0, 0.0), (0.0, 0.7, 0.0), (0.5, 0.3, 2.0)])
def test_the_loss_is_torchs(vectors, weights):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    config = student_config(vectors)
    names = ("distance_weight", "cosine_weight", "similarity_weight")
    config.loss.update(dict(zip(names, weights, strict=True)))
    objective = make_objective(config, make_layout(), Vectors.open(vectors), None)
    [first, *_] = eval_batches(objective.train.encoded, objective.batch_size)
    batch = make_batch(objective.train, first)
    params = jax.tree.map(
        lambda leaf: leaf * 8 if leaf.ndim == 2 else leaf, objective.init(jax.random.key(0))
    )
    loss = objective.loss(params, objective.constants, batch, batch.weights.sum(), jax.random.key(1))
    student = torch.tensor(np.asarray(objective.outputs_of(params, batch)))
    teacher = torch.tensor(np.asarray(batch.labels, np.float32))
    real = torch.tensor(batch.weights > 0)
    student, teacher = student[real], teacher[real]
    distance = torch.nn.functional.mse_loss(student, teacher, reduction="sum") / len(student)
    cosine = 1 - torch.nn.functional.cosine_similarity(student, teacher).mean()
    others = ~torch.eye(len(student), dtype=torch.bool)
    ours, theirs = (
        torch.nn.functional.cosine_similarity(each[:, None], each[None], dim=2)[others]
        for each in (student, teacher)
    )
    similarity = torch.sum((ours - theirs) ** 2) / torch.sum(theirs**2)
    expected = sum(w * float(term) for w, term in zip(weights, (distance, cosine, similarity), strict=True))
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    unit = torch.nn.functional.normalize(student, dim=1)
    normalized = torch.nn.functional.mse_loss(unit, teacher, reduction="sum") / len(student)
    assert abs(float(distance) - float(normalized)) > 1e-2
