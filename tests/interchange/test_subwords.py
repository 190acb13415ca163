"""Byte-level BPE and Unigram: read as transformers reads it, rows and words, prompts, what is refused."""

import json

import numpy as np
import pytest

from eelbert_jax.__main__ import main as door
from eelbert_jax.datasets.encoding import encode_texts, encode_words, gather
from eelbert_jax.errors import UserError
from eelbert_jax.inference.load import load
from eelbert_jax.inference.windows import text_windows
from eelbert_jax.interchange.folder import read_folder, write_folder
from eelbert_jax.model import bert
from eelbert_jax.subwords import load_tokenizer, parse_subwords, save_tokenizer
from support.folders import (
    VOCABULARY,
    edit,
    micro,
    random_params,
    roberta_vocabulary,
    trained_bpe,
    xlnet_vocabulary,
)

BPE, UNIGRAM = roberta_vocabulary(), xlnet_vocabulary()
TEXTS = ["The file opens, quickly.", " a  table\n", "naïve Καλημέρα 😂", "", "x" * 50]
ROBERTA = {"architecture": "roberta", "type_vocab_size": 1, "max_position_embeddings": 42}


def write_roberta(folder, model_class=bert.BertForMaskedLM, **changes):
    config = micro(**{**ROBERTA, "vocab_size": BPE.size, **changes})
    write_folder(folder, config, BPE, random_params(model_class(config)), lowercase=False)


def test_rows_are_as_published():
    start, end = BPE.id_of("<s>"), BPE.id_of("</s>")
    row, segments = BPE.row([7, 8])
    assert (row.tolist(), segments) == ([start, 7, 8, end], [4, 0])
    row, segments = BPE.row([7], [8, 9])
    assert (row.tolist(), segments) == ([start, 7, end, end, 8, 9, end], [3, 4])
    assert (BPE.num_special(), BPE.num_special(pairs=True)) == (2, 4)
    sep, cls = UNIGRAM.id_of("<sep>"), UNIGRAM.id_of("<cls>")
    row, segments = UNIGRAM.row([17, 18])
    assert (row.tolist(), segments) == ([17, 18, sep, cls], [3, 0, 1])
    row, segments = UNIGRAM.row([17], [18, 19])
    assert (row.tolist(), segments) == ([17, sep, 18, 19, sep, cls], [2, 3, 1])
    assert (UNIGRAM.num_special(), UNIGRAM.num_special(pairs=True)) == (2, 3)


def test_what_stands_for_an_xlnet_row_is_a_segment_of_its_own():
    encoded = encode_texts(["a", "a table"], ["files", "a"], UNIGRAM, 24)
    lengths = encoded.lengths.tolist()
    _, mask, types = gather(encoded, np.arange(2), 24)
    assert mask.sum(axis=1).tolist() == lengths
    for row, (first, second, last), length in zip(types, encoded.segment_lengths, lengths, strict=True):
        assert row.tolist() == [0] * first + [1] * second + [2] * last + [0] * (24 - length)
    windows, text_ids = text_windows(["a table of files " * 4], UNIGRAM, False, 12, 5)
    assert text_ids.tolist() == [0] * len(windows)
    assert all(ids[-1] == UNIGRAM.cls_id for ids in windows.ids)
    assert windows.segment_lengths.tolist() == [[11, 0, 1]] * len(windows)


def test_words_are_read_with_the_space_before_them():
    encoded = encode_words([["the", "files", "open"]], BPE, 64)
    whole = BPE.tokenizer().encode(" the files open")
    assert encoded.ids[0][1:-1].tolist() == whole.ids
    firsts = [whole.tokens[start - 1] for start in encoded.word_starts[0]]
    assert [token[0] for token in firsts] == ["Ġ"] * 3
    encoded = encode_words([["the", "files", "open"]], UNIGRAM, 64)
    whole = UNIGRAM.tokenizer().encode("the files open")
    assert encoded.ids[0][:-2].tolist() == whole.ids
    assert [whole.tokens[start][0] for start in encoded.word_starts[0]] == ["▁"] * 3


