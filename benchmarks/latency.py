"""What does an answer cost without an embedding table, in JAX, onnxruntime and PyTorch? EELBERT's table 5.

    python benchmarks/latency.py [--sizes=uno,tiny,mini,base] [--threads=1,2] [--shapes=1x16,...]
                                 [--seconds=5] [--plot=latency.png] [--quick] [--json]

A classifier of random weights, with a trained table and with the hash, is exported as `eelbert export` does;
all of its forms then answer the same rows of token ids, in turns:

    torch table          transformers' BERT, from the folder of --to=hf
    jax, onnxruntime     float32; onnxruntime int8 has int8 weights, computed with in float32
        table            a trained table
        load             the hashed table, made when the model is loaded, and gathered from in the graph
        host             a table of hashed vectors that the host keeps and hands over, a row computed when its
                         token first comes: what the folder's model.py does
        graph            the hash computed in the graph, for every token anew

Answers are compared before anything is timed. A turn is about twenty milliseconds of calls, and the least of
all turns counts: other work on the machine only ever adds. One thread counts the processor's seconds, on one
core; more count those of the clock. Then each form answers once in a process of its own, for the resident
memory that it takes at its peak, its libraries included.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import _measure

SIZES = "uno,tiny,mini,base"
SHAPES = ",".join(f"{batch}x{length}" for batch in (1, 8, 32) for length in (16, 64, 128))
FEWEST_TURNS, SECONDS_A_TURN = 5, 0.02
EMBEDDINGS = {"table": "table", "hash": "ngram_hash"}
ENDINGS = {"onnxruntime": "", "onnxruntime int8": "_quantized"}
BASELINE = "torch table"
DRAWN = (
    *("torch table", "jax table", "jax graph", "onnxruntime host", "onnxruntime graph"),
    *("onnxruntime int8 table", "onnxruntime int8 host"),
)
WORDS = "word_embeddings"
Forward = Callable[[], Any]
Rows = tuple[np.ndarray, np.ndarray, np.ndarray]
Form = Callable[[Rows], Forward]

OF_JAX = """
import eelbert_jax
eelbert_jax.load({folder!r}).classify([{text!r}])
"""
OF_TORCH = """
import torch, transformers
model = transformers.AutoModelForSequenceClassification.from_pretrained({folder!r})
tokenizer = transformers.AutoTokenizer.from_pretrained({folder!r})
with torch.no_grad():
    model(**tokenizer([{text!r}], return_tensors="pt"))
