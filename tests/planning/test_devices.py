"""What data sheets say, and devices to compile for that are not here."""

import pytest

from eelbert_jax.errors import UserError
from eelbert_jax.planning import devices


def test_a_slice_sends_over_the_rings_that_close():
    v5e, v5p = devices.CHIPS["TPU v5 lite"], devices.CHIPS["TPU v5"]
    assert v5e.send_bandwidth((2, 4)) == 100e9  # one ring through all
    assert v5e.send_bandwidth((16, 16)) == 200e9  # all four links, one way
    assert v5p.send_bandwidth((4, 4, 4)) == 600e9


def test_published_figures_agree_with_each_other():
    # Data sheets give the clock only through the peak; all generations run between 1 and 2 GHz.
    assert all(1e9 < chip.clock_hz < 2e9 for chip in devices.CHIPS.values() if chip.clock_hz)


def test_a_topology_without_its_compiler_is_a_clear_error(monkeypatch):
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'eelbert_jax\[tpu-plan\]'"):
        devices.absent_devices("v5e:2x4")
    with pytest.raises(UserError, match=r"pip install 'eelbert_jax\[gpu-plan\]'"):
        devices.absent_devices("h200:8")


def test_a_gpu_plugin_without_its_assembler_is_a_clear_error(monkeypatch):
    monkeypatch.setattr(devices, "GPU_PACKAGES", ("jax", "no_such_package", "no_such_package.inside"))
    with pytest.raises(UserError, match=r"pip install 'eelbert_jax\[gpu-plan\]'"):
        devices.absent_devices("h200:8")


@pytest.mark.parametrize("name", ["nonsense", "h300:8", "h200", "h200:0"])
def test_unknown_devices_are_a_clear_error(name):
    with pytest.raises(UserError, match=rf"topology '{name}'\. Name a TPU generation .* h200:8"):
        devices.absent_devices(name)
