"""How fast is a pre-training step, and how much memory does it take, against PyTorch with transformers?

    python benchmarks/pretrain_step.py [--size=tiny] [--batch=64] [--vocab_size=30522] [--cpu_time] [--quick]

Five processes do the same work and take turns: masking on the fly, forward, backward, clipping, AdamW; same
sizes, batch, rows, dropout 0.1, all cores, float32 unless said otherwise.

    table, hash        our step (`eelbert_jax.objectives.masked_lm`), logits at the masked positions
    bfloat16           the table's step computed in bfloat16
    run_mlm            transformers' BertForMaskedLM as the script `run_mlm` trains it: labels -100, logits
                       at every position
    masked_only        the same model in a loop as PyTorch users write it by hand for speed: encoder, gather
                       of the masked positions, head

PyTorch gets its faster options: fused AdamW, scaled-dot-product attention; and all processes keep freed
memory as `eelbert` does (`eelbert_jax.memory`). `--cpu_time` counts the processor's seconds, on one core, in
place of those on the clock: what can be compared on a machine with other work on it. The rows are drawn from
a Zipf distribution, so that the loss has something to learn; it has to fall, or the case fails.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import _measure

ROW_LENGTH, MASKED = 128, 20
MASK_ID, SPECIAL_IDS = 103, (0, 100, 101, 102, 103)
LEARNING_RATE, WEIGHT_DECAY, MAX_GRAD_NORM = 1e-3, 0.01, 1.0
OURS, BASELINES = ("table", "hash", "bfloat16"), ("run_mlm", "masked_only")


def zipf_rows(num_rows: int, vocab_size: int) -> np.ndarray:
    """Return int64 rows [num_rows, 128] of [CLS], words by a Zipf distribution and [SEP]."""
    words = np.arange(1000, vocab_size)
    shares = 1.0 / np.arange(1, len(words) + 1)
    rows = np.random.default_rng(0).choice(words, (num_rows, ROW_LENGTH), p=shares / shares.sum())
    rows[:, 0], rows[:, -1] = 101, 102
    return rows


def turns_of(
    step: Callable[[np.ndarray], float], options: argparse.Namespace
) -> Callable[[], dict[str, float]]:
    """Return the function that takes a turn: `options.steps` steps; the loss of the last one is checked.

    Args:
      step: rows [B, L] -> loss; returns when the step is done.
      options: `steps` and `batch`.
    """
    clock = time.process_time if options.cpu_time else time.perf_counter
    rows = zipf_rows(16 * options.batch, options.vocab_size).reshape(16, options.batch, ROW_LENGTH)
    first = step(rows[0])
    done = 1
    for _ in range(options.warmup - 1):
        step(rows[done % 16])
        done += 1

    def turn() -> dict[str, float]:
        nonlocal done
        start = clock()
        for _ in range(options.steps):
            loss = step(rows[done % 16])
            done += 1
        seconds = clock() - start
        if not loss < first:
            raise RuntimeError(f"The loss did not fall: {first:.3f} at step 1, {loss:.3f} at step {done}.")
        return {"tokens_per_second": options.steps * options.batch * ROW_LENGTH / seconds, "loss": loss}

    return turn


def torch_model(options: argparse.Namespace) -> Any:
    """Return transformers' BertForMaskedLM of the size, in training mode, with its optimizer's step."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    from eelbert_jax.model.config import sized

    ours = sized(options.size, vocab_size=options.vocab_size)
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    torch.manual_seed(0)
    torch.set_num_threads(_measure.num_cores())
    model = BertForMaskedLM(BertConfig(**{name: getattr(ours, name) for name in names})).train()
    decayed = [p for name, p in model.named_parameters() if "bias" not in name and "LayerNorm" not in name]
    others = [p for name, p in model.named_parameters() if "bias" in name or "LayerNorm" in name]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=True)

    def update(loss: Any) -> float:
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return model, update


def corrupt(ids: Any, chosen: Any, vocab_size: int) -> Any:
    """Return ids with 80 % of the chosen positions replaced by [MASK], 10 % by a random token."""
    import torch

    draw = torch.rand(ids.shape)
    ids = ids.masked_fill(chosen & (draw < 0.8), MASK_ID)
    return torch.where(chosen & (draw >= 0.9), torch.randint(vocab_size, ids.shape), ids)


def run_mlm_step(options: argparse.Namespace) -> Callable[[np.ndarray], float]:
    """Return the step of transformers' `run_mlm`: each token masked with p = 0.15, logits everywhere."""
    import torch

    model, update = torch_model(options)
    special = torch.tensor(SPECIAL_IDS)

    def step(rows: np.ndarray) -> float:
        ids = torch.from_numpy(rows)
        chosen = (torch.rand(ids.shape) < 0.15) & ~torch.isin(ids, special)
        labels = ids.masked_fill(~chosen, -100)
        attention_mask = torch.ones_like(ids)
        return update(
            model(
                input_ids=corrupt(ids, chosen, options.vocab_size),
                attention_mask=attention_mask,
                labels=labels,
            ).loss
        )

    return step


