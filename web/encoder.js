// A BERT without an embedding table in plain JavaScript: WordPiece, n-gram hash, encoder, heads.
// Reads what eelbert_jax/export/page.py writes; runs in a browser and in Node.
"use strict";

const Eelbert = (() => {
  const WORD_LENGTH = 100; // code points; a longer word is [UNK]
  const CJK = /[\u4E00-\u9FFF\u3400-\u4DBF\u{20000}-\u{2A6DF}\u{2A700}-\u{2B73F}\u{2B740}-\u{2B81F}\u{2B920}-\u{2CEAF}\uF900-\uFAFF\u{2F800}-\u{2FA1F}]/gu;
  const DROPPED = /[\0\uFFFD]|(?![\t\n\r])\p{C}/gu;
  const WORDS = /[\p{P}!-\/:-@\[-`{-~]|[^\p{White_Space}\p{P}!-\/:-@\[-`{-~]+/gu;

  class Tokenizer {
    constructor(tokens, lowercase) {
      this.ids = new Map(tokens.map((token, id) => [token, id]));
      this.lowercase = lowercase;
    }

    // Words of a text: [{word, start, end}] without positions, normalized as BERT's tokenizer does.
    words(text) {
      text = text.replace(DROPPED, "").replace(CJK, " $& ");
      if (this.lowercase) {
        text = text.normalize("NFD").replace(/\p{Mn}/gu, "");
        text = Array.from(text, (character) => character.toLowerCase()).join("");
      }
      return text.match(WORDS) ?? [];
    }

    // Longest match first; a word that cannot be spelled is [UNK].
    pieces(word) {
      const characters = Array.from(word), found = [];
      if (characters.length > WORD_LENGTH) return [this.ids.get("[UNK]")];
      for (let start = 0; start < characters.length; ) {
        let end = characters.length, id;
        for (; end > start; end--) {
          id = this.ids.get((start ? "##" : "") + characters.slice(start, end).join(""));
          if (id !== undefined) break;
        }
        if (id === undefined) return [this.ids.get("[UNK]")];
        found.push(id);
        start = end;
      }
      return found;
    }

    tokenize(text) {
      return this.words(text).flatMap((word) => this.pieces(word));
    }
  }

  // The hash of a token's grams (EELBERT, section 3): integers until the last line of a part.
  class Hash {
    constructor(spec, width, tokens) {
      this.spec = spec;
      this.tokens = tokens;
      this.width = width;
      this.seeds = Float64Array.from({ length: width }, (_, j) => this.seed(BigInt(j + 1)));
      const B = spec.bucket_size;
      // (a * b) mod B, exact: products of 16 by 32 bits stay below 2^53.
      this.times =
        B === 2 ** 32
          ? (a, b) => Math.imul(a, b) >>> 0
          : (a, b) => ((((a >>> 16) * b) % B) * 65536 + (a & 0xffff) * b) % B;
    }

    // Output j of SplitMix64 from the spec's seed, its upper half.
    random(j) {
      const mask = (1n << 64n) - 1n;
      let z = (BigInt(this.spec.seed) + j * 0x9e3779b97f4a7c15n) & mask;
      z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & mask;
      z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & mask;
      return (z ^ (z >> 31n)) >> 32n;
    }

    seed(j) {
      const B = BigInt(this.spec.bucket_size), u = this.random(j);
      return Number((B & (B - 1n)) === 0n ? u % B | 1n : 1n + (u % (B - 1n)));
    }

    // Signatures of a token by part: the i-grams of its code points, then the whole token if it has a width.
    signatures(token) {
      const { bucket_size: B, base, max_gram, continuation, short_tokens } = this.spec;
      if (continuation === "strip" && token.startsWith("##") && token.length > 2) token = token.slice(2);
      const points = Array.from(token, (character) => character.codePointAt(0) % B);
      const roll = (from, length) => {
        let h = 0;
        for (let i = from; i < from + length; i++) h = (this.times(h, base) + points[i]) % B;
        return h;
      };
      const parts = [];
      for (let i = 1; i <= max_gram; i++) {
        if (points.length >= i) parts.push(points.slice(i - 1).map((_, start) => roll(start, i)));
        else parts.push(short_tokens === "whole" ? [roll(0, points.length)] : []);
      }
      if (this.spec.whole_token_width) parts.push([roll(0, points.length)]);
      return parts;
    }

    // The vector of any token, in the vocabulary or not: Float32Array of `width`.
    vector(token) {
      return this.project(this.signatures(token));
    }

    project(parts) {
      const B = this.spec.bucket_size, half = B - Math.floor(B / 2), f32 = Math.fround;
      const limit = this.spec.scale ?? 1, out = new Float32Array(this.width);
      let column = 0;
      parts.forEach((signatures, part) => {
        const weight = signatures.length ? f32((limit * 2) / (B * signatures.length)) : 0;
        for (const stop = column + this.spec.widths[part]; column < stop; column++) {
          let total = 0;
          for (const signature of signatures) {
            const projected = this.times(signature, this.seeds[column]);
            total = f32(total + f32(projected >= half ? projected - B : projected));
          }
          out[column] = Math.min(Math.max(f32(total * weight), -f32(limit)), f32(limit));
        }
      });
      return out;
    }
  }

  // erf by a Taylor series at 257 nodes of [0, 4], Hermite's cubic between them: exact to 1e-8.
  const NODES = 64, LAST = 4;
  const erfNodes = Float64Array.from({ length: LAST * NODES + 1 }, (_, i) => {
    const x = i / NODES;
    let term = x, sum = x;
    for (let n = 1; Math.abs(term) > 1e-17 && x > 0; n++) sum += (term *= (-x * x) / n) / (2 * n + 1);
    return (2 / Math.sqrt(Math.PI)) * sum;
  });
  const erfSlopes = erfNodes.map((_, i) => ((2 / Math.sqrt(Math.PI)) * Math.exp(-((i / NODES) ** 2))) / NODES);
  const erf = (x) => {
    const far = Math.abs(x);
    if (far >= LAST) return Math.sign(x);
    const i = Math.floor(far * NODES), t = far * NODES - i, u = 1 - t;
    const value =
      u * u * ((1 + 2 * t) * erfNodes[i] + t * erfSlopes[i]) +
      t * t * ((3 - 2 * t) * erfNodes[i + 1] - u * erfSlopes[i + 1]);
    return x < 0 ? -value : value;
  };

  // web/dense.wat, assembled (wat2wasm): 128-bit registers take four products at once.
  const ASSEMBLED =
    "AGFzbQEAAAABCwFgB39/f39/f38AAhABBHBhZ2UGbWVtb3J5AgABAwIBAAcJAQVkZW5zZQAACokEAYYEAgh/BXsgBkECdCEOA0AgACAFaiEHIA" +
    "cgBWohCCAIIAVqIQkgASENIAMhDEEAIQsDQP0MAAAAAAAAAAAAAAAAAAAAACEQ/QwAAAAAAAAAAAAAAAAAAAAAIRH9DAAAAAAAAAAAAAAAAAAA" +
    "AAAhEv0MAAAAAAAAAAAAAAAAAAAAACETQQAhCgNAIA0gCmr9AAQAIQ8gECAPIAAgCmr9AAQA/eYB/eQBIRAgESAPIAcgCmr9AAQA/eYB/eQBIR" +
    "EgEiAPIAggCmr9AAQA/eYB/eQBIRIgEyAPIAkgCmr9AAQA/eYB/eQBIRMgCkEQaiIKIAVJDQALIBAgEf0NAAECAxAREhMEBQYHFBUWFyAQIBH9" +
    "DQgJCgsYGRobDA0ODxwdHh/95AEhECASIBP9DQABAgMQERITBAUGBxQVFhcgEiAT/Q0ICQoLGBkaGwwNDg8cHR4f/eQBIRIgECAS/Q0AAQIDBA" +
    "UGBxAREhMUFRYXIBAgEv0NCAkKCwwNDg8YGRobHB0eH/3kASACIAtBAnRq/QkCAP3kASEQIAwgEP0fADgCACAMIA5qIBD9HwE4AgAgDCAOQQF0" +
    "aiAQ/R8COAIAIAwgDkEDbGogEP0fAzgCACAMQQRqIQwgDSAFaiENIAtBAWoiCyAGSQ0ACyAJIAVqIQAgAyAOQQJ0aiEDIARBBGsiBEEASg0ACw" +
    "s=";

  // Its function and memory; null in a browser that has none or forbids it.
  const simd = (() => {
    try {
      const memory = new WebAssembly.Memory({ initial: 1 }), module = new WebAssembly.Module(bytesOf(ASSEMBLED));
      return { memory, dense: new WebAssembly.Instance(module, { page: { memory } }).exports.dense };
    } catch {
      return null;
    }
  })();

  // out[l] = x[l] times the kernel, kept as [out, in], plus bias.
  function dense(x, length, layer) {
    return simd && length > 3 ? denseBySimd(x, length, layer) : densePlain(x, length, layer);
  }

  // Operands are copied to where the function finds them, rows and inputs filled up to fours.
  function denseBySimd(x, length, { kernel, bias, inputs, outputs }) {
    const filled = 4 * Math.ceil(inputs / 4), w = 4 * Math.ceil(length / 4) * filled, b = w + outputs * filled;
    const out = b + outputs, missing = 4 * (out + 4 * Math.ceil(length / 4) * outputs) - simd.memory.buffer.byteLength;
    if (missing > 0) simd.memory.grow(Math.ceil(missing / 65536));
    const floats = new Float32Array(simd.memory.buffer);
    const put = (values, at, rows) => {
      if (inputs === filled) return floats.set(values, at);
      for (let row = 0; row < rows; row++, at += filled) {
        floats.set(values.subarray(row * inputs, (row + 1) * inputs), at);
        floats.fill(0, at + inputs, at + filled);
      }
    };
    put(x, 0, length);
    put(kernel, w, outputs);
    bias ? floats.set(bias, b) : floats.fill(0, b, out);
    simd.dense(0, 4 * w, 4 * b, 4 * out, length, 4 * filled, outputs);
    return floats.slice(out, out + length * outputs);
  }

  // Four rows share each read of the kernel.
  function densePlain(x, length, { kernel, bias, inputs, outputs }) {
    const out = new Float32Array(length * outputs);
    for (let l = 0; l < length; l += 4) {
      const rows = Math.min(4, length - l), at = l * inputs;
      const one = at, two = rows > 1 ? at + inputs : at, three = rows > 2 ? at + 2 * inputs : at;
      const four = rows > 3 ? at + 3 * inputs : at;
      for (let o = 0; o < outputs; o++) {
        let a = 0, b = 0, c = 0, d = 0;
        for (let i = 0, k = o * inputs; i < inputs; i++, k++) {
          const weight = kernel[k];
          a += x[one + i] * weight;
          b += x[two + i] * weight;
          c += x[three + i] * weight;
          d += x[four + i] * weight;
        }
        const add = bias ? bias[o] : 0;
        out[l * outputs + o] = a + add;
        if (rows > 1) out[(l + 1) * outputs + o] = b + add;
        if (rows > 2) out[(l + 2) * outputs + o] = c + add;
        if (rows > 3) out[(l + 3) * outputs + o] = d + add;
      }
    }
    return out;
  }

  function layerNorm(x, width, { scale, bias }, epsilon) {
    for (let start = 0; start < x.length; start += width) {
      let mean = 0, variance = 0;
      for (let i = 0; i < width; i++) mean += x[start + i];
      mean /= width;
      for (let i = 0; i < width; i++) variance += (x[start + i] - mean) ** 2;
      const factor = 1 / Math.sqrt(variance / width + epsilon);
      for (let i = 0; i < width; i++) x[start + i] = (x[start + i] - mean) * factor * scale[i] + bias[i];
    }
    return x;
  }

  function add(x, y) {
    for (let i = 0; i < x.length; i++) x[i] += y[i];
    return x;
  }

  function gelu(x) {
    for (let i = 0; i < x.length; i++) x[i] *= 0.5 * (1 + erf(x[i] * Math.SQRT1_2));
    return x;
  }

  // Shares of the scores from `start` to `end`, in their place.
  function softmax(x, scale = 1, start = 0, end = x.length) {
    let largest = -Infinity, sum = 0;
    for (let i = start; i < end; i++) if (x[i] > largest) largest = x[i];
    for (let i = start; i < end; i++) sum += x[i] = Math.exp((x[i] - largest) * scale);
    for (let i = start; i < end; i++) x[i] /= sum;
    return x;
  }

  const cosine = (x, y) => {
    let both = 0, ofX = 0, ofY = 0;
    for (let i = 0; i < x.length; i++) (both += x[i] * y[i]), (ofX += x[i] ** 2), (ofY += y[i] ** 2);
    return ofX && ofY ? both / Math.sqrt(ofX * ofY) : 0;
  };

  function bytesOf(base64) {
    if (typeof Buffer !== "undefined") return new Uint8Array(Buffer.from(base64, "base64"));
    return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  }

  // Float32Array of a tensor: float32, or int8 with one scale for each output (or, of tables, each row).
  function tensor({ shape, type, offset, scales }, bytes) {
    const size = shape.reduce((product, extent) => product * extent, 1);
    if (type === "float32") return new Float32Array(bytes.buffer.slice(offset, offset + 4 * size));
    const values = new Int8Array(bytes.buffer, offset, size), columns = shape[1];
    const factors = new Float32Array(bytes.buffer.slice(scales.offset, scales.offset + 4 * scales.size));
    const byRow = scales.axis === 1;
    return Float32Array.from(values, (value, i) => value * factors[byRow ? Math.floor(i / columns) : i % columns]);
  }

  // {"a/b": x} as {a: {b: x}}, dense layers with their kernels turned to [out, in].
  function tree(tensors, bytes) {
    const root = {};
    for (const [path, record] of Object.entries(tensors)) {
      const names = path.split("/"), last = names.pop();
      const node = names.reduce((parent, name) => (parent[name] ??= {}), root);
      node[last] = tensor(record, bytes);
      if (last === "kernel" || last === "projection") {
        const [inputs, outputs] = record.shape, kernel = new Float32Array(inputs * outputs);
        for (let i = 0; i < inputs; i++) for (let o = 0; o < outputs; o++) kernel[o * inputs + i] = node[last][i * outputs + o];
        Object.assign(last === "kernel" ? node : (node[last] = {}), { kernel, inputs, outputs });
      }
    }
    return root;
  }

  // How much of each text stays, as Hugging Face's "longest_first" has it.
  function cutLongestFirst(first, second, room) {
    if (first + second <= room) return [first, second];
    const shortest = Math.min(first, second), half = Math.floor(room / 2);
    const [shorter, longer] = 2 * shortest <= room ? [shortest, room - shortest] : [half, room - half];
    return first > second ? [longer, shorter] : [shorter, longer];
  }

  class Model {
    constructor({ config, hash, task, tokens, lowercase, max_length, tensors, weights }) {
      Object.assign(this, { config, task, tokens, maxLength: max_length });
      this.tokenizer = new Tokenizer(tokens, lowercase);
      this.params = tree(tensors, bytesOf(weights));
      this.hash = hash && new Hash(hash, config.hash_vector_width, tokens);
      this.cache = new Map();
    }

    // Ids of one or two texts between [CLS] and [SEP] and their segments; what is too long loses its end.
    row(first, second) {
      const cls = this.tokenizer.ids.get("[CLS]"), sep = this.tokenizer.ids.get("[SEP]");
      const pair = second !== undefined, room = this.maxLength - (pair ? 3 : 2);
      const one = this.tokenizer.tokenize(first), two = pair ? this.tokenizer.tokenize(second) : [];
      const [keptOne, keptTwo] = cutLongestFirst(one.length, two.length, room);
      const ids = [cls, ...one.slice(0, keptOne), sep];
      if (pair) ids.push(...two.slice(0, keptTwo), sep);
      return { ids, types: ids.map((_, i) => (i > keptOne + 1 ? 1 : 0)) };
    }

    // The embedding of a token: of its hash, projected where that is wider, or of a trained table.
    word(id) {
      if (!this.cache.has(id)) this.cache.set(id, this.wordOf(id));
      return this.cache.get(id);
    }

    wordOf(id) {
      const { word_embeddings: words } = this.params.bert.embeddings, width = this.config.embedding_width;
      if (!this.hash) return words.embedding.subarray(id * width, (id + 1) * width);
      const byId = this.config.embedding === "random_hash";
      const hashed = byId
        ? this.hash.project([[Number(this.hash.random(2n ** 32n + BigInt(id)))]])
        : this.hash.vector(this.tokens[id]);
      return words?.projection ? dense(hashed, 1, words.projection) : hashed;
    }

    // Hidden states [L, D] of a row.
    encode({ ids, types }) {
      const { config, params } = this, E = config.embedding_width, length = ids.length;
      const { embeddings, encoder } = params.bert;
      const positions = embeddings.position_embeddings.embedding, segments = embeddings.token_type_embeddings?.embedding;
      let hidden = new Float32Array(length * E);
      ids.forEach((id, l) => {
        const word = this.word(id);
        for (let i = 0; i < E; i++) hidden[l * E + i] = word[i] + (positions[l * E + i] + (segments?.[types[l] * E + i] ?? 0));
      });
      layerNorm(hidden, E, embeddings.LayerNorm, config.layer_norm_eps);
      if (embeddings.projection) hidden = dense(hidden, length, embeddings.projection);
      for (let group = 0; group < config.num_groups; group++)
        for (let recursion = 0; recursion < config.num_recursions; recursion++)
          hidden = this.layer(hidden, length, encoder[`layer_${group}`], recursion);
      return hidden;
    }

    layer(hidden, length, layer, recursion) {
      const adapt = (x, name) => {
        const adapter = layer[`${name}_adapter_${recursion}`];
        return adapter ? this.closed(gelu(dense(x, length, adapter.down)), x, length, adapter.up, adapter.LayerNorm) : x;
      };
      hidden = adapt(hidden, "attention");
      const mixed = this.attention(hidden, length, layer.attention.self);
      const { output } = layer.attention;
      const attended = adapt(this.closed(mixed, hidden, length, output.dense, output.LayerNorm), "output");
      const widened = gelu(dense(attended, length, layer.intermediate.dense));
      return this.closed(widened, attended, length, layer.output.dense, layer.output.LayerNorm);
    }

    // LayerNorm(residual + Dense(x)).
    closed(x, residual, length, kernel, norm) {
      return layerNorm(add(dense(x, length, kernel), residual), this.config.hidden_size, norm, this.config.layer_norm_eps);
    }

    // A head at a time, its products by `dense`: queries times keys, shares times values.
    attention(hidden, length, { query, key, value }) {
      const D = this.config.hidden_size, width = D / this.config.num_attention_heads;
      const [q, k, v] = [query, key, value].map((kernel) => dense(hidden, length, kernel));
      const out = new Float32Array(length * D);
      for (let at = 0; at < D; at += width) {
        const head = (x) => {
          const rows = new Float32Array(length * width);
          for (let l = 0; l < length; l++) for (let i = 0; i < width; i++) rows[l * width + i] = x[l * D + at + i];
          return rows;
        };
        const shares = dense(head(q), length, { kernel: head(k), inputs: width, outputs: length });
        for (let l = 0; l < shares.length; l += length) softmax(shares, 1 / Math.sqrt(width), l, l + length);
        const values = new Float32Array(width * length); // [width, L], as `dense` reads a kernel
        for (let i = 0; i < width; i++) for (let m = 0; m < length; m++) values[i * length + m] = v[m * D + at + i];
        const mixed = dense(shares, length, { kernel: values, inputs: length, outputs: width });
        for (let l = 0; l < length; l++) for (let i = 0; i < width; i++) out[l * D + at + i] = mixed[l * width + i];
      }
      return out;
    }

    // Vector of a text: the mean of its hidden states, through the head of a sentence encoder where there is one.
    embed(text) {
      return this.vector(this.row(text));
    }

    vector(row) {
      const hidden = this.encode(row), D = this.config.hidden_size;
      const mean = new Float32Array(D);
      hidden.forEach((value, i) => (mean[i % D] += value / row.ids.length));
      const head = this.params.projection;
      return head ? dense(mean, 1, head) : mean;
    }

    logits(first, second) {
      const row = this.row(first, second), hidden = this.encode(row), { bert, classifier } = this.params;
      const start = hidden.subarray(0, this.config.hidden_size);
      const activation = this.config.architecture === "distilbert" ? (x) => Math.max(x, 0) : Math.tanh;
      const pooled = bert.pooler ? dense(start, 1, bert.pooler.dense).map((x) => activation(x)) : start;
      return dense(pooled, 1, classifier);
    }

    // Probabilities of the classes, of each of several labels, or the number of a regression.
    outputs(first, second) {
      const logits = this.logits(first, second), { kind, mean, std } = this.task;
      if (kind === "multilabel") return Array.from(logits, (logit) => 1 / (1 + Math.exp(-logit)));
      return kind === "regress" ? [logits[0] * std + mean] : Array.from(softmax(logits));
    }

    // {label: probability}, or a number.
    classify(first, second) {
      const outputs = this.outputs(first, second), { kind, labels } = this.task;
      return kind === "regress" ? outputs[0] : Object.fromEntries(outputs.map((share, i) => [labels[i], share]));
    }
  }

  return { Tokenizer, Hash, Model, cosine, dense, isFast: simd !== null };
})();

if (typeof module !== "undefined") module.exports = Eelbert;
