// Models that make pictures: of latent codes, of noise, of noise step by step.

const SLIDERS = 16;  // at most so many numbers of a code are shown
const CODE_LIMIT = 3, FREE_LIMIT = 10;  // of sliders, where codes are normal, and where they are not
const GRID = 8, WALK_STEPS = 24, STILLS = 8, FRAME = 50;  // milliseconds
const THUMB = "width: 6rem; max-width: 100%;";

/** The numbers of a latent code: normal, or uniform of mean 0 and variance 1. */
function latentNumbers(distribution, count, seed) {
  if (distribution === "normal") return normals(count, seed);
  if (distribution !== "uniform") {
    throw new Error(`The distribution ${distribution} is not in this page.`);
  }
  return uniforms(count, seed).map((u) => Math.sqrt(3) * (2 * u - 1));
}

/** Between two codes: on the arc of normal ones, whose lengths pass too; else on the line. */
function between(a, b, weight, distribution) {
  const line = (x, y) => x + weight * (y - x);
  if (distribution !== "normal") return a.map((x, i) => line(x, b[i]));
  const [la, lb] = [a, b].map((v) => Math.hypot(...v) || 1);
  const cosine = a.reduce((sum, x, i) => sum + (x / la) * (b[i] / lb), 0);
  const angle = Math.acos(Math.min(Math.max(cosine, -1 + 1e-6), 1 - 1e-6));
  const [wa, wb] = [1 - weight, weight].map((w) => Math.sin(w * angle) / Math.sin(angle));
  return a.map((x, i) => line(la, lb) * (wa * (x / la) + wb * (b[i] / lb)));
}

function pictureCanvas(name, style = THUMB) {
  const properties = {className: "pixels view", width: 1, height: 1, role: "img", style};
  return element("canvas", {...properties, "aria-label": name});
}

function seedField() {
  return numberField("Seed", {min: 0, max: 2 ** 32 - 1, value: 0});
}

/** Does `action` at once, or once more after the one that goes on. */
function coalesced(root, action) {
  let busy = false, again = false;
  return async () => {
    again = true;
    if (busy) return;
    busy = true;
    while (again) {
      again = false;
      try {
        showError(root, "");
        await action();
      } catch (error) {
        showError(root, sentence(error));
      }
    }
    busy = false;
  };
}

/** What a signature makes of a latent code: its name, the code's length and distribution. */
function latentSignature(description, name) {
  const signature = description.signatures[name] ?? {inputs: {}, outputs: {}};
  const inputs = Object.entries(signature.inputs), images = Object.entries(signature.outputs);
  const image = images.find(([, one]) => one.kind === "image")?.[0];
  if (inputs.length !== 1 || !image) return null;
  const [[input, {shape, noise}]] = inputs;
  const distribution = noise?.distribution ?? null;
  return shape.length === 2 ? {name, input, image, size: shape[1], distribution} : null;
}

async function pictureOf(model, {name, input, image}, code) {
  const given = {data: Float32Array.from(code), shape: [1, code.length]};
  return (await model.run(name, {[input]: given}))[image];
}

/**
 * A walk through codes: `codeAt(n)` are its stops, `show(code)` paints one. Where less motion is
 * preferred, so many pictures on the way stand still side by side.
 */
function walkButtons(root, text, codeAt, distribution, show, still) {
  const stills = element("div", {className: "row", style: SPACED});
  const walk = startAndStop(root, text, async (going) => {
    stills.replaceChildren();
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      for (let i = 0; i < STILLS && going(); i++) {
        const canvas = pictureCanvas(`Picture ${i + 1} on the way`);
        await still(canvas, between(codeAt(0), codeAt(1), i / (STILLS - 1), distribution));
        stills.append(canvas);
      }
      return;
    }
    for (let n = 0; going(); n = (n + 1) % 1e6) {
      const stop = Math.floor(n / WALK_STEPS), weight = (n % WALK_STEPS) / WALK_STEPS;
      const begin = performance.now();
      await show(between(codeAt(stop), codeAt(stop + 1), weight, distribution));
      await breathe(Math.max(0, FRAME - (performance.now() - begin)));
    }
  });
  return {...walk, stills};
}

function codesApplies(description) {
  return latentSignature(description, "decode") !== null;
}

