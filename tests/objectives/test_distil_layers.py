"""A student of a masked language model: what it learns of its teacher, the losses against torch."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eelbert_jax import cli
from eelbert_jax.corpus.rows import Rows
from eelbert_jax.errors import UserError
from eelbert_jax.inference.load import load
from eelbert_jax.interchange.folder import write_folder
from eelbert_jax.jobs.distill import distill, with_teacher
from eelbert_jax.jobs.finetune import set_up
from eelbert_jax.jobs.fitting import encoder_start
from eelbert_jax.jobs.pretrain import make_objective, pretrain
from eelbert_jax.model import bert
from eelbert_jax.model.config import sized
from eelbert_jax.objectives.distil_layers import layer_map
from eelbert_jax.objectives.to_teacher import TO_TEACHER
from eelbert_jax.training import sharding
from eelbert_jax.training.writer import read_metrics
from support.folders import random_params
from support.models import save_pretrained, wider

STUDENT = dict(num_hidden_layers=2, num_hidden_groups=1, adapter_size=4, embedding_size=16)
STUDENT |= dict(tie_word_embeddings=False, pooling="cls")


def write_teacher(path, rows_dir, model_class=bert.BertForMaskedLM, lowercase=True, **changes):
    rows = Rows.open(rows_dir, "train")
    sizes = {**dict(hidden_size=48, num_hidden_layers=4), **changes}
    config = sized("micro", vocab_size=rows.vocabulary.size, embedding="table", **sizes)
    params = random_params(model_class(config))
    write_folder(path, config, rows.vocabulary, params, lowercase=lowercase)
    return path


@pytest.fixture(scope="module")
def teacher(rows_dir, tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("models") / "teacher", rows_dir)


def student_config(rows_dir, teacher, **changes):
    config = cli.load_config("configs/distill.py:minialbert,size=micro,setting=small")
    config.update(total_steps=60, batch_size=8, eval_every_steps=60, checkpoint_every_steps=60)
    config.model.update(**STUDENT)
    config.teacher.model = None if teacher is None else str(teacher)
    config.data.update(rows=str(rows_dir), eval_batch_size=16)
    config.opt.update(warmup_steps=0, learning_rate=5e-3)
    config.tensorboard = False
    config.update_from_flattened_dict(changes)
    return config


def objective_of(rows_dir, teacher, **changes):
    config = student_config(rows_dir, teacher, **changes)
    rows = [Rows.open(rows_dir, split) for split in ("train", "heldout")]
    layout = sharding.Layout(sharding.make_mesh())
    masked_lm = make_objective(config, rows[0].vocabulary, rows[0].row_length, layout, *rows)
    return with_teacher(masked_lm, config)


def first_params(objective):
    return wider(jax.jit(objective.init)(jax.random.key(0)))


def loss_of(objective, params, examples, total_weight):
    loss = jax.jit(objective.loss)
    return float(loss(params, objective.constants, examples, total_weight, jax.random.key(0)))


def test_a_student_comes_near_its_teacher_and_is_a_model_like_any_other(rows_dir, teacher, tmp_path):
    figures = distill(student_config(rows_dir, teacher), tmp_path / "run")
    first = next(r for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if "heldout_loss" in r)
    for name in ("heldout_loss", "heldout_attention", "heldout_hidden", "heldout_logits"):
        assert 0 < figures[name] < first[name]
    assert figures["heldout_hidden"] < 0.8 * first["heldout_hidden"]
    student = load(tmp_path / "run")
    assert set(student.params) == {"bert", "cls"}
    assert student.encode(["the dog ran"]).shape == (1, 32)

    table = tmp_path / "table.tsv"
    table.write_text("sentence\tlabel\n" + "the dog\tx\nthe fox\ty\n" * 8)
    config = cli.load_config("configs/glue.py:micro,task=custom")
    config.update(pretrained=str(tmp_path / "run"), max_length=16)
    config.custom.update(train=str(table), dev_every=4)
    objective, pretrained, _ = set_up(config)
    start = encoder_start(config, objective, pretrained)
    like = jax.eval_shape(objective.init, jax.random.key(0))
    chex.assert_trees_all_equal(start.params(like), {"bert": student.params["bert"]})


@pytest.mark.slow
def test_a_student_is_a_start_with_a_teacher_and_without(rows_dir, teacher, tmp_path):
    figures = distill(student_config(rows_dir, teacher, total_steps=2), tmp_path / "run")
    assert len(load(tmp_path / "run").fill_mask(["the [MASK] ran"])[0][0]) == 5
    for job in (distill, pretrain):
        again = student_config(rows_dir, teacher, total_steps=0, init_params_from=str(tmp_path / "run"))
        if job is pretrain:
            del again["teacher"]
        found = job(again, tmp_path / job.__name__)
        assert found["heldout_loss"] == pytest.approx(figures["heldout_loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("layers", "student", "teacher", "expected"),
    [
        ("uniform", 6, 12, (2, 4, 6, 8, 10, 12)),  # MiniALBERT's
        ("uniform", 3, 6, (2, 4, 6)),
        ("uniform", 4, 6, (2, 3, 5, 6)),
        ("uniform", 4, 2, (1, 1, 2, 2)),
        ("top", 3, 6, (4, 5, 6)),
        ("bottom", 3, 6, (1, 2, 3)),
        ("1, 6,6", 3, 6, (1, 6, 6)),
    ],
)
def test_layers_learn_from_the_layers_of_the_map(layers, student, teacher, expected):
    assert layer_map(layers, student, teacher) == expected


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"teacher.layers": "2,5"}, "teacher has no layer 5; its layers are 1 to 4"),
        ({"teacher.layers": "0,2"}, "teacher has no layer 0"),
        ({"teacher.layers": "4"}, r"names 1 layers, and the student has 2"),
        ({"teacher.layers": "middle"}, "is not one of uniform, top, bottom, nor numbers"),
        ({"teacher.layers": "top", "model.num_hidden_layers": 5}, "student's 5, and the teacher has 4"),
        ({"model.num_attention_heads": 4}, r"has 2 attention heads, the student 4: .*attention_weight=0"),
        ({"teacher.hidden_loss": "l1"}, "is not one of cosine, mse"),
        ({"teacher.hidden_weight": -1.0}, "negative, got -1"),
        (
            {f"teacher.{name}_weight": 0.0 for name in ("attention", "hidden", "logits")},
            "Nothing is learned of the teacher",
        ),
    ],
)
def test_what_does_not_fit_the_teacher_is_refused(rows_dir, teacher, changes, said):
    with pytest.raises(UserError, match=said):
        objective_of(rows_dir, teacher, **changes)


def test_teachers_that_do_not_fit_are_refused(rows_dir, teacher, tmp_path):
    with pytest.raises(UserError, match=r"No teacher to learn from: set --config\.teacher\.model"):
        objective_of(rows_dir, None)
    encoder = write_teacher(tmp_path / "encoder", rows_dir, bert.BertForSequenceClassification)
    with pytest.raises(UserError, match=r"no head to predict tokens with: set --config\.teacher\.logits_w"):
        objective_of(rows_dir, encoder)
    assert objective_of(rows_dir, encoder, **{"teacher.logits_weight": 0.0}).layer_map == (2, 4)
    cased = write_teacher(tmp_path / "cased", rows_dir, lowercase=False)
    with pytest.raises(UserError, match="has lowercase=False, the rows True"):
        objective_of(rows_dir, cased)
    short = write_teacher(tmp_path / "short", rows_dir, max_position_embeddings=16)
    with pytest.raises(UserError, match="Rows of 32 tokens are longer than the teacher"):
        objective_of(rows_dir, short)
    with pytest.raises(UserError, match="The vocabulary of the rows in"):
        objective_of(rows_dir, save_pretrained(tmp_path / "other"))


@pytest.mark.slow
def test_the_loss_of_a_batch_is_the_sum_of_its_parts(rows_dir, teacher):
    objective = objective_of(rows_dir, teacher)
    params = first_params(objective)
    assert params[TO_TEACHER]["kernel"].shape == (32, 48)
    examples, total = objective.examples(objective.next_batch(0)[0], jnp.asarray(0))
    parts = [jax.tree.map(lambda leaf, p=part: leaf[p], examples) for part in (slice(0, 4), slice(4, 8))]
    halves = [loss_of(objective, params, part, total) for part in parts]
    assert sum(halves) == pytest.approx(loss_of(objective, params, examples, total), rel=1e-5)
    assert halves[0] != pytest.approx(halves[1], rel=1e-3)


@pytest.mark.slow
def test_the_teacher_has_no_gradient(rows_dir, teacher):
    objective = objective_of(rows_dir, teacher)
    params = first_params(objective)
    examples, total = objective.examples(objective.next_batch(0)[0], jnp.asarray(0))

    def loss(constants):
        return objective.loss(params, constants, examples, total, jax.random.key(0))

    gradients = jax.jit(jax.grad(loss))(objective.constants)["teacher"]
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradients["params"]))


@pytest.mark.slow
@pytest.mark.parametrize(("width", "hidden_loss"), [(48, "cosine"), (32, "mse")])
def test_every_term_is_torchs(rows_dir, tmp_path, width, hidden_loss):
    """The published losses on the same states, each with the control of another layer map."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    functional = torch.nn.functional
    teacher = write_teacher(tmp_path / "teacher", rows_dir, hidden_size=width)
    objective = objective_of(
        rows_dir, teacher, **{"teacher.hidden_loss": hidden_loss, "teacher.layers": "2,4"}
    )
    params = first_params(objective)
    examples, total = objective.examples(objective.next_batch(0)[0], jnp.asarray(0))

    def read(config, variables):
        model = bert.BertForMaskedLM(config)
        apply = jax.jit(functools.partial(model.apply, mutable=["intermediates"]))
        logits, collected = apply(variables, examples.input_ids)
        states = bert.encoder_states(config, collected["intermediates"])
        logits = jnp.take_along_axis(logits, examples.positions[:, :, None], axis=1)
        as_torch = [torch.tensor(np.asarray(each)) for each in (*states.hidden_states, logits)]
        probs = [torch.tensor(np.asarray(each)) for each in states.attention_probs]
        return as_torch[1:-1], probs, as_torch[-1][torch.tensor(np.asarray(examples.weights) > 0)]

    hidden, probs, logits = read(objective.config, {"params": params, "constants": objective.constants})
    hidden_t, probs_t, logits_t = read(objective.teacher.config, objective.constants["teacher"])
    if width == 32:
        assert TO_TEACHER not in params
    else:
        kernel, bias = (torch.tensor(np.asarray(params[TO_TEACHER][name])) for name in ("kernel", "bias"))
        hidden = [each @ kernel + bias for each in hidden]

    def attention(layers):
        found = [(probs_t[i - 1] + 1e-12, probs[n] + 1e-12) for n, i in enumerate(layers)]
        # The reduction "mean" of today's torch: over entries, not over rows.
        return sum(functional.kl_div(ours.log(), theirs, reduction="none").mean() for theirs, ours in found)

    def distance(layers):
        pairs = [(hidden[n].flatten(0, 1), hidden_t[i - 1].flatten(0, 1)) for n, i in enumerate(layers)]
        if hidden_loss == "mse":
            return sum(functional.mse_loss(*pair) for pair in pairs)
        return sum(functional.cosine_embedding_loss(*pair, torch.ones(len(pair[0]))) for pair in pairs)

    labels = torch.tensor(np.asarray(examples.labels)[np.asarray(examples.weights) > 0]).long()
    soft = functional.log_softmax(logits, dim=1), functional.log_softmax(logits_t, dim=1)
    expected = {
        "mlm": functional.cross_entropy(logits, labels),
        "attention": attention((2, 4)),
        "hidden": distance((2, 4)),
        "logits": functional.kl_div(*soft, log_target=True, reduction="batchmean"),
    }
    controls = {
        "mlm": functional.cross_entropy(logits_t, labels),
        "attention": attention((1, 3)),
        "hidden": distance((1, 3)),
        "logits": functional.kl_div(*soft[::-1], log_target=True, reduction="batchmean"),
    }
    for name in expected:
        alone = {f"{term}_weight": float(term == name) for term in expected}
        if name == "mlm":  # one term of the teacher there has to be
            alone["hidden_weight"] = 1.0
        one = dataclasses.replace(objective, terms=dataclasses.replace(objective.terms, **alone))
        loss = loss_of(one, params, examples, total)
        rest = float(expected["hidden"]) if name == "mlm" else 0.0
        assert loss - rest == pytest.approx(float(expected[name]), rel=2e-5), name
        assert abs(loss - rest - float(controls[name])) > 1e-3 * abs(float(expected[name])), name
    weighted = sum(weight * expected[name] for name, weight in objective._weights.items())
    assert loss_of(objective, params, examples, total) == pytest.approx(float(weighted), rel=2e-5)
    assert objective._weights == {"mlm": 1.0, "attention": 3.0, "hidden": 3.0, "logits": 5.0}
