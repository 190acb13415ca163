"""The door and the parser: help without JAX, every bad word one clear line with exit status 2."""

import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest

from eelbert_jax import cli
from eelbert_jax.__main__ import main
from eelbert_jax.errors import UserError

CONFIG = """
from ml_collections import config_dict
from eelbert_jax.errors import UserError

def get_config(recipe="small"):
    if recipe not in ("small", "large,wide"):
        raise UserError(f"Unknown recipe word {recipe!r}; known: small, large, wide.")
    config = config_dict.ConfigDict({"recipe": recipe, "opt": {"learning_rate": 1e-4, "betas": (0.9, 0.999)}})
    config.opt.total_steps = 100
    config.opt.warmup_steps = config.opt.get_ref("total_steps") // 10
    config.scan = False
    config.vocabulary = config_dict.placeholder(str)
    config.seed = config_dict.placeholder(int)
    config.untyped = None
    return config
"""
ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("jax", "jaxlib", "flax", "optax", "orbax", "tensorflow_datasets", "tokenizers")


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    return str(path)


def parse(config, *words):
    return cli.parse("pretrain", [f"--config={config}", "--workdir=w", *words])


def test_overrides_reach_the_config_and_what_is_derived_from_it(config_file):
    config, workdir, _ = parse(
        config_file,
        "--config.opt.learning_rate=3e-4",
        "--config.opt.total_steps",
        "900",
        "--config.opt.betas=(0.8, 0.98)",
        "--config.scan",
        "--config.vocabulary=v.txt",
        "--config.seed=7",
    )
    assert (config.opt.learning_rate, config.opt.total_steps, config.opt.warmup_steps) == (3e-4, 900, 90)
    assert (config.opt.betas, config.scan, config.vocabulary, config.seed) == ((0.8, 0.98), True, "v.txt", 7)
    assert workdir == "w"


def test_defaults_stay_and_two_parses_do_not_meet(config_file):
    changed = parse(config_file, "--config.scan=true").config
    untouched = parse(config_file, "--noconfig.scan").config
    assert changed.scan
    assert not untouched.scan
    assert untouched.vocabulary is None
    assert untouched.recipe == "small"


def test_recipe_is_handed_to_get_config(config_file):
    assert parse(f"{config_file}:large,wide").config.recipe == "large,wide"


def test_config_may_follow_its_overrides(config_file):
    argv = ["--config.seed=3", "--workdir", "w", "--config", config_file]
    assert cli.parse("pretrain", argv).config.seed == 3


def test_config_is_locked(config_file):
    with pytest.raises(AttributeError):
        parse(config_file).config.opt.learning_rat = 1.0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["--config.opt.learning_rat=1"],
            r"'config.opt.learning_rat'; did you mean 'config.opt.learning_rate'\?",
        ),
        (["--config.opt.learning_rate=fast"], "config.opt.learning_rate=fast.*could not convert"),
        (["--config.seed=1.5"], "config.seed=1.5.*invalid literal"),
        (["--config.scan=perhaps"], "config.scan=perhaps"),
        (["--config.opt=3"], "not a dict"),
        (["--config.untyped=3"], r"config.untyped is None .*placeholder\(type\)"),
        (["--wrkdir=x"], r"'--wrkdir'; did you mean '--workdir'\?"),
        (["--confg=x"], r"did you mean '--config'\?"),
        (["stray"], "takes flags only, got 'stray'"),
        (["--config="], "--config needs a file"),
        (["--config=configs/pretran.py"], "'configs/pretran.py'"),
    ],
)
def test_bad_words_are_named(config_file, words, expected):
    with pytest.raises(UserError, match=expected) as caught:
        parse(config_file, *words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1", "no function get_config"),
        ("def get_config(:\n", r"config\.py, line 1: invalid syntax"),
        ("def get_config():\n    return {}", "must return a ConfigDict, got dict"),
        ("\nimport not_there", r"config\.py, line 2: ModuleNotFoundError: No module named 'not_there'; mend"),
        (
            "def get_config():\n    return 1 / 0",
            r"config\.py, line 2: ZeroDivisionError: division by zero; mend",
        ),
    ],
)
def test_bad_config_files_are_named(tmp_path, text, expected):
    (tmp_path / "config.py").write_text(text)
    with pytest.raises(UserError, match=expected):
        parse(tmp_path / "config.py")