def masked_only_step(options: argparse.Namespace) -> Callable[[np.ndarray], float]:
    """Return a step with P targets a row and the head at those alone."""
    import torch

    model, update = torch_model(options)
    special = torch.tensor(SPECIAL_IDS)

    def step(rows: np.ndarray) -> float:
        ids = torch.from_numpy(rows)
        scores = torch.rand(ids.shape).masked_fill(torch.isin(ids, special), -1.0)
        positions = scores.topk(MASKED, dim=1).indices
        chosen = torch.zeros(ids.shape, dtype=torch.bool).scatter(1, positions, True)
        hidden = model.bert(input_ids=corrupt(ids, chosen, options.vocab_size)).last_hidden_state
        logits = model.cls(hidden[chosen])
        return update(torch.nn.functional.cross_entropy(logits, ids[chosen]))

    return step


def our_step(
    options: argparse.Namespace, embedding: str, dtype: str = "float32"
) -> Callable[[np.ndarray], float]:
    """Return our step; the hashed table is cached, as in every pre-training run of ours."""
    import jax

    from eelbert_jax.model.config import sized
    from eelbert_jax.objectives.masked_lm import MaskedLM, default_rows_a_pass
    from eelbert_jax.training import sharding
    from eelbert_jax.training.fit import Start, fresh_state
    from eelbert_jax.training.optimizer import OptimizerConfig, make_optimizer
    from eelbert_jax.training.step import make_train_step
    from eelbert_jax.vocabulary import Vocabulary

    special = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
    vocabulary = Vocabulary(tuple(special.get(i, f"word{i}") for i in range(options.vocab_size)))
    config = sized(options.size, vocab_size=options.vocab_size, embedding=embedding, dtype=dtype)
    layout = sharding.Layout(sharding.make_mesh())
    objective = MaskedLM(config, vocabulary, ROW_LENGTH, layout, batch_size=options.batch)
    optimizer = make_optimizer(
        OptimizerConfig(LEARNING_RATE, 0, WEIGHT_DECAY, max_grad_norm=MAX_GRAD_NORM), total_steps=10**6
    )
    state = fresh_state(objective, optimizer, layout, Start(""), seed=0)
    platform = layout.mesh.devices.flat[0].platform
    passes = options.batch // default_rows_a_pass(options.batch, ROW_LENGTH, platform)
    train_step = make_train_step(objective, optimizer, layout, seed=0, passes=passes)

    def step(rows: np.ndarray) -> float:
        nonlocal state
        rows = rows[None].astype(np.uint16)
        placed = sharding.put_rows(rows, layout, row_axis=1)
        state, metrics = train_step(state, objective.constants, placed)
        return float(jax.block_until_ready(metrics["loss"])[0])

    return step


STEPS: dict[str, Callable[[argparse.Namespace], Callable[[np.ndarray], float]]] = {
    "table": lambda options: our_step(options, "table"),
    "hash": lambda options: our_step(options, "ngram_hash"),
    "bfloat16": lambda options: our_step(options, "table", "bfloat16"),
    "run_mlm": run_mlm_step,
    "masked_only": masked_only_step,
}


def measure(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Let all cases take turns; return the median tokens/s and the peak memory in MiB of each."""
    passed = [f"--size={options.size}", f"--batch={options.batch}", f"--steps={options.steps}"]
    passed += [f"--warmup={options.warmup}", f"--vocab_size={options.vocab_size}"]
    passed += ["--cpu_time"] * options.cpu_time
    answers = _measure.take_turns(__file__, tuple(STEPS), passed, options.turns)
    return {
        case: {
            "tokens/s": statistics.median(answer["tokens_per_second"] for answer in taken),
            "MiB": taken[-1]["peak_bytes"] / 2**20,
        }
        for case, taken in answers.items()
    }


def main() -> None:
    """Compare our steps with PyTorch's, and the hash with the table."""
    parser = _measure.parser(__doc__)
    parser.add_argument("--size", default="tiny", choices=("tiny", "uno", "mini"), help="encoder size")
    parser.add_argument("--batch", type=int, default=64, help="rows of 128 tokens a step (default: 64)")
    parser.add_argument("--vocab_size", type=int, default=30522, help="tokens (default: 30522)")
    parser.add_argument("--cpu_time", action="store_true", help="count processor time")
    parser.add_argument("--steps", type=int, default=2, help="steps a turn (default: 2)")
    parser.add_argument("--warmup", type=int, default=2, help="untimed steps at the start (default: 2)")
    parser.add_argument("--turns", type=int, default=7, help="turns of every case (default: 7)")
    parser.add_argument("--worker", choices=tuple(STEPS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cpu_time:  # on one core: threads of PyTorch that wait for others count as busy
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if options.worker:
        _measure.serve(lambda: turns_of(STEPS[options.worker](options), options))
        return
    if options.quick:
        options.batch, options.turns = min(options.batch, 16), 2
    if not options.json:
        print(_measure.describe_machine(), file=sys.stderr)
    figures = measure(options)
    pairs = [(ours, baseline) for baseline in BASELINES for ours in OURS] + [
        ("hash", "table"),
        ("bfloat16", "table"),
    ]
    for unit in ("tokens/s", "MiB"):
        for ours, baseline in pairs:
            case = f"{options.size} {options.batch}x{ROW_LENGTH}: {ours} against {baseline}"
            _measure.report(
                "pretrain_step", case, figures[ours][unit], figures[baseline][unit], unit, options.json
            )


if __name__ == "__main__":
    main()