function codesPanel(root, model, description) {
  const from = latentSignature(description, "decode");
  const [limit, spread] = from.distribution ? [CODE_LIMIT, 1] : [FREE_LIMIT, CODE_LIMIT];
  const codeOf = (number) =>
    latentNumbers(from.distribution ?? "normal", from.size, number).map((x) => spread * x);
  let code = new Float32Array(from.size);
  const canvas = pictureCanvas("The picture of the code", "width: 14rem; max-width: 100%;");
  const seed = seedField();
  const sliders = Array.from({length: Math.min(SLIDERS, from.size)}, (_, i) => {
    const value = element("output", {}, "0.00");
    const input = element("input", {type: "range", min: -limit, max: limit, step: 0.01, value: 0});
    input.oninput = () => {
      code[i] = input.valueAsNumber;
      value.textContent = code[i].toFixed(2);
      walk.stop.click();
      draw();
    };
    const node = element("div", {className: "field"}, field(`Number ${i + 1}`, input), value);
    return {input, value, node};
  });
  const paintCode = async (target, numbers) => {
    const {data, shape} = await pictureOf(model, from, numbers);
    paint(target, data, shape);
  };
  const place = (numbers) => {
    code = numbers;
    sliders.forEach(({input, value}, i) => {
      input.value = code[i];
      value.textContent = code[i].toFixed(2);
    });
  };
  const draw = coalesced(root, () => paintCode(canvas, code));
  const set = (numbers) => {
    walk.stop.click();
    place(numbers);
    draw();
  };
  const show = async (numbers) => {
    place(numbers);
    await paintCode(canvas, code);
  };
  const codeAt = (stop) => codeOf(mixed(seed.read(), stop));
  const walk = walkButtons(root, "Walk", codeAt, from.distribution, show, paintCode);
  const random = element("button", {type: "button"}, "Random");
  random.onclick = () => {
    try {
      showError(root, "");
      set(codeOf(seed.read()));
      seed.input.value = (seed.read() + 1) % 2 ** 32;  // the next one is another
    } catch (error) {
      showError(root, sentence(error));
    }
  };
  const zero = element("button", {type: "button"}, "All to 0");
  zero.onclick = () => set(new Float32Array(from.size));
  const hidden = from.size - sliders.length;
  const notes = [
    hidden > 0 && `${hidden} more numbers of the code have no slider; Random sets them too.`,
    !from.distribution && "The codes of this model have no distribution of their own: those of Random "
      + "need not look like its data.",
  ].filter(Boolean).map((text) => element("p", {className: "note"}, text));
  root.append(
    element("h2", {}, "Latent code"),
    element("div", {className: "row top"},
      element("div", {}, canvas),
      element("div", {className: "grow"},
        element("div", {className: "row"}, seed.node, random, zero, walk.start, walk.stop),
        element("div", {className: "row", style: SPACED}, ...sliders.map((one) => one.node)),
        ...notes)),
    walk.stills,
  );
  setTimeout(draw);  // once the model is being loaded
}

function generatedApplies(description) {
  return latentSignature(description, "generate") !== null;
}

function generatedPanel(root, model, description) {
  const from = latentSignature(description, "generate");
  const seed = seedField();
  const codeOf = (number) =>
    latentNumbers(from.distribution ?? "normal", from.size, mixed(seed.read(), number));
  const paintCode = async (target, code) => {
    const {data, shape} = await pictureOf(model, from, code);
    paint(target, data, shape);
  };
  const grid = element("div", {className: "row pictures", style: SPACED});
  const draw = startAndStop(root, `Draw ${GRID} pictures`, async (going) => {
    grid.replaceChildren();
    for (let i = 0; i < GRID && going(); i++) {
      const canvas = pictureCanvas(`Picture ${i + 1}`);
      await paintCode(canvas, codeOf(i));
      grid.append(canvas);
      await breathe();
    }
  });
  const moving = pictureCanvas("The picture on the way", "width: 14rem; max-width: 100%;");
  const show = async (code) => {
    await paintCode(moving, code);
    if (!moving.isConnected) grid.after(moving);
  };
  const walk = walkButtons(root, "Walk", codeOf, from.distribution, show, paintCode);
  root.append(
    element("h2", {}, "Pictures of noise"),
    element("div", {className: "row"}, seed.node, draw.start, walk.start, walk.stop),
    grid, walk.stills,
  );
}

function noisePicture(description) {
  const inputs = Object.entries(description.signatures.sample_from?.inputs ?? {});
  const [name, one] = inputs.find(([, input]) => input.noise) ?? [];
  return one ? {name, ...one} : null;
}

/** Pixels of `x` in [-1, 1] as they are shown. */
function shownNoise(x, scale = 1) {
  return x.map((value) => Math.min(Math.max((value / scale + 1) / 2, 0), 1));
}

/**
 * From noise to a picture by the signature `denoise`, as `kerasdl.ops.diffusion.Sampler.run` does.
 *
 * `noise`: normal numbers; `label`: of a class, the number of classes for none, or null where the
 * model has none; `more(step)`: the numbers that a step adds; `onStep(x, step)`: after each, before
 * which `step` is 0; where it gives false, null is the result. Gives pixels in [0, 1].
 */
