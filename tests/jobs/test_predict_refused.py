"""What `eelbert predict` refuses: each with one clear error."""

import pytest

from eelbert_jax.errors import UserError
from eelbert_jax.jobs import predict
from support.predictions import stdin


@pytest.mark.parametrize(
    ("words", "content", "said"),
    [
        ((), b"", "There is no text to answer"),
        ((), b"the file\n\nthe table\n", "standard input, line 2 is ''; expected a text"),
        ((), b"the file\na\tb\tc\n", r"standard input, line 2 is 'a\\tb\\tc'"),
        ((), b"the \xff file\n", "standard input, line 1 is no UTF-8"),
        ((), b"the file\ta table\n", r"line 1: a model for sst2 reads one text \(.*text_column\); got two"),
        (("--text=the", "--second_text=a"), b"", "--text: a model for sst2 reads one text .*; got two"),
        (("--text=the caf\udce9",), b"", r"--text is no UTF-8 text \('the caf\\udce9'\)"),
        (("--text=  ",), b"", "--text is blank"),
        (("--text=the", "--embed", "--fill_mask"), b"", "ask for two things"),
        (("--text=the", "--output=x.txt"), b"", r"ends in \.jsonl, \.tsv or \.npy"),
        (("--text=the", "--output=nowhere/x.tsv"), b"", "Cannot write nowhere/x.tsv: No such file"),
        (("--text=the", "--output=/dev/null/x.npy"), b"", "Cannot write"),
        (("--text=the", "--file=texts"), b"", "both name texts"),
        (("--second_text=the",), b"", "--second_text goes with --text"),
        (("--file=nowhere/texts",), b"", "Cannot read nowhere/texts: No such file"),
        (("--text=the", "--top=0"), b"", "--top=0 shows nothing"),
        (("--text=the [MASK]", "--fill_mask"), b"", "fine-tuned on sst2; a pre-trained one is needed"),
    ],
)
def test_bad_input_of_a_classifier_is_named(sst2, monkeypatch, words, content, said):
    stdin(monkeypatch, content)
    with pytest.raises(UserError, match=said):
        predict.main([f"--checkpoint={sst2}", *words])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--text=the [MASK]",), "holds no fine-tuned model: run `eelbert finetune"),
        (
            ("--text=the file", "--fill_mask"),
            r"'the file' must have a \[MASK\] and at most 512 tokens; it has 0",
        ),
        (("--text=" + "[MASK] " * 600, "--fill_mask"), r"\.\.\.' must have .* it has 600 and 602"),
        (("--text=[MASK]", "--second_text=a", "--fill_mask"), "--fill_mask reads one text .*; got two"),
        (("--text=[MASK]", "--fill_mask", "--top=99"), "99 tokens a mask; take 1 to 16"),
    ],
)
def test_bad_input_of_a_mask_filler_is_named(pretrained, words, said):
    with pytest.raises(UserError, match=said):
        predict.main([f"--checkpoint={pretrained}", *words])


def test_pairs_are_asked_for(mnli):
    with pytest.raises(UserError, match=r"model for mnli reads two texts: .* a tab between them; got one"):
        predict.main([f"--checkpoint={mnli}", "--text=the file"])


def test_missing_checkpoints_are_named(tmp_path):
    with pytest.raises(UserError, match="add --checkpoint=DIR"):
        predict.main(["--text=the"])
    for more in ((), ("--fill_mask",)):
        with pytest.raises(UserError, match=f"No checkpoints at {tmp_path}"):
            predict.main([f"--checkpoint={tmp_path}", "--text=the", *more])


def test_files_that_do_not_suit_the_answers_are_named(sst2, tagger, tmp_path):
    for checkpoint, suffix, said in ((sst2, "npy", "is for --embed"), (tagger, "tsv", "is for labels")):
        with pytest.raises(UserError, match=said):
            predict.main([f"--checkpoint={checkpoint}", "--text=the", f"--output={tmp_path / 'x'}.{suffix}"])
