"""Datasets of TFDS as a source of text."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eelbert_jax.corpus.documents import ReadOptions, ReadTally
from eelbert_jax.corpus.rows import Rows
from eelbert_jax.corpus.sources import SourceOptions, find_units
from eelbert_jax.errors import UserError
from eelbert_jax.jobs import prepare

BUILDER = '''
import sys
import numpy as np
import tensorflow_datasets as tfds

class LocalText(tfds.core.GeneratorBasedBuilder):
    """A few documents."""
    VERSION = tfds.core.Version("1.0.0")
    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({"body": tfds.features.Text(), "number": np.int64}),
        )
    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(40), "test": self._generate_examples(3)}
    def _generate_examples(self, count):
        for number in range(count):
            yield number, {"body": f"Document {number}.\\nIts naïve second line.", "number": number}

LocalText(data_dir=sys.argv[1], file_format="array_record").download_and_prepare()
'''


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    """A TFDS dataset, built by a process of its own, so that ours knows it by its name and files alone."""
    folder = tmp_path_factory.mktemp("tfds")
    (folder / "build.py").write_text(BUILDER)
    subprocess.run([sys.executable, folder / "build.py", folder / "data"], check=True, capture_output=True)
    return folder / "data"


def tfds_options(folder: Path, split: str = "train", units: int = 1) -> SourceOptions:
    return SourceOptions(
        tfds_data_dir=str(folder),
        tfds_split=split,
        tfds_download=False,
        min_unit_bytes=1000,
        max_unit_bytes=1000,
    )


def read_tfds(name, options, **reading):
    read_options = ReadOptions(**reading)
    units = find_units(name, options, read_options)
    tallies = [ReadTally() for _ in units]
    chunks = [list(unit.read(read_options, tally)) for unit, tally in zip(units, tallies, strict=True)]
    assert [tally.num_bytes for tally in tallies] == [unit.num_bytes for unit in units]
    return units, chunks


def test_tfds_dataset_by_name_is_a_document_an_example(tfds_folder):
    units, chunks = read_tfds("local_text", tfds_options(tfds_folder))
    assert len(units) > 1
    texts = [chunk.text for unit in chunks for chunk in unit]
    assert all(chunk.starts_document for unit in chunks for chunk in unit)
    assert sorted(texts) == sorted(f"Document {n}.\nIts naïve second line.\n" for n in range(40))
    assert units[0].describe()["dataset"] == "local_text/1.0.0"
    _, part = read_tfds("local_text:1.0.0", tfds_options(tfds_folder, "train[:25%]"))
    assert [chunk.text for unit in part for chunk in unit] == texts[:10]


def test_tfds_does_not_import_tensorflow(tfds_folder):
    code = (
        "import sys; from eelbert_jax.corpus.sources import *; from eelbert_jax.corpus.documents import *; "
        f"find_units('local_text', SourceOptions(tfds_data_dir={str(tfds_folder)!r}), ReadOptions()); "
        "print('tensorflow_datasets' in sys.modules, 'tensorflow' in sys.modules, 'jax' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert shown.split() == ["True", "False", "False"]


@pytest.mark.parametrize(
    ("name", "split", "field", "message"),
    [
        ("no_such_dataset", "train", "", "No file matches 'no_such_dataset', and TFDS has no such dataset"),
        ("lm1b", "train", "", "not prepared in .*tfds.download"),
        ("local_text", "validation", "", "no split 'validation'; it has test, train"),
        ("local_text", "train", "title", "string features are body.*text_field"),
    ],
)
def test_tfds_errors_say_what_there_is(tfds_folder, name, split, field, message):
    with pytest.raises(UserError, match=message):
        read_tfds(name, tfds_options(tfds_folder, split), text_field=field)


def test_tfds_dataset_that_cannot_be_fetched_says_what_to_do(tfds_folder, monkeypatch):
    import tensorflow_datasets as tfds

    def fail(builder):
        raise ModuleNotFoundError("No module named 'apache_beam'")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    options = SourceOptions(tfds_data_dir=str(tfds_folder))
    with pytest.raises(UserError, match=r"could not fetch wiki40b/en .*apache_beam.*tfds build.*data_dir"):
        find_units("wiki40b/en", options, ReadOptions())


@pytest.mark.slow
def test_tfds_name_goes_straight_into_the_job(tfds_folder, tmp_path):
    """The workers find the dataset again by its name."""
    prepare.main(
        [
            "--config.source=local_text",
            f"--config.tfds.data_dir={tfds_folder}",
            "--config.train_vocabulary.size=100",
            "--config.row_length=8",
            "--config.held_out.fraction=0.2",
            "--config.unit_mib.min=0.001",
            "--config.workers=2",
            f"--workdir={tmp_path / 'rows'}",
        ]
    )
    splits = [Rows.open(tmp_path / "rows", split) for split in ("train", "heldout")]
    assert len(splits[0].manifest["splits"]["train"]["shards"]) > 1
    assert sum(split["num_documents"] for split in splits[0].manifest["splits"].values()) == 40
    text = " ".join(splits[0].decode(splits[0][np.arange(len(splits[0]))]))
    assert "its naive second line" in text
