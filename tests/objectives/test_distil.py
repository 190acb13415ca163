"""A teacher's answers beside labels, two vectors for a pair, and the losses against torch."""

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest

from eelbert_jax import cli
from eelbert_jax.datasets.encoding import eval_batches
from eelbert_jax.datasets.splits import make_batch
from eelbert_jax.datasets.tasks import TaskRecord
from eelbert_jax.errors import UserError
from eelbert_jax.inference.load import load
from eelbert_jax.jobs.finetune import finetune, set_up
from eelbert_jax.jobs.fitting import encoder_start
from eelbert_jax.model import bert
from eelbert_jax.objectives.to_teacher import TO_TEACHER
from support.models import VOCABULARY, save_finetuned, save_pretrained, wider

TEXTS = [
    " ".join(words) for words in itertools.product(("the", "a"), ("file", "table", "run"), ("opens", "."))
]
LABELS = ("negative", "positive")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder of tables (texts, pairs with numbers, texts without labels) and models."""
    folder = tmp_path_factory.mktemp("tables")
    rows = [f"{text}\t{LABELS[text.startswith('the')]}\n" for text in TEXTS]
    (folder / "texts.tsv").write_text("sentence\tlabel\n" + "".join(rows))
    (folder / "more.tsv").write_text("sentence\n" + "".join(f"{text} the\n" for text in TEXTS[:5]))
    numbers = [f"{a}\t{b}\t{1 + 3 * (a[:1] == b[:1])}\n" for a, b in itertools.combinations(TEXTS, 2)]
    (folder / "pairs.tsv").write_text("sentence\tother\tlabel\n" + "".join(numbers))
    save_pretrained(folder / "start")
    save_finetuned(folder / "teacher", "custom", "classify", LABELS)
    return folder


def texts_config(folder, teacher="teacher", **changes):
    config = cli.load_config("configs/glue.py:micro,task=custom")
    config.update(pretrained=str(folder / "start"), num_epochs=1, batch_size=8)
    config.model.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    config.custom.update(
        train=str(folder / "texts.tsv"), dev=str(folder / "texts.tsv"), labels=",".join(LABELS)
    )
    config.teacher.model = None if teacher is None else str(folder / teacher)
    config.update_from_flattened_dict(changes)
    return config


def pairs_config(folder, **changes):
    pairs = {"custom.second_text_column": "other", "custom.regression": True, "custom.labels": None}
    config = texts_config(folder, teacher=None, pair_encoder="bi", **pairs)
    config.custom.train = config.custom.dev = str(folder / "pairs.tsv")
    config.update(**changes)
    return config


def params_of(objective):
    return wider(objective.init(jax.random.key(5)))


def loss_and_outputs(objective):
    """Return the loss of the first batch by the objective, its batch, and the model's outputs."""
    [first, *_] = eval_batches(objective.train.encoded, objective.batch_size)
    batch = make_batch(objective.train, first)
    params = params_of(objective)
    total = float(batch.weights.sum())
    loss = objective.loss(params, objective.constants, batch, total, jax.random.key(1))
    return float(loss), batch, np.asarray(objective.outputs_of(params, batch))


def test_the_teachers_answers_come_with_the_examples_in_their_order(folder):
    objective, _, _ = set_up(texts_config(folder, **{"teacher.texts": str(folder / "more.tsv")}))
    teacher = load(folder / "teacher")
    assert len(objective.train.encoded) == len(TEXTS) + 5
    for text, answer in zip(
        [*TEXTS, *(f"{text} the" for text in TEXTS[:5])], objective.train.teacher, strict=True
    ):
        shares = np.exp(answer) / np.exp(answer).sum()
        expected = teacher.classify([text])[0].probabilities
        assert shares == pytest.approx([expected[label] for label in LABELS], abs=1e-5)
    assert objective.train.labels.tolist()[-6:] == [0, *[-1] * 5]
    assert len(objective.data.train.encoded) == len(TEXTS)  # what scores and the record speak of


def test_a_teacher_answers_texts_with_errors(folder):
    texts = {"teacher.texts": str(folder / "more.tsv")}
    clean, noisy = (
        set_up(texts_config(folder, **texts, **{"teacher.noise_percent": percent}))[0].train
        for percent in (0.0, 60.0)
    )
    changed = [not np.array_equal(*ids) for ids in zip(clean.encoded.ids, noisy.encoded.ids, strict=True)]
    assert not any(changed[: len(TEXTS)])
    assert any(changed[len(TEXTS) :])
    answered = np.abs(clean.teacher - noisy.teacher).max(axis=1) > 1e-4
    assert answered.tolist() == changed
    with pytest.raises(UserError, match=r"texts without labels: set --config\.teacher\.texts"):
        set_up(texts_config(folder, **{"teacher.noise_percent": 5.0}))


