// What all panels use: elements, errors, random numbers, and the model, run by LiteRT.js.

/** A DOM element; properties with a dash are attributes, children are nodes or texts. */
function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role" || name === "for") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children);
  return node;
}

let fields = 0;

/** A control with a visible label. */
function field(text, control) {
  control.id ||= `field${++fields}`;
  return element("div", {className: "field"}, element("label", {for: control.id}, text), control);
}

/** One sentence in the panel's own alert; an empty one takes it away. */
function showError(root, text) {
  let alert = root.querySelector(":scope > [role=alert]");
  if (!alert) {
    alert = element("p", {role: "alert"});
    root.append(alert);
  }
  alert.textContent = text;
}

function sentence(error) {
  return String(error?.message || error?.type || error).split("\n")[0].slice(0, 300);
}

/** Numbers in [0, 1), the same for the same seed (mulberry32). */
function uniforms(count, seed) {
  let state = seed >>> 0;
  return Float32Array.from({length: count}, () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
    return ((t ^ (t >>> 14)) >>> 8) / 2 ** 24;
  });
}

/** Numbers of mean 0 and variance 1, the same for the same seed (Box and Muller). */
function normals(count, seed) {
  const pairs = uniforms(2 * Math.ceil(count / 2), seed);
  const result = new Float32Array(pairs.length);
  for (let i = 0; i < pairs.length; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(1 - pairs[i]));
    result[i] = radius * Math.cos(2 * Math.PI * pairs[i + 1]);
    result[i + 1] = radius * Math.sin(2 * Math.PI * pairs[i + 1]);
  }
  return result.subarray(0, count);
}

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
}

const settings = JSON.parse(document.getElementById("runtime").textContent);
const description = JSON.parse(document.getElementById("description").textContent);

// A module with one SIMD instruction: (func (result v128) i32.const 0 i8x16.splat i8x16.popcnt)
const SIMD = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15,
  253, 98, 11,
]);

let library = null;

/** LiteRT.js, loaded once; another attempt may follow one that failed. */
function loadRuntime() {
  if (typeof WebAssembly !== "object" || !WebAssembly.validate(SIMD)) {
    const needs = "WebAssembly SIMD (Chrome 91, Firefox 89, Safari 16.4, or newer)";
    throw new Error(`This browser cannot run the model: it lacks ${needs}.`);
  }
  library ??= importRuntime().catch((error) => {
    library = null;
    throw error;
  });
  return library;
}

async function importRuntime() {
  const local = settings.local;
  const remedy = !local
    ? "Is there a connection to the internet?"
    : location.protocol === "file:"
      ? "Browsers load it from a server only: run `kerasdl show --web DIR --serve`."
      : "Write the page again with `kerasdl show --web DIR --runtime FOLDER`.";
  let runtime;
  try {
    runtime = await import("@litertjs/core");
  } catch {
    throw new Error(`LiteRT.js could not be loaded from ${settings.core}. ${remedy}`);
  }
  const wasm = new URL(settings.wasm, document.baseURI).href;
  try {
    await runtime.loadLiteRt(wasm);
  } catch {
    throw new Error(`The WebAssembly file could not be loaded from ${settings.wasm}. ${remedy}`);
  }
  return runtime;
}

/**
 * A TFLite file, ready to run.
 * `run(signature, {input: {data, shape}})` gives `{output: {data, shape}}`; `milliseconds` are of
 * the last run, `backend` is what does the work: "wasm" or "webgpu".
 */
async function openModel(bytes, accelerator) {
  const {loadAndCompile, Tensor} = await loadRuntime();
  let compiled;
  try {
    compiled = await loadAndCompile(bytes, {accelerator});
  } catch (error) {
    throw new Error(`The model could not be loaded by ${accelerator}: ${sentence(error)}`);
  }
  const whole = accelerator !== "webgpu" || compiled.isFullyAccelerated;
  const model = {
    backend: whole ? accelerator : "wasm",
    milliseconds: null,
    close: () => compiled.delete(),
    async run(signature, inputs) {
      const tensors = {}, result = {};
      let outputs = {};
      try {
        for (const [name, {data, shape}] of Object.entries(inputs)) {
          tensors[name] = new Tensor(data, shape);
        }
        const start = performance.now();
        outputs = await compiled.run(signature, tensors);
        for (const [name, tensor] of Object.entries(outputs)) {
          const shape = [...tensor.type.layout.dimensions];
          result[name] = {data: (await tensor.data()).slice(), shape};
        }
        model.milliseconds = performance.now() - start;
      } finally {
        for (const tensor of [...Object.values(tensors), ...Object.values(outputs)]) {
          if (!tensor.deleted) tensor.delete();
        }
      }
      return result;
    },
  };
  return model;
}
