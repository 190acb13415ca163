"""What does the page of `eelbert export --to=web` cost beside onnxruntime-web, in time and in download?

    python benchmarks/page.py [--from=pocket-uno,pocket] [--lengths=16,128] [--seconds=5] [--modules=DIR]
                              [--quick] [--json]

In Node, whose engine is Chromium's, the same rows of random token ids are encoded by

    page, plain JavaScript     where a browser has no WebAssembly with 128-bit registers
    page                       as it is
    onnxruntime-web            one thread, int8 weights too, the hash in the graph: as transformers.js runs it
    onnxruntime-web, host      vectors in, which the host keeps

Their last hidden states are compared before anything is timed. They take turns of about twenty milliseconds,
counted in the processor's seconds, and the least of all turns counts. `--modules` is a folder in which
`npm install onnxruntime-web` was done; without it that is done in a temporary one.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _measure

RUNTIME = "onnxruntime-web@1.30.0"
PARTS = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""Of the runtime, what a browser fetches to run a graph on the processor."""
PAGE, PLAIN, GRAPH, HOST = "page", "page, plain JavaScript", "onnxruntime-web", "onnxruntime-web, host"

IN_NODE = """
const fs = require("fs");
const [folder, modules, lengths, seconds] = JSON.parse(process.argv[1]);
const ort = require(require.resolve("onnxruntime-web", { paths: [modules] }));
ort.env.wasm.numThreads = 1;
const script = fs.readFileSync(`${folder}/encoder.js`, "utf-8") + "; return Eelbert;";
const saved = JSON.parse(fs.readFileSync(`${folder}/model.json`, "utf-8"));
const page = new (new Function(script)().Model)(saved);
const plain = new (new Function("WebAssembly", script)(undefined).Model)(saved);
const milliseconds = () => { const used = process.cpuUsage(); return (used.user + used.system) / 1000; };

async function main() {
  const [ofIds, ofVectors] = await Promise.all(
    ["ids", "vectors"].map((name) => ort.InferenceSession.create(`${folder}/${name}.onnx`)));
  for (const length of lengths) {
    let state = 1;
    const draw = () => (state = (state * 48271) % 2147483647) % saved.tokens.length;
    const ids = Array.from({ length }, draw), types = ids.map(() => 0);
    const int64 = (values) => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, length]);
    const masks = () => ({ attention_mask: int64(ids.map(() => 1)), token_type_ids: int64(types) });
    const output = "last_hidden_state";
    const answer = async (session, feed) => (await session.run(feed, [output]))[output].data;
    const vectors = () => {
      const width = saved.config.embedding_width, found = new Float32Array(length * width);
      ids.forEach((id, l) => found.set(page.word(id), l * width));
      return new ort.Tensor("float32", found, [length, width]);
    };
    const forms = {
      "page": async () => page.encode({ ids, types }),
      "page, plain JavaScript": async () => plain.encode({ ids, types }),
      "onnxruntime-web": () => answer(ofIds, { input_ids: int64(ids), ...masks() }),
      "onnxruntime-web, host": () =>
        answer(ofVectors, { input_ids: int64(ids.map((_, l) => l)), word_vectors: vectors(), ...masks() }),
    };
    const expected = await forms.page(), calls = {}, least = {};
    const timed = async (name, count) => {
      const start = milliseconds();
      for (let call = 0; call < count; call++) await forms[name]();
      return (milliseconds() - start) / count;
    };
    for (const [name, form] of Object.entries(forms)) {
      const found = await form(), worst = Math.max(...found.map((value, i) => Math.abs(value - expected[i])));
      if (!(found.length === expected.length && worst < 1e-4)) throw new Error(`${name} differs by ${worst}`);
      await timed(name, 20);
      calls[name] = Math.max(1, Math.ceil(20 / (await timed(name, 5))));
      least[name] = Infinity;
    }
    for (const start = milliseconds(); milliseconds() - start < 1000 * seconds; )
      for (const name in forms) least[name] = Math.min(least[name], await timed(name, calls[name]));
    console.log(JSON.stringify([length, least]));
  }
}
main().catch((error) => { console.error(error); process.exit(1); });
"""


