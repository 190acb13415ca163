"""Words with tags: learning entities that rules make, resuming, tags per word, refusing bad files."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from eelbert_jax import cli
from eelbert_jax.__main__ import main
from eelbert_jax.datasets.encoding import IGNORED, eval_batches
from eelbert_jax.datasets.metrics import entity_f1
from eelbert_jax.datasets.splits import Split, load_data, make_batch
from eelbert_jax.errors import UserError
from eelbert_jax.inference.load import load
from eelbert_jax.jobs.finetune import finetune, set_up
from eelbert_jax.reporting.runs import find_runs
from eelbert_jax.vocabulary import SPECIAL_TOKENS, load_vocabulary
from support.workdirs import cut_at

FIRST, LAST = ("ada", "alan", "grace", "kurt"), ("hopper", "turing", "godel", "byron")
CITIES, VERBS = ("paris", "rome", "oslo", "kyoto"), ("visited", "left", "saw")
LABELS = ("O", "B-LOC", "B-PER", "I-PER")
WORDS = (*FIRST, *LAST, *CITIES, *VERBS, "the", "new", "train", ".")


def sentence(random) -> list[tuple[str, str]]:
    """Return words and tags: one name or two make a person, "new" belongs to no city."""
    person = [(str(random.choice(FIRST)), "B-PER")]
    if random.random() < 0.5:
        person.append((str(random.choice(LAST)), "I-PER"))
    thing = [("the", "O"), ("new", "O"), ("train", "O")]
    where = [(f"{random.choice(CITIES)}", "B-LOC")]
    what = where if random.random() < 0.7 else thing
    return [*person, (str(random.choice(VERBS)), "O"), *what, (".", "O")]


def columns(sentences) -> str:
    """Return sentences as CoNLL-2003 has them: word, two columns of no interest, tag."""
    lines = ["\n".join(f"{word} NN x {tag}" for word, tag in words) for words in sentences]
    return "-DOCSTART- -X- O O\n\n" + "\n\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """Write a vocabulary, in which some words have two pieces, a training file and a development file."""
    folder = tmp_path_factory.mktemp("files")
    cut = {word: (word[:2], f"##{word[2:]}") for word in ("turing", "kyoto", "grace")}
    tokens = [token for word in WORDS for token in cut.get(word, (word,))]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in (*SPECIAL_TOKENS, *tokens)))
    random = np.random.default_rng(0)
    (folder / "train.txt").write_text(columns([sentence(random) for _ in range(400)]))
    # Its first sentence has a place before any person: tags come in another order than in training.
    first = [("rome", "B-LOC"), ("saw", "O"), ("ada", "B-PER"), ("byron", "I-PER")]
    (folder / "dev.txt").write_text(columns([first, *(sentence(random) for _ in range(59))]))
    return {path.stem: str(path) for path in folder.iterdir()}


def small(files: dict[str, str], **changes):
    config = cli.load_config("configs/glue.py:micro,task=tokens")
    config.vocabulary = files["vocab"]
    config.tokens.train, config.tokens.dev = files["train"], files["dev"]
    config.num_epochs, config.batch_size, config.max_length = 3, 16, 16
    config.log_every_steps = 1
    config.opt.learning_rate = 5e-3
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def run(files, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    finetune(small(files), folder)
    return folder


def test_it_learns_whole_entities(run):
    result = json.loads((run / "result.json").read_text())
    assert result["metrics"]["entity_f1"] > 0.95
    assert result["metrics"]["accuracy"] > 0.95
    assert result["selection"] == "best dev step by entity_f1"
    assert result["majority"]["entity_f1"] == 0.0
    assert 0.3 < result["majority"]["accuracy"] < 0.8
    assert result["num_examples"] == {"train": 400, "dev": 60}
    assert not result["degenerate"]
    (found,) = find_runs(str(run.parent)).finetuning
    assert found.task.endswith("train.txt")
    assert set(found.result.data) == {"train", "dev"}
    model = load(run)
    assert model.task.labels == LABELS
    assert "pooler" not in model.params["bert"]
    assert found.result.model.parameters == sum(leaf.size for leaf in jax.tree.leaves(model.params))


def test_resume_is_bitwise(files, run, tmp_path):
    whole = json.loads((run / "result.json").read_text())
    with cut_at(60):
        finetune(small(files), tmp_path)
    parts = finetune(small(files), tmp_path)
    same = ("metrics", "final_metrics", "best_step", "total_steps")
    assert {name: getattr(parts, name) for name in same} == {name: whole[name] for name in same}


def test_training_counts_the_first_piece_of_every_word(files):
    config = small(files)
    data = load_data(config.to_dict(), load_vocabulary(files["vocab"]), lowercase=True)
    num_words = 0
    for batch in eval_batches(data.train.encoded, config.batch_size):
        made = make_batch(data.train, batch)
        assert np.array_equal(made.weights > 0, (made.labels != IGNORED) & (batch.weights > 0)[:, None])
        num_words += int(made.weights.sum())
    assert num_words == sum(map(len, data.train.labels))


def test_words_that_are_cut_off_still_count(files):
    objective, *_ = set_up(small(files, max_length=4))
    dev = objective.data.dev["dev"]
    truth = [[LABELS[i] for i in tags] for tags in dev.labels]

    def perfect(batch):
        return np.eye(len(LABELS), dtype=np.float32)[batch.labels]

    answers = objective.predictions(perfect, dev)
    assert [len(tags) for tags in answers] == [len(tags) for tags in truth]
    seen = [len(starts) for starts in dev.encoded.word_starts]
    assert max(map(len, truth)) > max(seen)
    kept = [[*tags[:n], *["O"] * (len(tags) - n)] for tags, n in zip(truth, seen, strict=True)]
    scores = objective.scores(answers, dev)
    assert scores["entity_f1"] == entity_f1(kept, truth) < 1.0
    assert scores["accuracy"] == sum(seen) / sum(map(len, truth))
    assert objective.majority_scores()["entity_f1"] == 0.0


def test_predict_prints_a_tag_a_word(run, capsys):
    words = ["predict", f"--checkpoint={run}", "--text=Grace Turing left Kyoto ."]
    assert main(words) == 0
    lines = capsys.readouterr().out.split("\n")
    assert lines[5:] == ["", ""]
    rows = [line.split("\t") for line in lines[:5]]
    assert [row[0] for row in rows] == ["Grace", "Turing", "left", "Kyoto", "."]
    assert [row[1] for row in rows] == ["B-PER", "I-PER", "O", "B-LOC", "O"]
    assert all(0.25 < float(row[2]) <= 1.0 for row in rows)
    assert main([*words, "--top=2"]) == 0
    assert len(capsys.readouterr().out.split("\n")[0].split("\t")) == 5
    assert main([*words, "--json"]) == 0
    (record,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert [word["tag"] for word in record["words"]] == [row[1] for row in rows]
    for word in record["words"]:
        assert sum(word["probabilities"].values()) == pytest.approx(1.0)
        assert max(word["probabilities"].values()) == word["probability"]


def test_predict_says_which_words_were_not_read(run, tmp_path, capsys):
    (tmp_path / "long.txt").write_text("ada " * 20 + "\nada left .\n")
    assert main(["predict", f"--checkpoint={run}", f"--file={tmp_path / 'long.txt'}"]) == 0
    blocks = capsys.readouterr().out.rstrip("\n").split("\n\n")
    long, short = (block.split("\n") for block in blocks)
    assert (len(long), len(short)) == (20, 3)
    assert [line.split("\t")[1] == "-" for line in long] == [False] * 14 + [True] * 6


def test_other_tags_are_scored_by_accuracy(files, tmp_path):
    text = Path(files["train"]).read_text()
    for tag, part_of_speech in (("B-PER", "NNP"), ("I-PER", "NNPS"), ("B-LOC", "NN"), (" O\n", " VB\n")):
        text = text.replace(tag, part_of_speech)
    (tmp_path / "pos.txt").write_text(text)
    pos = str(tmp_path / "pos.txt")
    config = small(files, **{"tokens.train": pos, "tokens.dev": pos})
    data = load_data(config.to_dict(), load_vocabulary(files["vocab"]), lowercase=True)
    assert data.task.metrics == ("accuracy",)


@pytest.mark.parametrize(
    ("split", "text", "message"),
    [
        ("dev", "ada NN x B-PER\nleft\n", r"dev\.txt, line 2: 1 column in 'left'"),
        ("dev", "ada NN x B-PER\nleft NN x B-ORG\n", r"dev\.txt, line 2: 'B-ORG' is none of the tags O,"),
        ("train", "ada x O\nleft x O\n", "one tag alone, 'O'"),
        ("train", "\n\n", "has no sentence"),
    ],
)
def test_a_bad_file_is_one_clear_error(files, tmp_path, split, text, message):
    path = tmp_path / f"{split}.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        finetune(small(files, **{f"tokens.{split}": str(path)}), tmp_path / "run")


@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_file_that_is_not_named_is_asked_for(files, tmp_path, split):
    config = small(files)
    config.tokens[split] = None
    with pytest.raises(UserError, match=rf"set --config\.tokens\.{split}=FILE"):
        finetune(config, tmp_path)


def test_tags_in_another_order_are_not_the_checkpoints(files, run):
    """Outputs have numbers alone: another order would exchange the tags silently."""
    config = small(files, **{"tokens.labels": ",".join(reversed(LABELS))})
    with pytest.raises(UserError, match="labels"):
        finetune(config, run)
    other = load_data(config.to_dict(), load_vocabulary(files["vocab"]), lowercase=True)
    usual = load_data(small(files).to_dict(), load_vocabulary(files["vocab"]), lowercase=True)
    assert usual.task.labels == LABELS == other.task.labels[::-1]
    for split in ("train", "dev"):
        found, reverse = ({"train": data.train, **data.dev}[split] for data in (usual, other))
        assert all(np.array_equal(a, 3 - b) for a, b in zip(found.labels, reverse.labels, strict=True))


def test_hidden_tags_make_no_labels(files):
    data = load_data(small(files).to_dict(), load_vocabulary(files["vocab"]), lowercase=True)
    dev = Split(data.dev["dev"].encoded, None)
    made = make_batch(dev, eval_batches(dev.encoded, 4)[0])
    assert made.labels.shape == (4,)


def test_jobs_for_texts_refuse_words(tmp_path):
    words = ["--config=configs/glue.py:micro,task=tokens", f"--workdir={tmp_path}"]
    assert main(["baseline", *words]) == 2
