"""Models as folders in the Hugging Face layout: a round trip, what others saved, fine-tuning, refusals."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from eelbert_jax import cli
from eelbert_jax.datasets.tasks import TaskRecord
from eelbert_jax.errors import UserError
from eelbert_jax.inference.load import load
from eelbert_jax.interchange.folder import is_folder, read_folder, write_folder
from eelbert_jax.jobs.finetune import finetune, starting_model
from eelbert_jax.model import bert
from eelbert_jax.record import Start
from support.folders import CONFIG, HEADS, MODEL, VOCABULARY, change, edit, write


@pytest.mark.parametrize("embedding", ["table", "ngram_hash", "random_hash", "hash_initialized"])
@pytest.mark.parametrize("model_class", HEADS)
def test_round_trip_is_bitwise(model_class, embedding, tmp_path):
    config, params = write(tmp_path / "out", model_class, embedding=embedding, num_labels=3)
    found = read_folder(tmp_path / "out")
    assert found.config == config
    assert found.vocabulary == VOCABULARY
    assert found.lowercase is False
    jax.tree.map(np.testing.assert_array_equal, found.params, params)


def test_vectors_of_a_hash_are_written_and_not_read_as_parameters(tmp_path):
    config, _ = write(tmp_path, embedding="ngram_hash")
    table = bert.constants(config, VOCABULARY)["bert"]["embeddings"]["word_embeddings"]["table"]
    np.testing.assert_array_equal(
        load_file(tmp_path / MODEL)["bert.embeddings.word_embeddings.weight"], table
    )
    assert json.loads((tmp_path / CONFIG).read_text())["tie_word_embeddings"] is False
    edit(tmp_path / CONFIG, eelbert_jax=None)
    found = read_folder(tmp_path, heads=False)
    assert found.config.embedding == "table"
    np.testing.assert_array_equal(found.params["bert"]["embeddings"]["word_embeddings"]["embedding"], table)
    with pytest.raises(UserError, match="the model ties them"):
        read_folder(tmp_path)


def test_a_wide_hash_is_written_as_its_vectors_with_its_projection(tmp_path):
    config, params = write(tmp_path, embedding="ngram_hash", hash_width=96)
    found = read_folder(tmp_path)
    assert found.config == config
    jax.tree.map(np.testing.assert_array_equal, found.params, params)
    assert load_file(tmp_path / MODEL)["bert.embeddings.word_embeddings.weight"].shape == (14, 32)
    edit(tmp_path / CONFIG, eelbert_jax=None)
    assert read_folder(tmp_path, heads=False).config.embedding == "table"


def test_a_projection_that_does_not_give_the_vectors_is_refused(tmp_path):
    write(tmp_path, embedding="ngram_hash", hash_width=96)
    name = "bert.embeddings.word_embeddings.projection"
    change(tmp_path, lambda state: state.update({name: state[name] * 1.001}))
    with pytest.raises(UserError, match="not the vectors of the hash"):
        read_folder(tmp_path)
    change(tmp_path, lambda state: state.pop(name))
    with pytest.raises(UserError, match=r"has no .*\.projection, which a hash of hash_width=96"):
        read_folder(tmp_path)


def test_vectors_that_were_trained_since_are_no_hash(tmp_path):
    write(tmp_path, embedding="ngram_hash")
    state = load_file(tmp_path / MODEL)
    state["bert.embeddings.word_embeddings.weight"][5, 0] += 1e-6
    save_file(state, tmp_path / MODEL)
    with pytest.raises(UserError, match="not the vectors of the hash"):
        read_folder(tmp_path)


def save_encoder_alone(folder):
    """Rewrite a folder as sentence encoders are published: no prefix, a pooler, a buffer, no head."""
    state = {
        name.removeprefix("bert."): array
        for name, array in load_file(folder / MODEL).items()
        if name.startswith("bert.")
    }
    state["embeddings.position_ids"] = np.arange(512, dtype=np.int64)[None]
    save_file(state, folder / MODEL)


def test_an_encoder_saved_alone_is_read(tmp_path):
    _, params = write(tmp_path, bert.BertForSequenceClassification)
    save_encoder_alone(tmp_path)
    found = read_folder(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, found.params, {"bert": params["bert"]})
    assert "pooler" in found.params["bert"]
    assert load(tmp_path, encoder_only=True).step is None
    with pytest.raises(UserError, match="saved as BertForMaskedLM"):
        load(tmp_path).fill_mask(["[MASK]"])


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_half_precision_is_read_as_float32(tmp_path, dtype):
    _, params = write(tmp_path)
    half = {name: array.astype(dtype) for name, array in load_file(tmp_path / MODEL).items()}
    save_file(half, tmp_path / MODEL)
    expected = jax.tree.map(lambda leaf: leaf.astype(dtype).astype(np.float32), params)
    jax.tree.map(np.testing.assert_array_equal, read_folder(tmp_path).params, expected)


def test_an_mlm_folder_fills_masks_as_a_checkpoint_does(tmp_path):
    config, params = write(tmp_path, embedding="ngram_hash")
    loaded = load(tmp_path)
    ids = np.array([[VOCABULARY.cls_id, 6, VOCABULARY.mask_id, VOCABULARY.sep_id]], np.int32)
    apply = jax.jit(bert.BertForMaskedLM(config).apply)
    expected = apply({"params": params, "constants": bert.constants(config, VOCABULARY)}, ids)
    actual = apply({"params": loaded.params, "constants": loaded.constants}, ids)
    np.testing.assert_array_equal(actual, expected)


def test_runs_are_told_from_folders(tmp_path):
    write(tmp_path / "hf")
    assert is_folder(tmp_path / "hf")
    run = tmp_path / "run"
    run.mkdir()
    (run / CONFIG).write_text('{"recipe": "tiny"}')
    assert not is_folder(run)
    assert not is_folder(tmp_path / "nowhere")
    (run / "pytorch_model.bin").touch()
    assert is_folder(run)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "electra"}, "model_type is 'electra'; read are bert, distilbert"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu', expected 'gelu'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"is_decoder": True}, "is_decoder is True"),
        ({"hidden_size": None}, "has no hidden_size"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers is '2'"),
        ({"num_attention_heads": 5}, r"config\.json: hidden_size=32 is no multiple"),
        ({"vocab_size": 15}, r"has 14 tokens and 14 rows .* but config\.json says vocab_size=15"),
        ({"intermediate_size": 128}, r"dense\.weight is \[64, 32\], the model has \[128, 32\]"),
        ({"num_hidden_layers": 2}, r"missing: bert\.encoder\.layer\.1\."),
        ({"eelbert_jax": {"embedding": "ngram_hash"}}, "eelbert_jax is"),
        ({"eelbert_jax": {"embedding": "ngram_hash", "hash": {}, "hash_width": "96"}}, "hash_width is '96'"),
    ],
)
def test_a_config_of_something_else_is_refused(tmp_path, changes, said):
    write(tmp_path)
    edit(tmp_path / CONFIG, **changes)
    with pytest.raises(UserError, match=said):
        read_folder(tmp_path)


def test_rows_of_a_table_that_no_token_has_are_cut_off(tmp_path, capsys):
    _, params = write(tmp_path)

    def pad(state):
        for name in ("bert.embeddings.word_embeddings.weight", "cls.predictions.bias"):
            extra = np.full((2, *state[name].shape[1:]), 7.0, np.float32)
            state[name] = np.concatenate([state[name], extra])

    change(tmp_path, pad)
    edit(tmp_path / CONFIG, vocab_size=16)
    found = read_folder(tmp_path)
    assert found.config.vocab_size == VOCABULARY.size == 14
    jax.tree.map(np.testing.assert_array_equal, found.params, params)
    assert "2 padded rows of the table have no token" in capsys.readouterr().err
    ((guesses,),) = load(tmp_path).fill_mask(["[MASK]"], top=14)
    assert {token for token, _ in guesses} == set(VOCABULARY.tokens)


def test_heads_of_another_kind_are_left_out_and_named(tmp_path, capsys):
    _, params = write(tmp_path)
    encoder = {"bert": params["bert"]}

    def answer_questions(state):
        for name in [name for name in state if name.startswith("cls.")]:
            del state[name]
        state["qa_outputs.weight"] = np.zeros((2, 32), np.float32)
        state["qa_outputs.bias"] = np.zeros(2, np.float32)

    change(tmp_path, answer_questions)
    edit(tmp_path / CONFIG, architectures=["BertForQuestionAnswering"])
    found = read_folder(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, found.params, encoder)
    assert capsys.readouterr().err == f"{tmp_path}: read without qa_outputs.\n"
    change(tmp_path, lambda state: state.update({"bert.adapter.weight": np.zeros(3, np.float32)}))
    with pytest.raises(UserError, match=r"left over: bert\.adapter\.weight \[3\]"):
        read_folder(tmp_path)


def test_a_classifier_that_answers_something_else_is_left_out(tmp_path):
    write(tmp_path, bert.BertForSequenceClassification, num_labels=3)
    for changes in (
        {"architectures": ["BertForMultipleChoice"]},
        {"architectures": ["BertForTokenClassification"], "problem_type": "multi_label_classification"},
    ):
        edit(tmp_path / CONFIG, **changes)
        found = read_folder(tmp_path)
        assert found.task is None
        assert "classifier" not in found.params


@pytest.mark.parametrize(
    ("model_class", "num_labels", "kind"),
    [
        (bert.BertForSequenceClassification, 2, "classify"),
        (bert.BertForSequenceClassification, 1, "regress"),
        (bert.BertForSequenceClassification, 2, "multilabel"),
        (bert.BertForTokenClassification, 2, "tag"),
    ],
)
def test_a_classifier_of_others_answers(tmp_path, model_class, num_labels, kind):
    write(tmp_path, model_class, num_labels=num_labels)
    problem = {"problem_type": "multi_label_classification"} if kind == "multilabel" else {}
    edit(tmp_path / CONFIG, id2label={"0": "bad", "1": "good"}, **problem)
    model = load(tmp_path)
    assert model.task.kind == kind
    assert model.task.labels == (() if kind == "regress" else ("bad", "good"))
    if kind == "tag":
        assert model.tag(["the file"])[0][1].tag in ("bad", "good")
        return
    single, pair = model.classify(["the file"])[0], model.classify(["the file"], ["opens"])[0]
    assert single != pair
    edit(tmp_path / CONFIG, id2label=None)
    assert load(tmp_path).task.labels == (() if kind == "regress" else ("LABEL_0", "LABEL_1"))


def test_what_our_model_was_tuned_for_goes_along(tmp_path):
    task = TaskRecord("ratings", "regress", (), True, 24, mean=3.0, std=0.5)
    write(tmp_path, bert.BertForSequenceClassification, task=task, num_labels=1)
    assert load(tmp_path).task == task
    assert load(tmp_path, encoder_only=True).task == task
    edit(tmp_path / CONFIG, eelbert_jax={})
    assert load(tmp_path, encoder_only=True).task is None


def test_weights_in_several_files_are_read(tmp_path):
    _, params = write(tmp_path)
    state = load_file(tmp_path / MODEL)
    (tmp_path / MODEL).unlink()
    names = sorted(state)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: state[name] for name in part}, tmp_path / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    jax.tree.map(np.testing.assert_array_equal, read_folder(tmp_path).params, params)
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no b\.safetensors"):
        read_folder(tmp_path)


def test_files_can_be_read_by_others(tmp_path):
    write(tmp_path)
    assert {path.stat().st_mode & 0o444 for path in tmp_path.iterdir()} == {0o444}


@pytest.mark.parametrize("name", [CONFIG, MODEL, "vocab.txt", "tokenizer_config.json"])
def test_a_missing_or_broken_file_is_named(tmp_path, name):
    write(tmp_path)
    (tmp_path / name).write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=name):
        read_folder(tmp_path)
    (tmp_path / name).unlink()
    if name != "tokenizer_config.json":
        with pytest.raises(UserError, match=name):
            read_folder(tmp_path)


def test_weights_that_are_not_read_are_named(tmp_path):
    write(tmp_path)
    (tmp_path / MODEL).rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"has pytorch_model\.bin, which is not read.*save_pretrained"):
        read_folder(tmp_path)


def test_nothing_is_overwritten_and_every_class_has_a_label(tmp_path):
    config, params = write(tmp_path)
    with pytest.raises(UserError, match="already holds config"):
        write(tmp_path)
    task = TaskRecord("mine", "classify", ("one",), False, 16)
    with pytest.raises(UserError, match="1 labels for 2 classes"):
        write_folder(tmp_path / "new", config, VOCABULARY, params, lowercase=True, task=task)
    with pytest.raises(UserError, match="Cannot write a model"):
        write_folder(tmp_path / CONFIG / "new", config, VOCABULARY, params, lowercase=True)


def finetuning(tmp_path, folder):
    """Return a config that fine-tunes a folder on a table of two words; its recipe is of another size."""
    rows = "the file is good\t1\nthe table is bad\t0\n" * 8
    (tmp_path / "train.tsv").write_text("sentence\tlabel\n" + rows)
    config = cli.load_config("configs/glue.py:tiny,task=custom")
    config.pretrained = str(folder)
    config.custom.train = config.custom.dev = str(tmp_path / "train.tsv")
    config.max_length = 16
    config.num_epochs = 1
    config.batch_size = 8
    return config


def test_finetune_takes_a_folder_of_any_size(tmp_path):
    folder = tmp_path / "encoder"
    _, params = write(folder, bert.BertForSequenceClassification, hidden_size=48, num_labels=5)
    save_encoder_alone(folder)
    config = finetuning(tmp_path, folder)
    model_config, vocabulary, pretrained = starting_model(config)
    assert (model_config.hidden_size, model_config.num_hidden_layers) == (48, 1)
    assert model_config.hidden_dropout_prob == config.model.hidden_dropout_prob
    assert vocabulary == VOCABULARY
    jax.tree.map(np.testing.assert_array_equal, pretrained.params, {"bert": params["bert"]})
    config.opt.learning_rate = 1e-12
    config.max_unknown_percent = 100  # of these few tokens
    result = finetune(config, tmp_path / "run")
    assert result.model.name == "BERT-L1-H48-F64"
    assert result.model.size is None
    assert result.pretrained == Start(str(folder), None)
    tuned = load(tmp_path / "run")
    assert tuned.lowercase is False
    # At such a rate what comes out is what went in, the pooler with the rest.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), tuned.params["bert"], params["bert"]
    )