def write(name: str, folder: Path) -> dict[str, int]:
    """Write what Node reads of a model, and return the bytes of what a browser fetches beside the runtime."""
    from eelbert_jax.export.encoder import model_graph
    from eelbert_jax.export.page import SCRIPT, model_page, web_file, web_model
    from eelbert_jax.inference.load import load
    from eelbert_jax.vocabulary import tokenizer_json

    model = load(name)
    (folder / SCRIPT).write_text(web_file(SCRIPT), encoding="utf-8")
    (folder / "model.json").write_text(json.dumps(web_model(model)), encoding="utf-8")
    graphs = {inputs: model_graph(model, inputs, "int8").SerializeToString() for inputs in ("ids", "vectors")}
    for inputs, graph in graphs.items():
        (folder / f"{inputs}.onnx").write_bytes(graph)
    reader = len(tokenizer_json(model.vocabulary, model.lowercase).encode())
    return {PAGE: len(model_page(model, name).encode()), GRAPH: len(graphs["ids"]) + reader}


def timings(
    folder: Path, modules: Path, options: argparse.Namespace
) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield for each length the milliseconds of every form."""
    lengths = [int(length) for length in options.lengths.split(",")]
    asked = json.dumps([str(folder), str(modules), lengths, options.seconds])
    run = subprocess.run(["node", "-e", IN_NODE, asked], stdout=subprocess.PIPE, text=True, check=True)
    yield from map(json.loads, run.stdout.splitlines())


def main() -> None:
    """Let all forms of all models take turns, and weigh them."""
    parser = _measure.parser(__doc__)
    parser.add_argument("--from", dest="models", default="pocket-uno,pocket", help="models, of sentences")
    parser.add_argument("--lengths", default="16,128", help="tokens of a row (default: 16,128)")
    parser.add_argument("--seconds", type=float, default=5.0, help="for a model and a length (default: 5)")
    parser.add_argument("--modules", help=f"where `npm install {RUNTIME}` was done")
    options = parser.parse_args()
    if options.quick:
        options.models, options.seconds = "pocket-uno", 0.5
    if not options.json:
        print(_measure.describe_machine(), file=sys.stderr)
    with tempfile.TemporaryDirectory() as temporary:
        modules = Path(options.modules or temporary)
        if not options.modules:
            words = [
                "npm",
                "install",
                "--ignore-scripts",
                "--no-audit",
                "--no-fund",
                "--prefix",
                temporary,
                RUNTIME,
            ]
            subprocess.run(words, check=True, stdout=sys.stderr)
        runtime = sum((modules / "node_modules/onnxruntime-web/dist" / part).stat().st_size for part in PARTS)
        for name in options.models.split(","):
            report(
                name,
                write(name, Path(temporary)),
                runtime,
                timings(Path(temporary), modules, options),
                options,
            )


def report(name: str, sizes: dict[str, int], runtime: int, found: Any, options: argparse.Namespace) -> None:
    """Print every form of a model against the runtime's."""
    for length, figures in found:
        for form, baseline in ((PAGE, GRAPH), (PAGE, HOST), (PLAIN, GRAPH), (PLAIN, PAGE)):
            case = f"{name}, {length} tokens: {form} against {baseline}"
            _measure.report("page", case, figures[form], figures[baseline], "ms", options.json)
    theirs = (sizes[GRAPH] + runtime) / 1e6
    case = f"{name}: {PAGE} against {GRAPH}, its graph and its tokenizer"
    _measure.report("page", case, sizes[PAGE] / 1e6, theirs, "MB", options.json)


if __name__ == "__main__":
    main()