@pytest.mark.parametrize("file", ["prepare", "embed"])
def test_a_config_of_another_job_is_told(file, tmp_path, capsys):
    assert main(["pretrain", f"--config=configs/{file}.py", f"--workdir={tmp_path}"]) == 2
    assert re.fullmatch(
        r"error: The config has no '\w+', which this job reads: .*\n", capsys.readouterr().err
    )


def test_a_key_that_our_own_code_misses_stays_a_crash(monkeypatch):
    job = types.SimpleNamespace(main=lambda argv: {}["key"])
    monkeypatch.setitem(sys.modules, "eelbert_jax.jobs.sizes", job)
    with pytest.raises(KeyError, match="key"):
        main(["sizes"])


def test_recipe_for_a_config_without_recipes(tmp_path):
    (tmp_path / "config.py").write_text("def get_config():\n    return None")
    with pytest.raises(UserError, match="takes no recipe, got 'tiny'"):
        parse(f"{tmp_path / 'config.py'}:tiny")


def test_error_of_a_config_keeps_its_own_words(config_file):
    with pytest.raises(UserError, match=r"^Unknown recipe word 'huge'; known: small, large, wide\.$"):
        parse(f"{config_file}:huge")


def test_missing_workdir(config_file):
    with pytest.raises(UserError, match="pretrain needs a folder for its files: add --workdir=DIR"):
        cli.parse("pretrain", [f"--config={config_file}"])


def test_job_without_config_and_workdir():
    assert cli.parse("sizes", ["--json"]).flags == {"json": True}
    for words in (["--config=x.py"], ["--workdir=x"], ["--config.a=1"]):
        with pytest.raises(UserError):
            cli.parse("sizes", words)


def test_write_config_writes_resolved_json(config_file, tmp_path):
    config = parse(config_file, "--config.opt.total_steps=50").config
    path = cli.write_config(config, tmp_path / "new" / "folder")
    written = json.loads(path.read_text())
    assert written["opt"] == {
        "betas": [0.9, 0.999],
        "learning_rate": 1e-4,
        "total_steps": 50,
        "warmup_steps": 5,
    }
    assert written["seed"] is None
    assert os.listdir(path.parent) == ["config.json"]


def test_write_config_says_so_where_it_cannot_write(config_file, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot write to the workdir .*file.*--workdir=DIR"):
        cli.write_config(parse(config_file).config, tmp_path / "file" / "workdir")


def stand_in_job(monkeypatch, main_function):
    """Put a module with this `main` where the pretrain job is, so that the door can be tested alone."""
    module = types.ModuleType("eelbert_jax.jobs.pretrain")
    module.main = main_function
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_main_runs_the_job_with_its_words(monkeypatch):
    seen = []
    stand_in_job(monkeypatch, seen.append)
    assert main(["pretrain", "--workdir=w"]) == 0
    assert seen == [["--workdir=w"]]


def test_main_names_the_nearest_job(capsys):
    assert main(["pretain"]) == 2
    assert capsys.readouterr().err == "error: Unknown job 'pretain'; did you mean 'pretrain'?\n"


@pytest.mark.parametrize(
    ("raised", "status", "expected"),
    [
        (UserError("no such file: give one."), 2, "error: no such file: give one.\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_main_turns_errors_into_statuses(monkeypatch, capsys, raised, status, expected):
    def fail(words):
        raise raised

    stand_in_job(monkeypatch, fail)
    assert main(["pretrain"]) == status
    assert capsys.readouterr().err == expected


def test_defects_keep_their_traceback(monkeypatch):
    stand_in_job(monkeypatch, lambda words: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["pretrain"])


def test_overview_lists_every_job_once(capsys):
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, job in cli.JOBS.items():
        assert [line for line in lines if line.split() == [name, *job.summary.split()]], name


def test_no_job_shows_the_overview_and_fails(capsys):
    assert main([]) == 2
    assert capsys.readouterr().out.startswith("usage: eelbert JOB")


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in cli.JOBS)])
def test_help_imports_nothing_heavy(words):
    loaded, text = modules_after(f"from eelbert_jax.__main__ import main; main({words!r})")
    assert text.startswith("usage: eelbert")
    assert not loaded


def test_heavy_imports_would_be_noticed():
    loaded, _ = modules_after("import jax")
    assert "jax" in loaded


def modules_after(code):
    """Return which of `HEAVY` a fresh interpreter has imported after `code`, and what it printed before."""
    report = f"import sys; print('LOADED', *[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; {report}"], capture_output=True, text=True, check=True
    )
    text, _, loaded = done.stdout.rpartition("LOADED")
    return loaded.split(), text


