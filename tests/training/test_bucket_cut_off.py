"""Saves to a bucket that are cut off; in a process of its own, as Orbax leaves coroutines of them behind."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CUT_OFF = """
import itertools, logging
from support import buckets
from support.checkpoints import restored, save
logging.disable(logging.CRITICAL)
with buckets.EMULATED() as bucket:
    PLACE = f"{bucket.url}/checkpoints"
    bucket.clear()
    save(PLACE, 1, keep=1)
    requests = itertools.count()
    bucket.fault = lambda method, path: next(requests) and None
    save(PLACE, 2, keep=1)
    total = next(requests)
    for cut in range(0, total, total // CUTS):
        bucket.clear()
        save(PLACE, 1, keep=1)
        served = itertools.count()
        bucket.fault = lambda method, path: 403 if next(served) >= cut else None
        try:
            save(PLACE, 2, keep=1)
        except Exception:  # by whichever library is cut off
            pass
        bucket.serve()
        print("outcome", restored(PLACE), restored(PLACE, create=True), flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "emulated", "cuts"), [("gcp_storage_emulator", "emulated", 20), ("moto", "emulated_s3", 6)]
)
def test_cut_off_at_any_request_of_a_save_the_newest_good_step_is_there(library, emulated, cuts):
    """Fault 2: what is in the store after so many requests is what a kill then leaves."""
    pytest.importorskip(library)
    done = subprocess.run(
        [sys.executable, "-c", CUT_OFF.replace("EMULATED", emulated).replace("CUTS", str(cuts))],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT}/tests", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    outcomes = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("outcome")]
    assert done.returncode == 0, done.stderr
    assert len(outcomes) >= cuts
    assert all(read == resumed for read, resumed in outcomes)
    assert {read for read, _ in outcomes} == {"1", "2"}, "some are cut off before the commit, some after"
    assert "is damaged" not in done.stderr
