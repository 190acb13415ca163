"""Rows ahead of the device: in order, no further than asked for, errors in their place."""

import threading

import pytest

from eelbert_jax.training.ahead import read_ahead

SECONDS = 30.0


class Reader:
    """Read steps; remember them, and tell when one has been read."""

    def __init__(self):
        self.read = []
        self._changed = threading.Condition()

    def __call__(self, step):
        if step == 8:
            raise ValueError("step 8 is damaged")
        with self._changed:
            self.read.append(step)
            self._changed.notify_all()
        return -step

    def has_read(self, number, seconds=SECONDS):
        """Whether `number` steps are read, or are in time."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.read) >= number, seconds)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_batches_come_in_order_and_no_more_than_the_depth_are_read_ahead(depth):
    reader = Reader()
    with read_ahead(reader, range(0, 8, 2), depth) as take:
        for number, step in enumerate(range(0, 8, 2), start=1):
            assert take(step) == -step
            expected = min(number + depth, 4)
            assert reader.has_read(expected), "the device is busy with this batch, and the next ones are read"
            assert not reader.has_read(expected + 1, seconds=0.05)
    assert reader.read == [0, 2, 4, 6]


@pytest.mark.parametrize("depth", [0, 2])
def test_an_error_is_raised_where_its_step_is_asked_for(depth):
    with read_ahead(Reader(), range(4, 20, 2), depth) as take:
        assert [take(4), take(6)] == [-4, -6]
        with pytest.raises(ValueError, match="step 8 is damaged"):
            take(8)


def test_the_thread_ends_with_the_block():
    with read_ahead(Reader(), range(0, 8, 2), 2) as take:
        take(0)
        assert any(thread.name.startswith("rows") for thread in threading.enumerate())
    assert not any(thread.name.startswith("rows") for thread in threading.enumerate())