@pytest.mark.slow
def test_a_student_is_trained_with_a_teacher(folder, tmp_path):
    more = {"teacher.texts": str(folder / "more.tsv"), "teacher.weight": 1.0}
    finetune(texts_config(folder, **more), tmp_path / "run")
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(record["train_loss"]) for record in records if "train_loss" in record)
    assert load(tmp_path / "run").task.labels == LABELS


@pytest.mark.parametrize(
    ("teacher", "changes", "said"),
    [
        ("exchanged", {}, "labels are in another order than the checkpoint's"),
        ("others", {}, "trained for other labels"),
        ("numbers", {}, "is fine-tuned to regress, not to classify"),
        ("start", {}, "holds no fine-tuned model"),
        (None, {"teacher.texts": "more.tsv"}, r"need a teacher: set --config\.teacher\.model"),
        ("teacher", {"teacher.weight": 1.5}, r"teacher\.weight=1\.5 must lie in \[0, 1\]"),
        ("teacher", {"teacher.temperature": 0.0}, r"teacher\.temperature=0\.0 must be positive"),
        ("teacher", {"teacher.noise_percent": 101.0}, r"teacher\.noise_percent must lie in \[0, 100\]"),
        (None, {"teacher.hidden_weight": 1.0}, r"States to learn need a teacher"),
        ("teacher", {"teacher.hidden_weight": -1.0}, r"teacher\.hidden_weight=-1\.0 not negative"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(folder, teacher, changes, said):
    save_finetuned(folder / "exchanged", "custom", "classify", LABELS[::-1])
    save_finetuned(folder / "others", "custom", "classify", ("good", "bad"))
    save_finetuned(folder / "numbers", "custom", "regress")
    with pytest.raises(UserError, match=said):
        set_up(texts_config(folder, teacher, **changes))


def test_a_teacher_with_another_vocabulary_is_refused(folder, tmp_path, monkeypatch):
    other = type(VOCABULARY)((*VOCABULARY.tokens[:-1], "new"))
    monkeypatch.setattr("support.models.VOCABULARY", other)
    save_finetuned(tmp_path / "teacher", "custom", "classify", LABELS)
    with pytest.raises(UserError, match=r"The vocabulary of the student .* is not that of"):
        set_up(texts_config(folder, **{"teacher.model": str(tmp_path / "teacher")}))


def test_a_pair_is_answered_by_the_cosine_of_its_vectors(folder, tmp_path):
    record = set_up(pairs_config(folder))[0].record
    assert (record.pair_encoder, record.mean, record.std) == ("bi", 2.5, 1.5)
    task = {"mean": 2.5, "std": 1.5, "pair_encoder": "bi", "max_length": record.max_length}
    save_finetuned(tmp_path, record.name, "regress", pairs=True, **task)
    model = load(tmp_path)
    assert model.task == record
    scores = [answer.score for answer in model.classify(TEXTS[:3], TEXTS[3:6])]
    first, second = (model.encode(texts) for texts in (TEXTS[:3], TEXTS[3:6]))
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    assert scores == pytest.approx(2.5 + 1.5 * np.sum(first * second, axis=1) / lengths, abs=1e-4)
    start_config = pairs_config(folder, pretrained=str(tmp_path), new_head=True)
    assert encoder_start(start_config, *set_up(start_config)[:2]).is_candidate  # a cosine has no classifier
    with pytest.raises(UserError, match=r"pair_encoder=bi, got --config\.pair_encoder=cross"):
        set_up(pairs_config(folder, pretrained=str(tmp_path), pair_encoder="cross"))


def test_single_texts_are_no_pairs(folder):
    with pytest.raises(UserError, match="pair_encoder=bi reads pairs, and custom has single texts"):
        set_up(texts_config(folder, None, pair_encoder="bi"))
    with pytest.raises(UserError, match="pair_encoder='tri' is not one of cross, bi"):
        set_up(texts_config(folder, None, pair_encoder="tri"))


def test_a_record_of_a_joint_row_is_as_before_there_was_another():
    record = TaskRecord("stsb", "regress", (), True, 128)
    assert "pair_encoder" not in record.to_dict()
    both = dataclasses.replace(record, pair_encoder="bi")
    assert [TaskRecord.from_dict(each.to_dict()) for each in (record, both)] == [record, both]


@pytest.mark.slow
@pytest.mark.parametrize("width", [32, 48])
def test_the_distance_to_the_teachers_states_is_torchs(folder, tmp_path, width):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    path = save_finetuned(tmp_path / "teacher", "custom", "classify", LABELS, sizes={"hidden_size": width})
    changes = {"teacher.model": str(path), "teacher.hidden_weight": 0.7}
    objective, _, _ = set_up(texts_config(folder, **changes))
    without, _, _ = set_up(texts_config(folder, **{**changes, "teacher.hidden_weight": 0.0}))
    params = params_of(objective)
    [first, *_] = eval_batches(objective.train.encoded, objective.batch_size)
    batch = make_batch(objective.train, first)
    total, key = float(batch.weights.sum()), jax.random.key(1)
    loss, rest = (
        float(each.loss(params, each.constants, batch, total, key)) for each in (objective, without)
    )
    student = bert.BertForSequenceClassification(objective.config)
    variables = {"params": params, "constants": objective.constants}
    _, collected = student.apply(variables, batch.input_ids, batch.attention_mask, mutable=["intermediates"])
    states = bert.encoder_states(objective.config, collected["intermediates"]).hidden_states[-1][:, 0]
    states = torch.tensor(np.asarray(states))
    assert (TO_TEACHER in params) == (width != 32)
    if width != 32:
        kernel, bias = (torch.tensor(np.asarray(params[TO_TEACHER][name])) for name in ("kernel", "bias"))
        states = states @ kernel + bias
    of_teacher = torch.tensor(load(path).vectors(objective.train.encoded, "cls")[first.indices])
    real = torch.tensor(batch.weights > 0)
    cosines = torch.nn.functional.cosine_similarity(states[real], of_teacher[real], dim=1)
    assert loss - rest == pytest.approx(0.7 * float((1 - cosines).mean()), abs=1e-5)
    shuffled = torch.nn.functional.cosine_similarity(states[real], of_teacher[real].flip(0), dim=1)
    assert abs(loss - rest - 0.7 * float((1 - shuffled).mean())) > 1e-3


@pytest.mark.slow
def test_a_student_of_states_is_a_model_like_any_other(folder, tmp_path):
    path = save_finetuned(tmp_path / "teacher", "custom", "classify", LABELS, sizes={"hidden_size": 48})
    changes = {"teacher.model": str(path), "teacher.hidden_weight": 1.0}
    result = finetune(texts_config(folder, **changes), tmp_path / "run")
    plain, _, _ = set_up(texts_config(folder, None))
    assert result.model.parameters == plain.num_parameters
    assert load(tmp_path / "run").classify(TEXTS[:1])[0].label in LABELS


@pytest.mark.slow
def test_two_vectors_are_fine_tuned(folder, tmp_path):
    config = pairs_config(folder, num_epochs=8)
    config.opt.learning_rate = 3e-3
    result = finetune(config, tmp_path)
    assert result.metrics["pearson"] > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("texts", [None, "more.tsv"])
def test_the_loss_with_a_teacher_is_torchs(folder, texts):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    functional = torch.nn.functional
    changes = {"teacher.weight": 0.3, "teacher.temperature": 2.0, "batch_size": 32}
    changes["teacher.texts"] = None if texts is None else str(folder / texts)
    objective, _, _ = set_up(texts_config(folder, **changes))
    loss, batch, outputs = loss_and_outputs(objective)
    real = batch.weights > 0
    logits, labels, teacher = (
        torch.tensor(np.asarray(values)[real]) for values in (outputs, batch.labels, batch.teacher)
    )
    to_labels = functional.cross_entropy(logits, labels.long(), ignore_index=-1, reduction="sum") / len(
        logits
    )
    soft = [functional.log_softmax(values / 2, dim=1) for values in (logits, teacher)]
    to_teacher = 4 * functional.kl_div(*soft, log_target=True, reduction="batchmean")
    assert loss == pytest.approx(float(0.7 * to_labels + 0.3 * to_teacher), abs=1e-5)
    assert abs(loss - float(0.7 * to_labels + 0.3 * to_teacher / 4)) > 1e-2  # without T^2
    soft = [functional.log_softmax(values, dim=1) for values in (logits, teacher)]
    unsoftened = functional.kl_div(*soft, log_target=True, reduction="batchmean")
    assert abs(loss - float(0.7 * to_labels + 0.3 * unsoftened)) > 1e-4
