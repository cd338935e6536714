// Models that write texts, continued token by token or translated, and their tokenizers: those of
// `kerasdl.data.text.tokenizer`.

const EOS_ID = 2, UNKNOWN_ID = 3, SPECIAL_IDS = 4;
const BLANKS = "\\t\\n\\x0b\\f\\r \\p{Z}";
const WORDS = new RegExp(` ?\\p{L}+| ?\\p{N}+| ?[^${BLANKS}\\p{L}\\p{N}]+|[${BLANKS}]+`, "gu");
const WORD_BYTES = 32;  // after which BPE splits as well
const BREAKS = /^[\t\n\f\r \p{Cc}\p{Cf}]$/u;  // what separates the words of WordPiece
const CHINESE = "\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2ceaf}\uf900-\ufaff\u{2f800}-\u{2fa1f}";
const ALONE = new RegExp(`^[!-/:-@[-\`{-~\\p{P}${CHINESE}]$`, "u");
const LONGEST_WORD = 100;  // bytes; WordPiece does not know longer ones
const NORMAL = 1, USER_DEFINED = 4, BYTE = 6;  // types of SentencePiece's pieces
const UNKNOWN_PENALTY = 10;
const SPACED = "margin: .5rem 0;";
const WRITTEN = `display: block; white-space: pre-wrap; ${SPACED}`;

function utf8Text(bytes) {
  return new TextDecoder("utf-8", {ignoreBOM: true}).decode(bytes);
}

/** One character per byte of UTF-8. */
function byteText(text) {
  let result = "";
  for (const byte of new TextEncoder().encode(text)) result += String.fromCharCode(byte);
  return result;
}

function bytesOfText(text) {
  return Uint8Array.from(text, (c) => c.charCodeAt(0));
}

/**
 * `encode(text)` gives ids without specials, `decode(ids)` the text up to the first end;
 * `unknown(text)` are the characters without an id. Lone surrogates are read as U+FFFD.
 */
function tokenizerOf(metadata) {
  const make = {
    char: charEncoder, byte: () => byteIds, bpe: bpeEncoder, wordpiece: wordpieceEncoder,
    sentencepiece: unigramEncoder,
  }[metadata.kind];
  if (!make) throw new Error(`The tokenizer ${metadata.kind} is not in this page.`);
  const encode = make(metadata);
  return {
    encode: (text) => encode(utf8Text(new TextEncoder().encode(text))),
    decode(ids) {
      const end = ids.indexOf(EOS_ID), kept = end < 0 ? ids : ids.slice(0, end);
      const text = utf8Text(bytesOfText(Array.from(kept, (i) => metadata.pieces[i]).join("")));
      return metadata.strip && text.startsWith(" ") ? text.slice(1) : text;
    },
    unknown: (text) => metadata.kind !== "char" ? []
      : [...new Set(text)].filter((c) => encode(c)[0] === UNKNOWN_ID)
        .sort((a, b) => a.codePointAt(0) - b.codePointAt(0)),
  };
}

function byteIds(text) {
  return Array.from(new TextEncoder().encode(text), (byte) => byte + SPECIAL_IDS);
}

function charEncoder({pieces}) {
  const ids = new Map();
  for (let i = SPECIAL_IDS; i < pieces.length; i++) ids.set(utf8Text(bytesOfText(pieces[i])), i);
  return (text) => Array.from(text, (c) => ids.get(c) ?? UNKNOWN_ID);
}

function bpeEncoder({pieces, merges}) {
  const size = pieces.length, numbers = new Map(pieces.map((piece, i) => [piece, i]));
  const ranks = new Map(merges.map(([a, b], rank) => [a * size + b, rank]));
  const joined = merges.map(([a, b]) => numbers.get(pieces[a] + pieces[b]));
  const known = new Map();
  const join = (ids) => {
    for (;;) {
      let best = -1, lowest = Infinity;
      for (let i = 0; i + 1 < ids.length; i++) {
        const rank = ranks.get(ids[i] * size + ids[i + 1]);
        if (rank < lowest) [best, lowest] = [i, rank];
      }
      if (best < 0) return ids;
      ids.splice(best, 2, joined[lowest]);
    }
  };
  const read = (word) => {
    const ids = byteIds(word), result = [];
    for (let i = 0; i < ids.length; i += WORD_BYTES) {
      result.push(...join(ids.slice(i, i + WORD_BYTES)));
    }
    known.set(word, result);
    return result;
  };
  return (text) => (text.match(WORDS) ?? []).flatMap((word) => known.get(word) ?? read(word));
}

