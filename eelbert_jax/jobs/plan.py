"""`eelbert plan`: what a pre-training step of a config takes, on devices that need not be here."""

import json
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import ml_collections

from eelbert_jax import cli
from eelbert_jax.corpus.rows import Rows
from eelbert_jax.errors import UserError
from eelbert_jax.jobs import pretrain
from eelbert_jax.model import bert
from eelbert_jax.planning import page
from eelbert_jax.planning.devices import absent_devices
from eelbert_jax.planning.plan import DoesNotFit, Plan, plan_step
from eelbert_jax.training import sharding
from eelbert_jax.training.fit import state_like
from eelbert_jax.training.optimizer import make_optimizer
from eelbert_jax.training.step import make_train_step
from eelbert_jax.vocabulary import SPECIAL_TOKENS, Vocabulary

ASSUMED_VOCABULARY, ASSUMED_ROW_LENGTH = 30_522, 128
"""Of bert-base-uncased and of the paper, where no rows are named."""

LONGEST_TOKEN = 18
"""Letters of bert-base-uncased's longest token, which an embedder on the fly makes room for."""

FSDP = 8
"""Chips of one v5e or v6e host, which share the parameters in the alternative "fsdp"."""


class Planned(NamedTuple):
    """Hold the plan of a config, and of its changes a plan or the reason why there is none.

    `is_assumed`: no rows were named, so vocabulary and row length are the paper's.
    """

    plan: Plan
    vocab_size: int
    is_assumed: bool
    alternatives: list[tuple[str, Plan | str]]

    def to_dict(self) -> dict[str, Any]:
        """Return every figure as JSON types."""
        others = [
            {"change": name, **(other.to_dict() if isinstance(other, Plan) else {"error": other})}
            for name, other in self.alternatives
        ]
        about = {"vocab_size": self.vocab_size, "is_assumed": self.is_assumed}
        return {**self.plan.to_dict(), **about, "alternatives": others}


def plan(config: ml_collections.ConfigDict, topology: str, *, alternatives: bool) -> Planned:
    """Plan a config for a topology, or with "" for this machine; each alternative takes another compilation.

    Raises:
      UserError: the topology is unknown, the config does not fit it, or the step does not fit its memory.
    """
    pretrain.check(config)
    if topology:
        jax.config.update("jax_platforms", "cpu")  # no device of this machine is asked
    devices = absent_devices(topology) if topology else jax.devices()
    vocabulary, row_length = _rows(config)
    try:
        planned = _plan_step(config, devices, vocabulary, row_length)
    except DoesNotFit as error:
        knobs = "; ".join(_knobs(config, len(devices)))
        raise UserError(f"{error} Turn one of these, or several: {knobs}.") from error
    others: list[tuple[str, Plan | str]] = []
    for name, changes in _alternatives(config, len(devices)) if alternatives else ():
        changed = ml_collections.ConfigDict(config)
        changed.update_from_flattened_dict(changes)
        try:
            others.append((name, _plan_step(changed, devices, vocabulary, row_length)))
        except UserError as error:
            others.append((name, str(error)))
    return Planned(planned, vocabulary.size, config.data.rows is None, others)


def _plan_step(
    config: ml_collections.ConfigDict, devices: Sequence[jax.Device], vocabulary: Vocabulary, row_length: int
) -> Plan:
    """Plan a call of one step; a call of several runs the same in a loop."""
    layout = sharding.make_layout(config.mesh.fsdp, config.mesh.zero1, devices)
    objective = pretrain.make_objective(config, vocabulary, row_length, layout)
    fit_config = pretrain.make_fit_config(config, objective)
    optimizer = make_optimizer(fit_config.optimizer, config.total_steps)
    constants = jax.eval_shape(lambda: bert.constants(objective.config, vocabulary))
    replicated = jax.tree.map(lambda _: layout.replicated, constants)
    return plan_step(
        make_train_step(objective, optimizer, layout, seed=config.seed, passes=fit_config.passes),
        state_like(objective, optimizer, layout),
        sharding.placed(constants, replicated),
        objective.batch_shape(steps=1),
        total_steps=config.total_steps,
    )


def _rows(config: ml_collections.ConfigDict) -> tuple[Vocabulary, int]:
    if config.data.rows is not None:
        rows = Rows.open(config.data.rows, "train")
        return rows.vocabulary, rows.row_length
    size = ASSUMED_VOCABULARY if config.model.vocab_size is None else config.model.vocab_size
    words = (f"{number:0{LONGEST_TOKEN}}" for number in range(size - len(SPECIAL_TOKENS)))
    return Vocabulary((*SPECIAL_TOKENS, *words)), ASSUMED_ROW_LENGTH


def _alternatives(config: ml_collections.ConfigDict, devices: int) -> list[tuple[str, dict[str, Any]]]:
    changes: list[tuple[str, Any]] = [("batch_size", factor * config.batch_size) for factor in (2, 4)]
    if devices > 1:
        changes.append(("mesh.zero1", not config.mesh.zero1))
        changes.append(("mesh.fsdp", 1 if config.mesh.fsdp > 1 else min(FSDP, devices)))
    return [(f"{name}={value}", {name: value}) for name, value in changes]


def _knobs(config: ml_collections.ConfigDict, devices: int) -> list[str]:
    """Return command-line words that make a step smaller, the cheapest first."""
    rows = config.rows_per_device or config.batch_size // devices
    found = []
    if config.model.dtype != "bfloat16":
        found.append("--config.model.dtype=bfloat16 (half the activations)")
    if rows > 1:
        found.append(f"--config.rows_per_device={rows // 2} (the batch in more passes)")
    if not config.mesh.zero1 and devices > 1:
        found.append("--config.mesh.zero1=True (optimizer slots split over the chips)")
    if config.mesh.fsdp == 1 and devices > 1:
        found.append(f"--config.mesh.fsdp={min(FSDP, devices)} (parameters split too)")
    return [*found, f"more chips than {devices}"]


def main(argv: list[str]) -> None:
    """Run the job from the command line."""
    config, _, flags = cli.parse("plan", argv)
    print("Compiling; a deep model takes minutes.", file=sys.stderr, flush=True)
    found = plan(config, flags["topology"], alternatives=flags["alternatives"])
    if flags["json"]:
        print(json.dumps(found.to_dict()))
        return
    print(page.page(found.plan, f"Plan of {config.recipe} in {config.model.dtype}"))
    if found.is_assumed:
        print(
            f"\nAssumed, as config.data.rows is empty: a vocabulary of {found.vocab_size:,} tokens, "
            f"rows of {found.plan.row_length}."
        )
    if flags["alternatives"]:
        print(f"\n{page.alternatives([('as configured', found.plan), *found.alternatives])}")
