"""Small models that answer."""

import pytest

from support.models import NLI_LABELS, save_finetuned, save_pretrained


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def sst2(folder):
    return save_finetuned(folder / "sst2", "sst2", "classify", ("negative", "positive"))


@pytest.fixture(scope="module")
def mnli(folder):
    return save_finetuned(folder / "mnli", "mnli", "classify", NLI_LABELS, pairs=True)


@pytest.fixture(scope="module")
def stsb(folder):
    return save_finetuned(folder / "stsb", "stsb", "regress", pairs=True)


@pytest.fixture(scope="module")
def tagger(folder):
    return save_finetuned(folder / "tagger", "tokens", "tag", ("O", "B-X"), max_length=12)


@pytest.fixture(scope="module")
def pretrained(folder):
    return save_pretrained(folder / "pretrained")