/** The longest piece that fits, again and again; a word that they do not make up is unknown. */
function wordpieceEncoder({pieces}) {
  const starts = new Map(), suffixes = new Map();
  for (let i = SPECIAL_IDS; i < pieces.length; i++) {
    const piece = utf8Text(bytesOfText(pieces[i]));
    if (piece.startsWith(" ")) starts.set(piece.slice(1), i);
    else suffixes.set(piece, i);
  }
  const read = (characters) => {
    if (byteText(characters.join("")).length > LONGEST_WORD) return [UNKNOWN_ID];
    const result = [];
    for (let start = 0; start < characters.length;) {
      const from = start ? suffixes : starts;
      let end = characters.length;
      while (end > start && !from.has(characters.slice(start, end).join(""))) end--;
      if (end === start) return [UNKNOWN_ID];
      result.push(from.get(characters.slice(start, end).join("")));
      start = end;
    }
    return result;
  };
  return (text) => {
    const words = [[]];
    for (const c of text.split("\0")[0]) {  // where the operation of Python's graph ends a text
      if (BREAKS.test(c)) words.push([]);
      else if (ALONE.test(c)) words.push([c], []);
      else words.at(-1).push(c);
    }
    return words.flatMap(read);
  };
}

/** The fields of a message of protocol buffers, `[number, value]`: bytes, or a number. */
function* protobuf(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let place = 0;
  const varint = () => {
    let value = 0, factor = 1, byte;
    do {
      byte = bytes[place++];
      value += (byte & 127) * factor;
      factor *= 128;
    } while (byte & 128);
    return value;
  };
  while (place < bytes.length) {
    const tag = varint(), kind = tag & 7, number = Math.floor(tag / 8);
    if (kind === 0) yield [number, varint()];
    else if (kind === 2) {
      const length = varint();
      yield [number, bytes.subarray(place, place += length)];
    } else {
      yield [number, kind === 5 ? view.getFloat32(place, true) : view.getFloat64(place, true)];
      place += kind === 5 ? 4 : 8;
    }
  }
}

/** SentencePiece's unigram model: the likeliest way to make up the text, in its 32-bit floats. */
function unigramEncoder({model}) {
  const pieces = new Map(), ofByte = [], scores = [];
  let id = 0, longest = 1;
  for (const [number, message] of protobuf(bytesOf(model))) {
    if (number !== 1) continue;
    const {1: name, 2: score = 0, 3: type = NORMAL} = Object.fromEntries(protobuf(message));
    const piece = String.fromCharCode(...name);
    if (type === BYTE) ofByte[parseInt(piece.slice(1, -1), 16)] = id;
    if (type === NORMAL) scores.push(score);
    if (type === NORMAL || type === USER_DEFINED) {
      pieces.set(piece, {id, score, user: type === USER_DEFINED});
      longest = Math.max(longest, piece.length);
    }
    id++;
  }
  const unknown = Math.fround(Math.min(...scores) - UNKNOWN_PENALTY), highest = Math.max(...scores);
  return (text) => {
    if (!text) return [];
    const bytes = byteText(`\u2581${text.replaceAll(" ", "\u2581")}`);
    const best = Array.from({length: bytes.length + 1}, () => null);
    best[0] = {score: 0};
    const offer = (end, score, start, piece) => {
      if (best[end] && score <= best[end].score) return;
      best[end] = {score: Math.fround(score), start, piece};
    };
    for (let start = 0; start < bytes.length;) {
      const first = bytes.charCodeAt(start), before = best[start].score;
      const next = start + (first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4);
      let single = false;
      for (let end = start + 1; end <= Math.min(start + longest, bytes.length); end++) {
        const piece = pieces.get(bytes.slice(start, end));
        if (!piece) continue;
        const score = piece.user ? Math.fround((end - start) * highest) - 0.1 : piece.score;
        offer(end, score + before, start, piece.id);
        single ||= end === next;
      }
      if (!single) offer(next, Math.fround(unknown + before), start, null);
      start = next;
    }
    const result = [];
    for (let end = bytes.length; end > 0; end = best[end].start) {
      const {start, piece} = best[end];
      if (piece !== null) result.push(piece);
      else for (let i = end - 1; i >= start; i--) result.push(ofByte[bytes.charCodeAt(i)]);
    }
    return result.reverse();
  };
}

