"""`eelbert prepare` on Apache Beam, by its direct runner: the bytes of the local engine, and nothing lost.

Beam and the rest of the test requirements cannot live in one environment, so these tests run in their own
(`make test-slow` makes it) and are skipped elsewhere.
"""

import importlib.util
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from eelbert_jax.corpus import storage
from eelbert_jax.errors import UserError
from eelbert_jax.jobs import prepare
from eelbert_jax.vocabulary import SPECIAL_TOKENS, Vocabulary, save_vocabulary
from support import processes

ROOT = Path(__file__).parents[2]
WORDS = tuple(f"word{number}" for number in range(100))
RUNNER = "--runner=FnApiRunner"
PROCESSES = f"{RUNNER} --direct_running_mode=multi_processing --direct_num_workers=2"

with_beam = pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None,
    reason="Apache Beam is not installed: `make test-slow` runs this in an environment of its own",
)


@pytest.fixture
def corpus(tmp_path):
    """Write six files of documents and a vocabulary, and return the folder."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(6):
        documents = (" ".join(generator.choice(WORDS, generator.integers(5, 100))) for _ in range(40))
        (folder / f"{number}.txt").write_text("\n\n".join(documents))
    save_vocabulary(Vocabulary((*SPECIAL_TOKENS, *WORDS)), folder / "vocab")
    return folder


def flags(corpus: Path, workdir: Path | str, *more: str) -> list[str]:
    """Return the command line of a small preparation, one unit a file."""
    return [
        f"--config.source={corpus}/*.txt",
        f"--config.vocabulary={corpus}/vocab",
        f"--workdir={workdir}",
        "--config.row_length=16",
        "--config.held_out.fraction=0.1",
        "--config.unit_mib.min=0.001",
        *more,
    ]


def on_beam(corpus: Path, workdir: Path | str, args: str = RUNNER) -> list[str]:
    return flags(corpus, workdir, "--config.engine=beam", f"--config.beam.args={args}")


def files_of(workdir: Path) -> dict[str, bytes]:
    """Return what a preparation made: shards, records, vocabulary, plan and manifest."""
    paths = [path for path in workdir.rglob("*") if path.is_file()]
    files = {path.relative_to(workdir).as_posix(): path.read_bytes() for path in paths}
    return {name: data for name, data in files.items() if name not in (".lock", ".job", "config.json")}


@pytest.fixture
def expected(corpus, tmp_path):
    """Return the files that the local engine makes."""
    prepare.main(flags(corpus, tmp_path / "local", "--config.workers=1"))
    return files_of(tmp_path / "local")


@with_beam
@pytest.mark.slow
@pytest.mark.parametrize("args", [RUNNER, PROCESSES], ids=["one process", "two processes"])
def test_beam_makes_the_bytes_of_the_local_engine(corpus, tmp_path, expected, args):
    prepare.main(on_beam(corpus, tmp_path / "rows", args))
    assert len(expected) == 6 * 3 + 3
    assert files_of(tmp_path / "rows") == expected


@with_beam
@pytest.mark.slow
def test_beam_makes_the_bytes_of_the_local_engine_of_real_text(data_dir, vocabulary_file, tmp_path):
    for engine in ("local", "beam"):
        words = [f"--config.engine={engine}", f"--workdir={tmp_path / engine}", "--config.workers=1"]
        source = f"--config.source={data_dir}/corpus/enwiki-00.txt.xz"
        prepare.main([*words, source, f"--config.vocabulary={vocabulary_file}"])
    assert files_of(tmp_path / "beam") == files_of(tmp_path / "local")
    assert len(files_of(tmp_path / "local")["train/000000.bin"]) > 5_000_000


@with_beam
@pytest.mark.slow
def test_beam_makes_the_same_in_an_object_store(corpus, expected):
    import fsspec

    prepare.main(on_beam(corpus, "memory://beam-test/rows"))
    store = fsspec.filesystem("memory")
    for name, data in expected.items():
        assert store.cat_file(f"/beam-test/rows/{name}") == data
    store.rm("/beam-test", recursive=True)


@with_beam
@pytest.mark.slow
def test_finished_units_are_skipped_whichever_engine_made_them(corpus, tmp_path, expected):
    rows = tmp_path / "rows"
    prepare.main(flags(corpus, rows, "--config.workers=1"))
    for name in ("manifest.json", "units/000001.json", "train/000001.bin", "units/000004.json"):
        (rows / name).unlink()
    before = {path: path.stat().st_mtime_ns for path in rows.glob("*/*")}
    prepare.main(on_beam(corpus, rows))
    assert files_of(rows) == expected
    written = {path.name[:6] for path in rows.glob("*/*") if path.stat().st_mtime_ns != before.get(path)}
    assert written == {"000001", "000004"}


@with_beam
@pytest.mark.slow
def test_killed_pipeline_goes_on_to_the_same_bytes(corpus, tmp_path):
    text = "\n\n".join((corpus / "0.txt").read_text().split("\n\n") * 100)
    for number in range(6):
        (corpus / f"large{number}.txt").write_text(f"{text} {number}")
    prepare.main(flags(corpus, tmp_path / "whole", "--config.workers=1"))
    rows = tmp_path / "rows"
    words = [sys.executable, "-m", "eelbert_jax", "prepare", *on_beam(corpus, rows, PROCESSES)]
    process = processes.start(words)[0]
    processes.wait_until(lambda: any(rows.glob("units/*.json")), [process])
    process.kill()
    process.communicate()
    assert not (rows / "manifest.json").exists(), "the kill came too late to test anything"
    prepare.main(on_beam(corpus, rows))
    assert files_of(rows) == files_of(tmp_path / "whole")


@with_beam
@pytest.mark.slow
@pytest.mark.parametrize("args", [RUNNER, PROCESSES], ids=["one process", "two processes"])
def test_bad_input_is_named_and_the_rest_is_kept(corpus, tmp_path, expected, args):
    content, status = (corpus / "4.txt").read_bytes(), (corpus / "4.txt").stat()
    (corpus / "4.txt").write_bytes(content[:100] + b"\xff" + content[101:])
    with pytest.raises(UserError, match=r"4\.txt, line 1, byte 101 of the line: invalid UTF-8"):
        prepare.main([*on_beam(corpus, tmp_path / "rows", args), "--config.on_bad_record=refuse"])
    records = sorted(path.name for path in (tmp_path / "rows/units").iterdir())
    assert records == sorted([f"00000{n}.json" for n in (0, 1, 2, 3, 5)] + ["000004.failed"])
    assert not (tmp_path / "rows/manifest.json").exists()
    (corpus / "4.txt").write_bytes(content)
    os.utime(corpus / "4.txt", ns=(status.st_atime_ns, status.st_mtime_ns))
    prepare.main(on_beam(corpus, tmp_path / "rows", args))
    assert files_of(tmp_path / "rows") == expected


@with_beam
@pytest.mark.slow
def test_a_full_disk_is_raised_for_the_runner_to_try_again_and_then_said(corpus, tmp_path, monkeypatch):
    from eelbert_jax.corpus import beam as beam_pipeline

    raised = []
    process = beam_pipeline.PrepareUnit.process

    def watched(self, element):
        try:
            yield from process(self, element)
        except UserError as error:
            raised.append(error)
            raise

    def full(temporary, path, put=storage.put):
        if path.endswith("3.bin"):
            raise OSError(28, "No space left on device", path)
        put(temporary, path)

    monkeypatch.setattr(beam_pipeline.PrepareUnit, "process", watched)
    monkeypatch.setattr(storage, "put", full)
    with pytest.raises(UserError, match=r"Cannot write to .*rows: No space left on device\. Make room"):
        prepare.main(on_beam(corpus, tmp_path / "rows"))
    assert raised, "a runner tries again what is raised"


@with_beam
@pytest.mark.slow
def test_machines_that_write_elsewhere_are_noticed(corpus, tmp_path, monkeypatch):
    from eelbert_jax.corpus import beam as beam_pipeline

    monkeypatch.setattr(beam_pipeline.PrepareUnit, "process", lambda self, element: iter(()))
    with pytest.raises(UserError, match=r"6 of 6 units have no record in .*rows.*shared file system"):
        prepare.main(on_beam(corpus, tmp_path / "rows"))


@with_beam
@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--runner=NoSuchRunner", r"refuses --config\.beam\.args='--runner=NoSuchRunner': .*NoSuchRunner"),
        (
            "--direct_num_workers=many",
            r"refuses --config\.beam\.args='--direct_num_workers=many': .* invalid int value",
        ),
    ],
)
def test_options_that_beam_refuses_are_said(corpus, tmp_path, args, message):
    with pytest.raises(UserError, match=message):
        prepare.main(on_beam(corpus, tmp_path / "rows", args))


def test_the_two_environments_differ_in_what_beam_asks_for_alone():
    def pins(name):
        return dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / name).read_text(), flags=re.MULTILINE))

    runtime, beam = pins("requirements.txt"), pins("requirements-beam.txt")
    assert runtime.keys() <= beam.keys()
    different = {name for name in runtime if runtime[name] != beam[name]}
    assert different == {"pillow", "protobuf", "pyarrow"}
    assert {"apache-beam", "pytest"} <= beam.keys()
