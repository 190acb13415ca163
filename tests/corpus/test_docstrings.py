"""Documentation of the packages on this machine as a source of text."""

import textwrap

import pytest

from eelbert_jax.corpus import docstrings
from eelbert_jax.corpus.docstrings import documentation
from eelbert_jax.corpus.documents import ReadOptions, ReadTally
from eelbert_jax.corpus.sources import SourceOptions, find_units
from eelbert_jax.errors import UserError


def test_documentation_of_a_module_is_its_docstrings_in_order(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        textwrap.dedent(
            '''
            """Module."""
            raise RuntimeError("this must not run")
            class A:
                """Class."""
                def method(self):
                    """Method,

                    indented.
                    """
            async def f():
                """Function."""
            '''
        )
        + f"def long():\n    '''{' '.join(['Long.'] * 50)}'''\n"
    )
    expected = ["Module.", "Class.", "Method,", "", "indented.", "Function.", " ".join(["Long."] * 50)]
    assert documentation(path).split("\n") == expected


@pytest.mark.parametrize("content", ["'''Short.'''", "this is no Python(", "x = '\0'", ""])
def test_modules_without_running_text_have_no_documentation(tmp_path, content):
    (tmp_path / "module.py").write_text(content)
    assert documentation(tmp_path / "module.py") == ""


def test_documentation_of_this_machine_is_found_in_a_fixed_order():
    options = SourceOptions(docs_bytes=2 << 20, min_unit_bytes=1 << 19)
    units = find_units("docs", options, ReadOptions())
    assert [unit.describe() for unit in units] == [
        unit.describe() for unit in find_units("docs", options, ReadOptions())
    ]
    paths = [path for unit in units for path, _ in unit.describe()["files"]]
    assert paths == sorted(paths), "the standard library alone fills this limit"
    assert sum(unit.num_bytes for unit in units) <= 2 << 20
    text = "".join(chunk.text for unit in units for chunk in unit.read(ReadOptions(), ReadTally()))
    assert "Heap queue" in text or "abstract base class" in text.lower()


def test_packages_on_this_machine_have_their_descriptions():
    files = [path for _, path, _ in docstrings._installed_files()]
    assert any(path.startswith("numpy-") and path.endswith("METADATA") for path in files)
    assert any(path.startswith("numpy/") for path in files)
    assert not any("/tests/" in path for path in files)


def test_too_small_a_limit_of_documentation_is_refused():
    with pytest.raises(UserError, match="max_mib"):
        find_units("docs", SourceOptions(docs_bytes=1), ReadOptions())