/** A number with its limits: `read()` gives it, or throws a sentence. */
function numberField(text, {min, max, step = 1, value}) {
  const input = element("input", {type: "number", min, max, step, value, inputMode: "decimal"});
  input.style.width = "8rem";
  const read = () => {
    const number = input.valueAsNumber;
    if (number >= min && number <= max && (step !== 1 || Number.isInteger(number))) return number;
    const kind = step === 1 ? "a whole number" : "a number";
    throw new Error(`${text}: must be ${kind} of at least ${min} and at most ${max}.`);
  };
  return {node: field(text, input), input, read};
}

/** Lets the browser show what has changed, and take clicks. */
function breathe(milliseconds = 0) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** A seed of several numbers. */
function mixed(...numbers) {
  return numbers.reduce((seed, number) => {
    const next = Math.imul(seed ^ number ^ (number / 2 ** 32), 0x9e3779b1);
    return (next ^ (next >>> 15)) >>> 0;
  }, 0x2545f491);
}

/**
 * Buttons that start and stop what takes a while: `action(going)` goes on as long as `going()`, and
 * what it throws is shown.
 */
function startAndStop(root, text, action) {
  const start = element("button", {type: "button", className: "main"}, text);
  const stop = element("button", {type: "button", disabled: true}, "Stop");
  let going = false;
  const run = async () => {
    if (going) return;
    going = true;
    const focused = document.activeElement === start;
    stop.disabled = false;
    if (focused) stop.focus({preventScroll: true});
    start.disabled = true;
    showError(root, "");
    try {
      await action(() => going);
    } catch (error) {
      showError(root, sentence(error));
    }
    going = start.disabled = false;
    const lost = focused && document.activeElement === document.body;
    if (lost || document.activeElement === stop) start.focus({preventScroll: true});
    stop.disabled = true;
  };
  start.onclick = run;
  stop.onclick = () => { going = false; };
  return {start, stop, run};
}

function idsTensor(ids, width) {
  const data = new Int32Array(width);
  data.set(ids);
  return {data, shape: [1, width]};
}

function lengthTensor(ids) {
  return {data: Int32Array.of(ids.length), shape: [1]};
}

/** The next token of logits: the likeliest at temperature 0, or else by a number in [0, 1). */
function chooseToken(logits, temperature, topK, random) {
  let best = SPECIAL_IDS;
  for (let i = best + 1; i < logits.length; i++) if (logits[i] > logits[best]) best = i;
  if (!temperature) return best;
  const values = logits.slice(SPECIAL_IDS), top = logits[best];
  const kept = topK && topK < values.length ? values.slice().sort().at(-topK) : -Infinity;
  const weights = Array.from(values, (v) => v < kept ? 0 : Math.exp((v - top) / temperature));
  let rest = random * weights.reduce((a, b) => a + b, 0);
  for (let i = 0; i < weights.length; i++) {
    rest -= weights[i];
    if (rest < 0) return SPECIAL_IDS + i;
  }
  return best;
}

/** The ids that follow, one by one. Each is read off the last ones before it that fit. */
async function* continuation(model, description, ids, {count, temperature, topK, seed}) {
  const {next_token, greedy} = description.signatures;
  const width = next_token.inputs.token_ids.shape[1];
  const room = Math.min(width, description.context ?? width);
  const all = [...ids], end = ids.length + count;
  // A recurrent model remembers more than fits: what `greedy` writes goes on from there.
  if (!temperature && greedy && !description.context && all.length <= width && end > width + 1) {
    const inputs = {token_ids: idsTensor(all, width), token_ids_length: lengthTensor(all)};
    const written = (await model.run("greedy", inputs)).token_ids.data;
    all.push(...written.subarray(0, count));
    yield* written.subarray(0, count);
  }
  while (all.length < end) {
    const window = all.slice(-room);
    const inputs = {token_ids: idsTensor(window, width), token_ids_length: lengthTensor(window)};
    const {logits} = await model.run("next_token", inputs);
    const [random] = uniforms(1, mixed(seed, all.length));
    all.push(chooseToken(logits.data, temperature, topK, random));
    yield all.at(-1);
  }
}