def test_special_tokens_are_read_in_prompts_alone(tmp_path):
    (ids,) = encode_texts(["a <mask>"], None, BPE, 64).ids
    assert BPE.mask_id not in ids
    (ids,) = encode_texts(["a <mask><cls>"], None, UNIGRAM, 64).ids
    assert UNIGRAM.mask_id not in ids
    assert np.count_nonzero(ids == UNIGRAM.cls_id) == 1
    write_roberta(tmp_path)
    model = load(tmp_path)
    prompt = model.masked_ids("a <mask>.")
    assert (prompt[0], prompt[-1]) == (BPE.cls_id, BPE.sep_id)
    assert np.count_nonzero(prompt == BPE.mask_id) == 1
    ((guesses,),) = model.fill_mask(["a <mask>."], top=BPE.size)
    assert sum(share for _, share in guesses) == pytest.approx(1, abs=1e-4)
    assert not any("Ġ" in token for token, _ in guesses)
    with pytest.raises(UserError, match="must have a <mask> and at most 40 tokens"):
        model.fill_mask(["a [MASK]"])


def test_a_run_keeps_its_tokenizer(tmp_path):
    for name, vocabulary in (("bpe", BPE), ("unigram", UNIGRAM), ("word_piece", VOCABULARY)):
        (tmp_path / name).mkdir()
        save_tokenizer(vocabulary, tmp_path / name)
        assert load_tokenizer(tmp_path / name) == vocabulary
    assert BPE.fingerprint != VOCABULARY.fingerprint


def test_two_files_are_read_as_the_one(tmp_path):
    """A vocab.json and a merges.txt, as the first published RoBERTas have them."""
    write_roberta(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    vocab, merges = trained_bpe()
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    with pytest.raises(UserError, match=r"neither tokenizer\.json nor vocab\.json with merges\.txt"):
        read_folder(tmp_path)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (tmp_path / "merges.txt").write_text("\n".join(lines) + "\n")
    assert read_folder(tmp_path).vocabulary == BPE
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b c\n")
    with pytest.raises(UserError, match="'a b c' is no pair of tokens"):
        read_folder(tmp_path)


def test_the_vocabulary_of_another_encoder_is_refused(tmp_path):
    write_roberta(tmp_path)
    (tmp_path / "tokenizer.json").write_text(UNIGRAM.content)
    with pytest.raises(UserError, match=r"tokenizer\.json is of Unigram, expected byte-level BPE"):
        read_folder(tmp_path)


def test_an_xlnet_is_read_as_published_or_not_at_all(tmp_path):
    config = micro(architecture="xlnet", type_vocab_size=0, vocab_size=UNIGRAM.size)
    params = random_params(bert.BertForSequenceClassification(config))
    write_folder(tmp_path, config, UNIGRAM, params, lowercase=False)
    with pytest.raises(UserError, match="no head to predict tokens with"):
        load(tmp_path).fill_mask(["<mask>"])
    edit(tmp_path / "config.json", attn_type="uni")
    with pytest.raises(UserError, match="attn_type is 'uni', expected 'bi'; a XLNet as published"):
        read_folder(tmp_path)
    edit(tmp_path / "config.json", attn_type="bi")
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"has no tokenizer\.json; load its tokenizer with transformers"):
        read_folder(tmp_path)


def test_the_oldest_files_name_no_kind_and_stay_as_they_are():
    values = json.loads(BPE.content)
    del values["model"]["type"]
    found = parse_subwords(json.dumps(values), "tokenizer.json")
    assert (type(found), found.tokens) == (type(BPE), BPE.tokens)
    assert "type" not in json.loads(found.content)["model"]
    assert found.tokenizer().encode("The file opens").ids == BPE.tokenizer().encode("The file opens").ids


def without(*tokens):
    """Return a tokenizer.json that lacks tokens."""
    values = json.loads(BPE.content)
    values["added_tokens"] = [each for each in values["added_tokens"] if each["content"] not in tokens]
    kept = [token for token in BPE.tokens if token not in tokens]
    values["model"]["vocab"] = {token: i for i, token in enumerate(kept)}
    values["post_processor"] = None
    return json.dumps(values)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is no tokenizer.json"),
        (
            json.dumps({**json.loads(BPE.content), "pre_tokenizer": {"type": "Whitespace"}}),
            "BPE with ByteLevel",
        ),
        (
            VOCABULARY.tokenizer().to_str(),
            "of a WordPiece tokenizer with BertPreTokenizer; expected RoBERTa's, BPE with ByteLevel, or",
        ),
        (without("<mask>", "</s>"), "has no </s>, <mask>; the model needs <pad>, <unk>, <s>, </s>, <mask>"),
    ],
)
def test_another_tokenizer_is_refused(content, said):
    with pytest.raises(UserError, match=said):
        parse_subwords(content, "tokenizer.json")


