"""What a fine-tuned teacher says of the examples that a student learns from."""

import numpy as np

from eelbert_jax.datasets.encoding import check_max_length
from eelbert_jax.datasets.splits import Split
from eelbert_jax.datasets.tasks import REGRESS, TaskRecord, check_labels
from eelbert_jax.errors import UserError
from eelbert_jax.inference.load import load
from eelbert_jax.vocabulary import Vocabulary, check_same


def taught(
    split: Split,
    path: str,
    record: TaskRecord,
    vocabulary: Vocabulary,
    lowercase: bool,
    with_states: bool = False,
) -> Split:
    """Return a split with the answers of the model in `path`: logits, or numbers in the labels' unit, [n, C].

    `with_states` adds its last states of [CLS].

    Raises:
      UserError: it reads text otherwise than the student, or answers with other labels or in another order.
    """
    teacher = load(path)
    task = teacher.require_task("classify", "regress")
    check_same(vocabulary, teacher.vocabulary, "the student", path)
    if teacher.lowercase != lowercase:
        raise UserError(f"The teacher in {path} has lowercase={teacher.lowercase}, the student {lowercase}.")
    if record.kind != task.kind:
        raise UserError(f"The teacher in {path} is fine-tuned to {task.kind}, not to {record.kind}.")
    check_labels(record.labels, task.labels)
    check_max_length(split.encoded.max_length, teacher.config.num_positions)
    answers = teacher.logits(split.encoded)
    if task.kind == REGRESS:
        answers = answers * np.float32(task.std) + np.float32(task.mean)
    states = teacher.vectors(split.encoded, "cls") if with_states else None
    return split._replace(teacher=answers, teacher_states=states)