async function denoised(model, description, noise, {label, guidance, more, onStep}) {
  const {sampler, signatures} = description, {table, sigmas, classes} = sampler;
  const shape = signatures.denoise.inputs.image.shape;
  const once = async (x, t, k) => {
    const inputs = {image: {data: x, shape}, time: {data: Float32Array.of(t), shape: [1]}};
    if (classes) inputs.label = {data: Int32Array.of(k), shape: [1]};
    return (await model.run("denoise", inputs)).prediction.data;
  };
  const predict = async (x, t) => {
    if (!classes || label === classes || guidance === 1) return once(x, t, label);
    const without = await once(x, t, classes);
    if (guidance === 0) return without;
    const given = await once(x, t, label);
    return without.map((u, i) => u + guidance * (given[i] - u));
  };
  const cleanAt = async (x, [t, p, q, , , , , k]) => {
    const prediction = await predict(k === 1 ? x : x.map((value) => k * value), t);
    const raw = x.map((value, i) => p * value + q * prediction[i]), range = sampler.clip;
    const clipped = (value) => Math.min(Math.max(value, -range), range);
    return [range ? raw.map(clipped) : raw, raw];
  };
  const plain = async (x, i) => {
    const [, , , a, b, c, d] = table[i], [clean, raw] = await cleanAt(x, table[i]);
    const z = sampler.adds_noise && c ? more(i) : null;
    return x.map((value, j) => a * value + b * clean[j] + d * raw[j] + (z ? c * z[j] : 0));
  };
  const heun = async (x, i) => {
    const [, , , a, b] = table[i], [clean] = await cleanAt(x, table[i]);
    const y = x.map((value, j) => a * value + b * clean[j]);
    const [other] = await cleanAt(y, table[i + 1]), half = (sigmas[i] / sigmas[i + 1] - 1) / 2;
    return y.map((value, j) => value + half * (other[j] - clean[j]));
  };
  let x = noise.map((value) => sampler.first * value);
  for (let i = 0; i < sampler.steps; i++) {
    if (await onStep(x, i) === false) return null;
    x = await (sampler.name === "heun" && i < sampler.steps - 1 ? heun : plain)(x, i);
  }
  await onStep(x, sampler.steps);
  return shownNoise(x);
}

function diffusionApplies(description) {
  const steps = description.sampler && description.signatures.denoise?.outputs.prediction;
  return Boolean(steps || noisePicture(description));
}

function diffusionPanel(root, model, description) {
  const {sampler, signatures} = description;
  const stepwise = Boolean(sampler && signatures.denoise?.outputs.prediction);
  const whole = noisePicture(description);
  const {inputs} = stepwise ? signatures.denoise : signatures.sample_from;
  const shape = stepwise ? inputs.image.shape : whole.shape;
  const size = shape.reduce((a, b) => a * b, 1);
  const distribution = stepwise ? "normal" : whole.noise.distribution;
  const names = description.labels, none = sampler?.classes ?? names.length;
  const label = inputs.label && element("select", {},
    ...names.map((name, k) => element("option", {value: k}, name)),
    element("option", {value: none}, "none"));
  const weighs = sampler ? sampler.guides : Boolean(inputs.guidance);
  const weights = {min: 0, max: 100, step: "any", value: sampler?.guidance ?? 1};
  const guidance = weighs && numberField("Guidance", weights);
  const count = numberField("Pictures", {min: 1, max: 64, value: 4});
  const seed = seedField();
  const progress = element("progress", {max: 1, value: 0, "aria-label": "Steps of this picture"});
  const said = element("p", {className: "note", role: "status"});
  const pictures = element("div", {className: "row pictures", style: SPACED});

  const inOneGo = async (noise, settings) => {
    const given = {[whole.name]: {data: noise, shape}};
    if (inputs.label) given.label = {data: Int32Array.of(settings.label), shape: [1]};
    if (inputs.guidance) given.guidance = {data: Float32Array.of(settings.guidance), shape: [1]};
    return (await model.run("sample_from", given)).image.data;
  };
  const {start, stop} = startAndStop(root, "Draw", async (going) => {
    pictures.replaceChildren();
    said.textContent = "";
    const settings = {label: label ? +label.value : null, guidance: guidance ? guidance.read() : 1};
    const total = count.read(), first = seed.read(), begin = performance.now();
    const kind = label ? `, ${label.selectedOptions[0].text}` : "";
    let done = 0;
    for (; done < total && going(); done++) {
      const canvas = pictureCanvas(`Picture ${done + 1}${kind}`);
      const noise = latentNumbers(distribution, size, mixed(first, done));
      pictures.append(canvas);
      const onStep = async (x, step) => {
        paint(canvas, shownNoise(x, Math.max(1, sampler.sigmas[step])), shape);
        progress.value = step / sampler.steps;
        await breathe();
        return going();
      };
      const more = (step) => normals(size, mixed(first, done, step + 1));
      const made = stepwise
        ? await denoised(model, description, noise, {...settings, more, onStep})
        : await inOneGo(noise, settings);
      if (!made) break;
      paint(canvas, made, shape);
      progress.value = 1;
    }
    const seconds = ((performance.now() - begin) / 1000).toFixed(1);
    const steps = stepwise ? `, ${sampler.steps} steps each` : "";
    said.textContent = `${done} of ${total} pictures, ${seconds} s${steps}.`;
  });
  const classes = label && field("Class", label);
  const controls = [classes, guidance && guidance.node, count.node, seed.node];
  root.append(
    element("h2", {}, "Pictures of noise"),
    element("div", {className: "row"}, ...controls.filter(Boolean)),
    element("div", {className: "row", style: SPACED}, start, stop, ...(stepwise ? [progress] : [])),
    pictures, said,
    element("p", {className: "note"}, stepwise
      ? `The steps of ${sampler.name} are shown as they run.`
      : "The file holds all steps as one; they are not shown."),
  );
}