"""
OF_MODEL_PY = """
import sys
sys.path.insert(0, {folder!r})
from model import Model
Model(weights={weights!r}).classify([{text!r}])
"""
PEAK = """
from pathlib import Path
(line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(int(line.split()[1]) / 1024)
"""


def models_of(size: str, vocabulary: Any) -> dict[str, Any]:
    """Return a classifier of each embedding, the same weights but for the table."""
    import jax
    import jax.numpy as jnp

    from eelbert_jax.datasets.tasks import TaskRecord
    from eelbert_jax.inference.predict import Model
    from eelbert_jax.model import bert
    from eelbert_jax.model.config import sized

    models, task = {}, TaskRecord("sst2", "classify", ("negative", "positive"), False, max_length=128)
    for name, embedding in EMBEDDINGS.items():
        config = sized(size, vocab_size=vocabulary.size, embedding=embedding, num_labels=2)
        init = jax.jit(bert.BertForSequenceClassification(config).init)
        params = init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
        constants = bert.constants(config, vocabulary)
        models[name] = Model(Path(size), config, vocabulary, params, constants, True, 0, task)
    return models


def write_folders(models: dict[str, Any], folder: Path) -> None:
    """Export the models below `folder`, each checked as `eelbert export` does."""
    from eelbert_jax.datasets.encoding import encode_texts
    from eelbert_jax.export.onnx_folder import write_onnx_folder
    from eelbert_jax.export.transformers_folder import write_transformers_folder

    for name, model in models.items():
        encoded = encode_texts([" ".join(model.vocabulary.tokens[2000:2020])], None, model.vocabulary, 128)
        write_onnx_folder(folder / name, model, ("ids",) if name == "table" else ("ids", "vectors"), encoded)
    (folder / "torch").mkdir()
    write_transformers_folder(folder / "torch", models["table"], compact=False)
    (folder / "load.onnx").write_bytes(made_at_load(models["hash"]))


def forms(models: dict[str, Any], folder: Path, threads: int) -> Iterator[tuple[str, Form]]:
    """Yield what makes an answer to rows, by the name of the form; every answer is logits [B, 2]."""
    for name, embedding, mode in (
        ("jax table", "table", "cached"),
        ("jax load", "hash", "cached"),
        ("jax graph", "hash", "on_the_fly"),
    ):
        yield name, of_jax(models[embedding], mode)
    yield "torch table", of_torch(folder / "torch", threads)
    for runtime, ending in ENDINGS.items():
        yield f"{runtime} table", of_graph(folder / f"table/onnx/model{ending}.onnx", threads)
        yield f"{runtime} graph", of_graph(folder / f"hash/onnx/model{ending}.onnx", threads)
        yield f"{runtime} host", of_model_py(folder / "hash", ending.removeprefix("_"), threads)
    yield "onnxruntime load", of_graph(folder / "load.onnx", threads)


def of_jax(model: Any, mode: str) -> Form:
    """Return the forward pass of a model as the package has it."""
    import dataclasses

    import jax

    from eelbert_jax.model import bert

    config = dataclasses.replace(model.config, embedding_mode=mode)
    variables = {"params": model.params, "constants": bert.constants(config, model.vocabulary)}
    forward = jax.jit(bert.BertForSequenceClassification(config).apply)

    def form(rows: Rows) -> Forward:
        placed = jax.device_put((variables, *rows))
        return lambda: jax.block_until_ready(forward(*placed))

    return form


def of_torch(folder: Path, threads: int) -> Form:
    """Return the forward pass of a folder in transformers."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(threads)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    def form(rows: Rows) -> Forward:
        tensors = [torch.tensor(np.asarray(part, np.int64)) for part in rows]
        return torch.inference_mode()(lambda: model(*tensors).logits.numpy())

    return form


def feed_of(rows: Rows) -> dict[str, np.ndarray]:
    """Return the inputs of a graph that reads ids."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    return {name: np.asarray(part, np.int64) for name, part in zip(names, rows, strict=True)}


def of_graph(graph: Path, threads: int) -> Form:
    """Return the answer of a graph that reads ids."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(graph, options)

    def form(rows: Rows) -> Forward:
        feed = feed_of(rows)
        return lambda: session.run(["logits"], feed)[0]

    return form


def of_model_py(folder: Path, weights: str, threads: int) -> Form:
    """Return what the folder's model.py does with ids, whose vectors it knows from the first call on."""
    from eelbert_jax.export.outside.model import Model

    model = Model(folder, weights, threads)

    def form(rows: Rows) -> Forward:
        feed = feed_of(rows)

        def forward() -> np.ndarray:
            table = model.word_vectors(feed["input_ids"])
            return model.session.run(["logits"], {**feed, "word_vectors": table})[0]

        return forward

    return form


def made_at_load(model: Any) -> bytes:
    """Return a graph whose table the hash made: from there on it is a BERT's."""
    import dataclasses

    from eelbert_jax.export.encoder import model_graph

    (table,) = model.constants["bert"]["embeddings"][WORDS].values()
    embeddings = {**model.params["bert"]["embeddings"], WORDS: {"embedding": table}}
    params = {**model.params, "bert": {**model.params["bert"], "embeddings": embeddings}}
    config = dataclasses.replace(model.config, embedding="table")
    made = dataclasses.replace(model, config=config, params=params, constants={})
    return model_graph(made, "ids", "float32").SerializeToString()


def check(cases: dict[str, Forward]) -> None:
    """Fail where a form answers otherwise than JAX does with its weights."""
    for name, forward in cases.items():
        reference = "jax table" if name.endswith("table") else "jax load"
        tolerance = 5e-2 if "int8" in name else 1e-4
        expected, found = np.asarray(cases[reference]()), np.asarray(forward())
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(found, expected, atol=tolerance * scale, err_msg=name)


def measure(options: argparse.Namespace, threads: int) -> Iterator[dict[str, Any]]:
    """Yield for each size and shape the milliseconds of every form."""
    from embedding import made_up_vocabulary

    from eelbert_jax.vocabulary import load_vocabulary

    vocabulary = load_vocabulary(options.vocabulary) if options.vocabulary else made_up_vocabulary()
    clock = time.process_time if threads == 1 else time.perf_counter
    for size in options.sizes.split(","):
        folder, models = Path(options.folder) / size, models_of(size, vocabulary)
        if not folder.exists():
            write_folders(models, folder)
        makers = dict(forms(models, folder, threads))
        for shape in options.shapes.split(","):
            batch, length = map(int, shape.split("x"))
            ids = np.random.default_rng(1).integers(1000, vocabulary.size, (batch, length), dtype=np.int32)
            rows = (ids, np.ones_like(ids, np.bool_), np.zeros_like(ids))
            cases = {name: form(rows) for name, form in makers.items()}
            check(cases)
            trial = sum(_measure.interleaved(cases, turns=2, calls=1, warmup=1, clock=clock, of=min).values())
            calls = max(1, int(SECONDS_A_TURN * len(cases) / trial))
            turns = max(FEWEST_TURNS, int(options.seconds / (trial * calls)))
            least = _measure.interleaved(cases, turns, calls, warmup=0, clock=clock, of=min)
            found = {name: 1e3 * seconds for name, seconds in least.items()}
            yield {"size": size, "shape": shape, "threads": threads, "ms": found}


def timings(options: argparse.Namespace, threads: int) -> Iterator[dict[str, Any]]:
    """Yield what `measure` gives in a process of its own, whose libraries see as many cores as it may use."""
    passed = [f"--{name}={getattr(options, name)}" for name in ("sizes", "shapes", "seconds", "folder")]
    passed += [f"--vocabulary={options.vocabulary}"] * bool(options.vocabulary)
    command = [sys.executable, __file__, f"--worker={threads}", *passed]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield from map(json.loads, process.stdout)
    if process.returncode:
        raise SystemExit(f"error: {' '.join(command)} failed; see its output")


def weigh(folder: Path) -> Iterator[tuple[str, float, float]]:
    """Yield forms, their megabytes on disk and the MiB of memory that an answer takes."""
    yield "jax table", *_weight(folder / "torch/model.safetensors", OF_JAX, folder / "torch")
    yield "torch table", *_weight(folder / "torch/model.safetensors", OF_TORCH, folder / "torch")
    for runtime, ending in ENDINGS.items():
        weights = ending.removeprefix("_")
        for form, graph in (
            ("table", f"table/onnx/model{ending}.onnx"),
            ("host", f"hash/onnx/model_vectors{ending}.onnx"),
        ):
            place = folder / graph.partition("/")[0]
            yield f"{runtime} {form}", *_weight(folder / graph, OF_MODEL_PY, place, weights)


def _weight(file: Path, script: str, folder: Path, weights: str = "") -> tuple[float, float]:
    program = script.format(folder=str(folder), weights=weights, text="a witty film") + PEAK
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return file.stat().st_size / 1e6, float(found.stdout.splitlines()[-1])


def plot(records: list[dict[str, Any]], path: str) -> None:
    """Draw every form's time over onnxruntime's with a table, a panel for each size and number of threads."""
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys((record["threads"], record["size"]) for record in records))
    columns = len({size for _, size in panels})
    figure = Figure(figsize=(3.4 * columns, 3.1 * len(panels) / columns + 0.6), layout="constrained")
    all_axes = figure.subplots(len(panels) // columns, columns, squeeze=False, sharey=True)
    for axes, (threads, size) in zip(all_axes.flat, panels, strict=True):
        found = [record for record in records if (record["threads"], record["size"]) == (threads, size)]
        for name in DRAWN:
            ratios = [record["ms"][name] / record["ms"]["onnxruntime table"] for record in found]
            axes.plot([record["shape"] for record in found], ratios, "o-", markersize=3, label=name)
        axes.axhline(1, color="black", linewidth=1)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.set_title(f"{size}, {threads} thread{'s' * (threads > 1)}", fontsize="medium")
        axes.tick_params(axis="x", rotation=60, labelsize="small")
        axes.grid(alpha=0.3, which="both")
    for axes in all_axes[:, 0]:
        axes.set_ylabel("time / onnxruntime table")
    figure.legend(*all_axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=100)


def main() -> None:
    """Let all forms of all models take turns."""
    parser = _measure.parser(__doc__)
    parser.add_argument("--sizes", default=SIZES, help=f"encoder sizes (default: {SIZES})")
    parser.add_argument("--shapes", default=SHAPES, help=f"batch x length (default: {SHAPES})")
    parser.add_argument("--threads", default="1,2", help="threads of a runtime (default: 1,2)")
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="for a size, shape and threads (default: 5)"
    )
    parser.add_argument(
        "--vocabulary", help="vocab.txt to hash (default: made-up tokens of the same lengths)"
    )
    parser.add_argument("--plot", help="a PNG to draw")
    for name in ("worker", "folder"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options)
        return
    if options.quick:  # what is asked for stays
        parser.set_defaults(sizes="uno", shapes="1x16,1x128", threads="1", seconds=1.0)
        options = parser.parse_args()
    if not options.json:
        print(_measure.describe_machine(), file=sys.stderr)
    records = []
    with tempfile.TemporaryDirectory() as options.folder:
        for threads in map(int, options.threads.split(",")):
            for record in timings(options, threads):
                records.append(record)
                report(record, options.json)
        for size in options.sizes.split(","):
            found = list(weigh(Path(options.folder) / size))
            for unit, place in (("MB", 1), ("MiB", 2)):
                (baseline,) = [each[place] for each in found if each[0] == BASELINE]
                for name, *figures in found:
                    case = f"{size}: {name} against {BASELINE}"
                    _measure.report("latency", case, figures[place - 1], baseline, unit, options.json)
    if options.plot:
        plot(records, options.plot)


def work(options: argparse.Namespace) -> None:
    """Measure with some threads and print a JSON line a record; what libraries print goes elsewhere."""
    threads = int(options.worker)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
    channel, sys.stdout = sys.stdout, sys.stderr
    for record in measure(options, threads):
        print(json.dumps(record), file=channel, flush=True)


def report(record: dict[str, Any], quiet: bool) -> None:
    """Print every form against PyTorch's BERT, onnxruntime's and that of its own runtime."""
    figures = record["ms"]
    for name, figure in figures.items():
        own = f"{name.rpartition(' ')[0]} table"
        for baseline in dict.fromkeys((BASELINE, "onnxruntime table", own)):
            if name != baseline:
                threads = f"{record['threads']} thread{'s' * (record['threads'] > 1)}"
                case = f"{record['size']}, {record['shape']}, {threads}: {name} against {baseline}"
                _measure.report("latency", case, figure, figures[baseline], "ms", quiet)


if __name__ == "__main__":
    main()
