"""Units of a preparation as an Apache Beam pipeline, for more text than one machine can take."""

import contextlib
import io
from collections.abc import Iterator, Sequence

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions

from eelbert_jax.corpus import ledger
from eelbert_jax.corpus.units import UnitTask
from eelbert_jax.errors import UserError

NAMESPACE = "eelbert"
"""Of the counter `input_bytes`, the progress that a runner shows."""


class PrepareUnit(beam.DoFn):
    """Prepare the units that arrive by number.

    Bad input is written down, not raised: it fails alike every time, and the other units are to be finished.
    What a disk or a store refuses is raised, for the runner to try again.
    """

    def __init__(self, task: UnitTask):
        self._task = task
        self._input_bytes = Metrics.counter(NAMESPACE, "input_bytes")

    def process(self, element: int) -> Iterator[int]:
        """Prepare one unit; yield nothing, since all that counts is in the directory."""
        try:
            self._task(element, self._input_bytes.inc)
        except UserError as error:
            ledger.write_failure(self._task.directory, element, str(error))
            if isinstance(error.__cause__, OSError):
                raise
        yield from ()


def run_pipeline(task: UnitTask, numbers: Sequence[int], args: Sequence[str]) -> None:
    """Do the task for some units on a runner of Apache Beam and wait for the end.

    Args:
      task: its directory, and the files of its units, must be the same for every machine.
      args: pipeline options of Beam, such as ["--runner=DataflowRunner", ...].
    """
    ledger.forget_failures(task.directory, numbers)
    pipeline = _pipeline(args)
    _ = (
        pipeline
        | "Units" >> beam.Create(list(numbers))
        | "Share out" >> beam.Reshuffle()
        | "Prepare" >> beam.ParDo(PrepareUnit(task))
    )
    try:
        pipeline.run().wait_until_finish()
    except Exception:  # of any runner; where a unit left word of the cause, that is what to show
        _raise_failure(task, numbers)
        raise
    _raise_failure(task, numbers)
    left = ledger.missing_units(task.directory, len(task.units))
    if left:
        raise UserError(
            f"The pipeline ended, and {len(left)} of {len(task.units)} units have no record in "
            f"{task.directory}. All machines must see that directory under this name: give a --workdir in an "
            "object store or on a shared file system, and look in the runner's log for other causes."
        )


def _pipeline(args: Sequence[str]) -> beam.Pipeline:
    usage = io.StringIO()  # a value of the wrong type ends in pages of usage and SystemExit
    try:
        with contextlib.redirect_stderr(usage):
            options = PipelineOptions(list(args))
            options.get_all_options()
        return beam.Pipeline(options=options)
    except (Exception, SystemExit) as error:  # of any runner: names, types, what it asks of its service
        reason = usage.getvalue().strip().splitlines()[-1:] if isinstance(error, SystemExit) else [str(error)]
        raise UserError(
            f"Apache Beam refuses --config.beam.args={' '.join(args)!r}: {' '.join(' '.join(reason).split())}"
        ) from error


def _raise_failure(task: UnitTask, numbers: Sequence[int]) -> None:
    without = set(ledger.missing_units(task.directory, len(task.units)))
    failures = ledger.read_failures(task.directory, [number for number in numbers if number in without])
    if failures:
        first = failures[min(failures)]
        more = f" {len(failures) - 1} more units failed." if len(failures) > 1 else ""
        raise UserError(f"{first}{more}")