def test_padding_that_moves_positions_is_refused(tmp_path):
    write_roberta(tmp_path)
    edit(tmp_path / "config.json", pad_token_id=0)
    with pytest.raises(UserError, match="pad_token_id is 0, expected 1"):
        read_folder(tmp_path)
    edit(tmp_path / "config.json", pad_token_id=1)
    moved = BPE.content.replace('"<pad>"', '"<p>"').replace('"<unk>"', '"<pad>"').replace('"<p>"', '"<unk>"')
    (tmp_path / "tokenizer.json").write_text(moved)
    with pytest.raises(UserError, match="<pad> has the id 3, and positions are counted from id 1"):
        read_folder(tmp_path)


def test_a_pooler_of_its_own_is_left_out_by_name(tmp_path, capsys):
    """RoBERTas are saved with one that no classifier of theirs reads."""
    from safetensors.numpy import load_file, save_file

    write_roberta(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["roberta.pooler.dense.weight"] = np.zeros((32, 32), np.float32)
    save_file(state, tmp_path / "model.safetensors")
    assert "pooler" not in read_folder(tmp_path).params["bert"]
    assert "read without roberta.pooler.dense" in capsys.readouterr().err


def test_what_takes_word_piece_says_so(tmp_path, capsys):
    with pytest.raises(
        UserError, match=r"hash reads WordPiece tokens, and this vocabulary is byte-level BPE"
    ):
        bert.constants(micro(vocab_size=BPE.size, embedding="ngram_hash"), BPE)
    config = micro(vocab_size=BPE.size)
    with pytest.raises(
        UserError, match="A Bert reads WordPiece in transformers, and this model byte-level BPE"
    ):
        write_folder(tmp_path / "out", config, BPE, {}, lowercase=False)
    write_roberta(tmp_path / "roberta")
    words = [
        "embed",
        "--config=configs/embed.py",
        f"--from={tmp_path / 'roberta'}",
        f"--workdir={tmp_path / 'v'}",
    ]
    assert door([*words, "--config.max_length=16"]) == 2
    assert "reads byte-level BPE, and a student reads its teacher's rows" in capsys.readouterr().err
    words = ["export", f"--from={tmp_path / 'roberta'}", f"--workdir={tmp_path / 'e'}"]
    for target in ("onnx", "web"):
        assert door([*words, f"--to={target}"]) == 2
        assert "bert and distilbert, not" in capsys.readouterr().err


@pytest.mark.slow
def test_transformers_reads_the_same(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    write_roberta(tmp_path)
    config = micro(architecture="xlnet", type_vocab_size=0, vocab_size=UNIGRAM.size)
    params = random_params(bert.BertForTokenClassification(config))
    write_folder(tmp_path / "xlnet", config, UNIGRAM, params, lowercase=False)
    for vocabulary, folder in ((UNIGRAM, tmp_path / "xlnet"), (BPE, tmp_path)):
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        assert type(theirs).__name__ == vocabulary.tokenizer_class
        for second in (None, TEXTS[::-1]):
            expected = theirs(TEXTS, second, truncation="longest_first", max_length=24)
            encoded = encode_texts(TEXTS, second, vocabulary, 24)
            assert [ids.tolist() for ids in encoded.ids] == expected["input_ids"]
            if vocabulary is UNIGRAM:
                _, mask, types = gather(encoded, np.arange(len(TEXTS)), 24)
                found = [row[kept].tolist() for row, kept in zip(types, mask, strict=True)]
                assert found == expected["token_type_ids"]
    prompt = "a <mask> file"
    assert load(tmp_path).masked_ids(prompt).tolist() == theirs(prompt)["input_ids"]
