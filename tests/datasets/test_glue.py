import dataclasses

import numpy as np
import pytest

from eelbert_jax.datasets.glue import load_examples
from eelbert_jax.datasets.tables import Tally
from eelbert_jax.datasets.tasks import GLUE_TASKS, REGRESS
from eelbert_jax.errors import UserError

OFFICIAL = [task for task in GLUE_TASKS.values() if task.official]

ROW_COUNTS = {
    "cola": (8551, 1043, 1063),
    "sst2": (67349, 872, 1821),
    "mrpc": (3668, 408, 1725),
    "stsb": (5749, 1500, 1379),
    "rte": (2490, 277, 3000),
    "wnli": (635, 71, 146),
    "qnli": (None, 5463, 5463),
    "qqp_sample": (23496 - 2350, 2350, None),
    "ax": (None, None, 1104),
}
"""The official rows of train, dev and test; None: the split is not among the data that the tests may have."""

TEXTS = (
    'He said : "It is so .',  # a stray quote
    "",
    "   ",
    "two\u2028lines, \x85 and a \ufeffmark",
    "naïve café ",
    "plain",
    "a second plain one",
)


def write_table(path, header, rows, bom=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [header, *rows] if header else rows
    text = "".join("\t".join(map(str, line)) + "\n" for line in lines)
    path.write_bytes(b"\xef\xbb\xbf" * bom + text.encode())


def spelled(task, i):
    """A label of row i as the official files spell it."""
    if task.kind == REGRESS:
        return f"{i % 6 / 2:.3f}"
    return (task.submission_labels or task.labels)[i % task.num_labels]


def write_task(folder, task):
    """Write every split of a task as GLUE has it, with the oddities that occur in the real files."""
    for split, file in task.files:
        hidden = split in task.test_splits
        header = ["index", *task.text_columns] + ([] if hidden else [task.label_column])
        rows = [[i, *(TEXTS[(i + k) % len(TEXTS)] for k in range(len(task.text_columns)))] for i in range(9)]
        rows = [row if hidden else [*row, spelled(task, i)] for i, row in enumerate(rows)]
        if task.columns and not hidden:
            rows = [["gj04", row[2], "", row[1]] for row in rows]
            header = None
        elif split == "train" and task.name != "mrpc":  # whose TFDS builder cannot skip a row
            rows[4] = rows[4][:-1]  # without its label
            rows[6] = [*rows[6], "one field too many"]
        write_table(folder / task.folder / file, header, rows)


def write_mrpc_release(folder):
    """Write what MRPC's train and dev were taken from: one file with a mark, and the ids of dev."""
    lines = [
        line.split("\t")
        for split in ("train", "dev")
        for line in (folder / "MRPC" / f"{split}.tsv").read_text().split("\n")[1:-1]
    ]
    rows = [[label, i, i, first, second] for i, (_, first, second, label) in enumerate(lines)]
    header = ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"]
    write_table(folder / "MRPC" / "release.txt", header, rows, bom=True)
    write_table(folder / "MRPC" / "dev_ids.tsv", None, [[i, i] for i in range(9, 18)])


@pytest.fixture
def glue_dir(tmp_path):
    for task in OFFICIAL:
        write_task(tmp_path / "glue", task)
    write_mrpc_release(tmp_path / "glue")
    return tmp_path / "glue"


def assert_same(ours, theirs):
    assert ours.first == theirs.first
    assert ours.second == theirs.second
    np.testing.assert_array_equal(ours.ids, theirs.ids)
    if ours.labels is None:
        assert theirs.labels is None
    else:
        assert ours.labels.dtype == theirs.labels.dtype
        np.testing.assert_array_equal(ours.labels, theirs.labels)


# The two sources.


@pytest.fixture
def tfds_builder(glue_dir, monkeypatch, tmp_path):
    """Return where TFDS's own GLUE builders may prepare the folder: their parser is the judge of ours."""
    feed_tfds(glue_dir, monkeypatch)
    return tmp_path / "tfds"


def feed_tfds(glue_dir, monkeypatch):
    """Let the builders find local files where they would download."""
    pytest.importorskip("importlib_resources", reason="TFDS prepares its text datasets by it")
    import tensorflow_datasets as tfds
    import tensorflow_datasets.text.glue  # registers the builders in a process without TensorFlow

    mrpc = {"dev_ids": "dev_ids.tsv", "train": "release.txt", "test": "test.tsv"}
    sources = {name: glue_dir / "MRPC" / file for name, file in mrpc.items()}

    def download(manager, urls):
        return sources if isinstance(urls, dict) else glue_dir / "diagnostic" / "diagnostic.tsv"

    monkeypatch.setattr(tfds.download.DownloadManager, "download", download)
    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", lambda manager, url: glue_dir)
    tfds.disable_progress_bar()


@pytest.mark.parametrize("task", OFFICIAL, ids=lambda task: task.name)
def test_tfds_and_the_folder_give_the_same_examples(task, glue_dir, tfds_builder):
    for split in task.splits:
        ours = load_examples(task, split, glue_dir=str(glue_dir))
        theirs = load_examples(task, split, glue_dir=None, tfds_data_dir=str(tfds_builder))
        if task.name == "mrpc" and split == "dev":  # TFDS numbers the release
            theirs = dataclasses.replace(theirs, ids=theirs.ids - 9)
        assert_same(ours, theirs)
        skips = split == "train" and not task.columns and task.name != "mrpc"
        assert ours.tally.skipped_rows == skips
        if task.kind == REGRESS:  # elsewhere TFDS has left the row out itself
            assert theirs.tally.skipped_rows == skips
        assert len(ours) == 9 - skips


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cola", "stsb", "rte", "wnli"])
def test_tfds_and_the_folder_agree_on_the_official_files(name, data_dir, monkeypatch, tmp_path):
    feed_tfds(data_dir / "glue", monkeypatch)
    for split in GLUE_TASKS[name].splits:
        ours = load_examples(GLUE_TASKS[name], split, glue_dir=str(data_dir / "glue"))
        theirs = load_examples(GLUE_TASKS[name], split, glue_dir=None, tfds_data_dir=str(tmp_path))
        assert_same(ours, theirs)


def test_tfds_is_refused_where_it_numbers_the_classes_otherwise(tfds_builder):
    task = GLUE_TASKS["rte"]
    other = dataclasses.replace(task, labels=task.labels[::-1])
    with pytest.raises(UserError, match="another order"):
        load_examples(other, "dev", glue_dir=None, tfds_data_dir=str(tfds_builder))


def test_tfds_in_a_format_that_needs_tensorflow_says_so(tfds_builder, monkeypatch):
    import tensorflow_datasets as tfds

    def refuse(builder, split):
        raise NotImplementedError

    monkeypatch.setattr(tfds.core.DatasetBuilder, "as_data_source", refuse)
    with pytest.raises(UserError, match="--file_format=array_record"):
        load_examples(GLUE_TASKS["wnli"], "dev", glue_dir=None, tfds_data_dir=str(tfds_builder))


def test_tfds_that_cannot_download_says_what_to_do(tmp_path, monkeypatch):
    pytest.importorskip("importlib_resources", reason="TFDS prepares its text datasets by it")
    import tensorflow_datasets as tfds

    def refuse(manager, url):
        raise OSError("no route to host")

    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", refuse)
    with pytest.raises(UserError, match=r"glue/rte.*no route to host.*glue_dir"):
        load_examples(GLUE_TASKS["rte"], "dev", glue_dir=None, tfds_data_dir=str(tmp_path))


# The real files.


@pytest.mark.parametrize("name", ROW_COUNTS)
def test_row_counts_of_the_official_files(name, data_dir):
    task = GLUE_TASKS[name]
    for split, count in zip(("train", "dev", "test"), ROW_COUNTS[name], strict=True):
        if count is not None:
            examples = load_examples(task, split, glue_dir=str(data_dir / "glue"))
            assert len(examples) == len(examples.ids) == examples.tally.examples == count, split
            assert (examples.labels is None) == (split == "test")
            assert not examples.tally.skipped_rows
            assert not examples.tally.extra_fields


def test_the_mark_before_mrpc_dev_is_counted(data_dir):
    examples = load_examples(GLUE_TASKS["mrpc"], "dev", glue_dir=str(data_dir / "glue"))
    assert examples.tally.byte_order_marks == 1
    assert examples.labels is not None
    assert round(float(examples.labels.mean()), 3) == 0.684  # the majority class of the papers' tables


def test_ids_are_the_index_of_the_test_files(data_dir):
    for name in ("cola", "rte", "stsb"):
        path = data_dir / "glue" / GLUE_TASKS[name].folder / "test.tsv"
        index = [int(line.split("\t")[0]) for line in path.read_text().splitlines()[1:]]
        examples = load_examples(GLUE_TASKS[name], "test", glue_dir=str(data_dir / "glue"))
        assert examples.ids.tolist() == index


# The rule that divides a training file.


def test_every_tenth_row_is_held_out(tmp_path):
    rows = [[i, 0, 0, f"first {i}", f"second {i}", i % 2] for i in range(25)]
    write_table(tmp_path / "QQP" / "train_sample.tsv", None, rows)
    task = GLUE_TASKS["qqp_sample"]
    train, dev = (load_examples(task, split, glue_dir=str(tmp_path)) for split in ("train", "dev"))
    assert dev.ids.tolist() == [0, 10, 20]
    assert sorted([*train.ids, *dev.ids]) == list(range(25))
    assert dev.first[1] == "first 10"


# Bad input.


def write_rte(folder, rows, split="dev", header=("index", "sentence1", "sentence2", "label"), **options):
    write_table(folder / "RTE" / f"{split}.tsv", list(header), rows, **options)


def load_rte(folder, split="dev"):
    return load_examples(GLUE_TASKS["rte"], split, glue_dir=str(folder))


def test_a_missing_field_is_skipped_in_training_and_refused_in_evaluation(tmp_path):
    rows = [[0, "a", "b", "entailment"], [1, "a", "b"], [2, "a"], [3, "c", "d", "not_entailment"]]
    write_rte(tmp_path, rows, "train")
    train = load_rte(tmp_path, "train")
    assert train.ids.tolist() == [0, 3]
    assert train.labels.tolist() == [0, 1]
    assert "skipped rows: 2" in train.tally.describe()
    write_rte(tmp_path, rows, "dev")
    with pytest.raises(UserError, match=r"dev.tsv, line 3: 'label' is missing"):
        load_rte(tmp_path)
    write_rte(tmp_path, [[0, "a", "b"], [1, "a"]], "test", ("index", "sentence1", "sentence2"))
    with pytest.raises(UserError, match=r"test.tsv, line 3: 'sentence2' is missing"):
        load_rte(tmp_path, "test")


def test_a_wrong_label_names_the_line_and_the_legal_ones(tmp_path):
    write_rte(tmp_path, [[0, "a", "b", "entailment"], [1, "a", "b", "perhaps"]], "train")
    with pytest.raises(UserError, match=r"train.tsv, line 3: 'perhaps'.*entailment, not_entailment"):
        load_rte(tmp_path, "train")
    rows = [[i, *["x"] * 6, "a", "b", score] for i, score in enumerate(("4.2", "five"))]
    header = ["index", *"ghijkl", "sentence1", "sentence2", "score"]
    for bad in ("five", "nan", "inf"):
        rows[1][-1] = bad
        write_table(tmp_path / "STS-B" / "dev.tsv", header, rows)
        with pytest.raises(UserError, match=rf"line 3: '{bad}'.*finite number"):
            load_examples(GLUE_TASKS["stsb"], "dev", glue_dir=str(tmp_path))


def test_marks_quotes_and_empty_texts_are_kept_and_counted(tmp_path):
    rows = [[0, 'a "stray', "b", "0"], [1, '"', "", "1"], [2, "  ", 'two "quotes"', "entailment"]]
    write_rte(tmp_path, rows, bom=True)
    path = tmp_path / "RTE" / "dev.tsv"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    examples = load_rte(tmp_path)
    assert examples.first == ('a "stray', '"', "  ")
    assert examples.second == ("b", "", 'two "quotes"')
    expected = Tally(examples=3, byte_order_marks=1, unbalanced_quotes=2, empty_texts=2, blank_lines=1)
    assert examples.tally == expected


def test_a_tab_inside_a_text_is_counted_or_found_by_the_label(tmp_path):
    write_rte(tmp_path, [[0, "a", "b", "0", "more"]])
    assert load_rte(tmp_path).tally.extra_fields == 1
    write_rte(tmp_path, [[0, "a", "tab", "b", "0"]])
    with pytest.raises(UserError, match=r"'b' is no label.*A tab inside"):
        load_rte(tmp_path)


def test_a_folder_without_a_dev_file_says_what_it_holds(tmp_path):
    write_rte(tmp_path, [[0, "a", "b", "0"]], "train")
    with pytest.raises(UserError, match=r"'rte' has no dev.tsv .* holds train.tsv"):
        load_rte(tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        load_examples(GLUE_TASKS["mnli"], "train", glue_dir=str(tmp_path))
    with pytest.raises(UserError, match="task=qqp_sample"):
        load_examples(GLUE_TASKS["qqp"], "train", glue_dir=str(tmp_path))
    with pytest.raises(UserError, match="glue_dir"):
        load_examples(GLUE_TASKS["qqp_sample"], "train", glue_dir=None)
    with pytest.raises(UserError, match="no split 'validation'; it has train, dev, test"):
        load_rte(tmp_path, "validation")


def test_a_file_without_its_header_or_rows_is_refused(tmp_path):
    write_table(tmp_path / "RTE" / "dev.tsv", None, [[0, "a", "b", "0"]])
    with pytest.raises(UserError, match="no column 'sentence1'"):
        load_rte(tmp_path)
    write_rte(tmp_path, [])
    with pytest.raises(UserError, match="has no example"):
        load_rte(tmp_path)
    (tmp_path / "RTE" / "dev.tsv").write_bytes(b"")
    with pytest.raises(UserError, match="no column"):
        load_rte(tmp_path)


def test_invalid_utf8_names_the_line(tmp_path):
    write_rte(tmp_path, [[0, "a", "b", "0"], [1, "c", "d", "1"]])
    path = tmp_path / "RTE" / "dev.tsv"
    path.write_bytes(path.read_bytes().replace(b"\tc\t", b"\t\xe9\t"))
    with pytest.raises(UserError, match=r"line 3: invalid UTF-8, byte 0xe9"):
        load_rte(tmp_path)