function unknownNote(characters) {
  return characters.length ? ` Read as unknown: ${characters.join(" ")}` : "";
}

function continuationApplies(description) {
  const inputs = description.signatures.next_token?.inputs;
  return Boolean(description.tokenizer && inputs?.token_ids_length);
}

function continuationPanel(root, model, description) {
  root.append(element("h2", {}, "Text"));
  const tokenizer = tokenizerOf(description.tokenizer);
  const greedy = description.signatures.greedy?.outputs.token_ids;
  const prompt = element("textarea", {rows: 3, id: "prompt", value: "The ", spellcheck: false});
  const count = numberField("Tokens", {min: 1, max: 10000, value: greedy?.shape[1] ?? 100});
  const temperature = numberField("Temperature", {min: 0, max: 10, step: "any", value: 0.8});
  const topK = numberField("Top k (0: all)", {min: 0, max: 1e6, value: 0});
  const seed = numberField("Seed", {min: 0, max: 2 ** 32 - 1, value: 0});
  const output = element("output", {className: "written", style: WRITTEN});
  const said = element("p", {className: "note", role: "status"});
  const {start, stop} = startAndStop(root, "Write", async (going) => {
    output.textContent = said.textContent = "";
    const ids = tokenizer.encode(prompt.value), begin = performance.now();
    if (!ids.length) throw new Error("The prompt is empty; write at least one character.");
    const settings = {
      count: count.read(), temperature: temperature.read(), topK: topK.read(), seed: seed.read(),
    };
    let number = 0;
    output.setAttribute("aria-busy", "true");  // read aloud as a whole
    try {
      output.textContent = tokenizer.decode(ids);
      for await (const token of continuation(model, description, ids, settings)) {
        ids.push(token);
        number++;
        output.textContent = tokenizer.decode(ids);
        await breathe();
        if (!going()) break;
      }
    } finally {
      output.removeAttribute("aria-busy");
    }
    const seconds = (performance.now() - begin) / 1000;
    const speed = (number / seconds).toFixed(1), note = unknownNote(tokenizer.unknown(prompt.value));
    said.textContent = `${number} tokens, ${speed} per second.${note}`;
  });
  const {shape} = description.signatures.next_token.inputs.token_ids;
  const numbers = [count, temperature, topK, seed].map((one) => one.node);
  const note = "Temperature 0 writes the likeliest token each time. "
    + `A token follows from the ${description.context ?? shape[1]} before it.`;
  root.append(
    element("div", {}, element("label", {for: "prompt"}, "Prompt"), prompt),
    element("div", {className: "row", style: SPACED}, ...numbers),
    element("div", {className: "row", style: SPACED}, start, stop),
    output, said,
    element("p", {className: "note"}, note),
  );
}

function translationApplies(description) {
  const {inputs, outputs} = description.signatures.greedy ?? {};
  return Boolean(description.tokenizer && inputs?.source_ids && outputs.target_ids);
}

function translationPanel(root, model, description) {
  root.append(element("h2", {}, "Translation"));
  const tokenizer = tokenizerOf(description.tokenizer);
  const {inputs} = description.signatures.greedy, width = inputs.source_ids.shape[1];
  const source = element("textarea", {rows: 3, id: "source", spellcheck: false});
  const output = element("output", {className: "written", style: WRITTEN});
  const said = element("p", {className: "note", role: "status"});
  const {start} = startAndStop(root, "Translate", async () => {
    output.textContent = said.textContent = "";
    const ids = tokenizer.encode(source.value);
    if (!ids.length) throw new Error("The text is empty; write at least one character.");
    if (ids.length >= width) {
      throw new Error(`The text has ${ids.length} tokens; at most ${width - 1} are read.`);
    }
    ids.push(EOS_ID);
    const given = {source_ids: idsTensor(ids, width)};
    if (inputs.source_ids_length) given.source_ids_length = lengthTensor(ids);
    const {target_ids} = await model.run("greedy", given);
    output.textContent = tokenizer.decode([...target_ids.data]);
    said.textContent = unknownNote(tokenizer.unknown(source.value));
  });
  const note = `At most ${width - 1} tokens. The likeliest token is written each time; `
    + "the served model searches further.";
  root.append(
    element("div", {}, element("label", {for: "source"}, "Text"), source),
    element("div", {className: "row", style: SPACED}, start),
    output, said,
    element("p", {className: "note"}, note),
  );
}