def test_module_and_function_are_one_door():
    done = subprocess.run(
        [sys.executable, "-m", "eelbert_jax", "nojob"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: Unknown job 'nojob'")
    assert "Traceback" not in done.stderr


def test_console_script_is_the_same_function():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert pyproject["project"]["scripts"] == {"eelbert": "eelbert_jax.__main__:main"}


def test_every_job_has_its_code_and_config():
    for name, job in cli.JOBS.items():
        assert importlib.util.find_spec(f"eelbert_jax.jobs.{name}"), name
        if job.default_config:
            cli.load_config(ROOT / job.default_config)


def test_every_folder_of_the_package_is_installed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent for path in (ROOT / "eelbert_jax").rglob("*.py")}
    configs = {
        Path("eelbert_jax") / path.parent.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.py")
    }
    expected = {".".join(path.parts) for path in [*(path.relative_to(ROOT) for path in folders), *configs]}
    assert set(listed) == expected | {"eelbert_jax.web"}


PLATFORMS = [("JAX_PLATFORMS", "cuda"), ("JAX_PLATFORMS", "nosuch"), ("JAX_PLATFORM_NAME", "nosuch")]
"""No test machine has the second; of the first JAX only asserts that it found something."""


@pytest.mark.parametrize(("name", "value"), PLATFORMS)
def test_a_platform_that_is_not_here_is_bad_input(name, value):
    if value == "cuda" and Path("/dev/nvidia0").exists():
        pytest.skip("this machine has a GPU")
    environment = {key: word for key, word in os.environ.items() if key not in dict(PLATFORMS)}
    done = subprocess.run(
        [sys.executable, "-m", "eelbert_jax", "plan", "--config=configs/pretrain.py:micro"],
        cwd=ROOT,
        env={**environment, name: value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    *_, last = done.stderr.splitlines()
    assert last.startswith(f"error: {name}={value} asks for a platform that this machine")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("file", "error"),
    [
        ("jax/_src/xla_bridge.py", "Unable to initialize backend 'tpu': ABORTED: The TPU is already in use"),
        ("jobs/pretrain.py", "Backend 'tpu' is not in the list of known backends"),
    ],
)
def test_a_platform_that_may_come_back_and_other_errors_stay_crashes(monkeypatch, file, error):
    def fail(words):
        exec(compile(f"raise RuntimeError({error!r})", file, "exec"))

    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    stand_in_job(monkeypatch, fail)
    with pytest.raises(RuntimeError, match="tpu"):
        main(["pretrain"])


def test_a_name_of_any_bytes_can_be_printed(monkeypatch):
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr("eelbert_jax.jobs.sizes.main", lambda argv: print("caf\udce9"))
    assert main(["sizes"]) == 0
    output.flush()
    assert output.buffer.getvalue() == b"caf\\udce9\n"


def test_a_job_that_writes_to_this_machine_says_so():
    with pytest.raises(UserError, match="report writes to a folder of this machine, got --workdir=gs://b/r"):
        cli.parse("report", ["--workdir=gs://b/r"])
    assert cli.parse("pretrain", ["--workdir=gs://b/r"]).workdir == "gs://b/r"
