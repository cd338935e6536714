// Models that take a picture: classes, masks, boxes, reconstructions, features.

const PAD = 280;  // pixels of the drawing pad's longer side
const PEN = 9;  // strokes on the shorter side
const VIEW = 640;  // pixels of the longer side of a picture that is shown
const TOP = 10;
const MIN_SCORE = 0.3;  // of boxes that are shown at first

/** Signatures that need a picture and nothing else that a user has: `{name: its input}`. */
function imageSignatures(description) {
  const result = {};
  for (const [name, signature] of Object.entries(description.signatures)) {
    const inputs = Object.entries(signature.inputs);
    const images = inputs.filter(([, one]) =>
      one.kind === "image" && [1, 3].includes(one.shape.at(-1)));
    const others = inputs.filter(([, one]) => one.kind !== "image");
    const windows = description.windows && others.every(([, one]) => one.kind === "regions");
    if (images.length === 1 && inputs.length === 1 + others.length && (!others.length || windows)) {
      result[name] = images[0][0];
    }
  }
  return result;
}

function imagesApplies(description) {
  return Object.keys(imageSignatures(description)).length > 0;
}

function imagesPanel(root, model, description) {
  const signatures = imageSignatures(description);
  const names = Object.keys(signatures);
  const shapeOf = (name) => description.signatures[name].inputs[signatures[name]].shape.slice(1);
  const options = names.map((name) => element("option", {value: name}, name));
  const choice = element("select", {}, ...options);
  const result = element("div", {className: "grow"});
  const seen = element("canvas", {
    className: "pixels view", role: "img", "aria-label": "The picture as the model sees it",
  });
  const caption = element("p", {className: "note"}, "As the model sees it:");
  const view = element("div", {hidden: true}, caption, seen);
  let picture = null, number = 0;

  const attempt = async (action) => {
    const mine = ++number;
    showError(root, "");
    try {
      await action(() => mine === number);
    } catch (error) {
      if (mine === number) showError(root, sentence(error));
    }
  };
  const run = (taken) => attempt(async (current) => {
    picture = taken;
    const signature = choice.value, shape = shapeOf(signature);
    const data = preprocess(picture, shape, description.fit);
    paint(seen, data, shape);
    view.hidden = false;
    seen.style.width = `${Math.max(96, Math.min(224, shape[1]))}px`;
    const inputs = {[signatures[signature]]: {data, shape: [1, ...shape]}};
    for (const [name, one] of Object.entries(description.signatures[signature].inputs)) {
      const data = description.windows && Float32Array.from(description.windows.flat());
      if (one.kind === "regions") inputs[name] = {data, shape: one.shape};
    }
    const outputs = await model.run(signature, inputs);
    if (current()) result.replaceChildren(...shown(outputs, signature, picture, shape, description));
  });
  const read = (blob, name) => attempt(async (current) => {
    const taken = await decodePicture(blob, name);
    if (current()) run(taken);
  });

  choice.onchange = () => picture && run(picture);
  const inputs = element("div", {className: "grow"}, fileInput(root, read));
  if (description.pictures.length) inputs.append(samplePictures(description.pictures, read));
  inputs.append(cameraInput(root, run), element("h3", {}, "Draw"), drawingPad(shapeOf(names[0]), run));
  const results = element("div", {className: "grow"}, element("h3", {}, "Result"));
  if (names.length > 1) results.append(field("What is computed", choice));
  if (description.windows) {
    const text = "Objects are looked for in the same windows of every picture, not in regions of a search.";
    results.append(element("p", {className: "note"}, text));
  }
  result.setAttribute("aria-live", "polite");
  result.append(element("p", {className: "note"}, "Choose, drop or draw a picture."));
  results.append(result, view);
  root.append(element("h2", {}, "Picture"), element("div", {className: "row top"}, inputs, results));
  showError(root, "");
}

/** A file input, and the whole panel as a place to drop a picture. */
function fileInput(root, read) {
  const accept = "image/png,image/jpeg,image/webp,image/gif,image/bmp";
  const input = element("input", {type: "file", accept});
  const hint = element("p", {className: "note"}, "or drop one here");
  const zone = element("div", {className: "drop"}, field("Picture from a file", input), hint);
  input.onchange = () => {
    if (input.files.length) read(input.files[0], input.files[0].name);
    input.value = "";  // so that the same file can be chosen again
  };
  root.ondragover = (event) => {
    event.preventDefault();
    zone.classList.add("over");
  };
  root.ondragleave = () => zone.classList.remove("over");
  root.ondrop = (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    const file = event.dataTransfer.files[0];
    if (file) read(file, file.name);
    else showError(root, "What was dropped is no file; drop a picture's file.");
  };
  return zone;
}

function samplePictures(pictures, read) {
  const label = "Pictures of the test set";
  const group = element("div", {className: "row samples", role: "group", "aria-label": label});
  pictures.forEach((text, i) => {
    const name = `Test picture ${i + 1}`, bytes = bytesOf(text);
    const source = `data:${pictureType(bytes) ?? "image/png"};base64,${text}`;
    const image = element("img", {src: source, alt: name, className: "pixels"});
    group.append(element("button", {type: "button", onclick: () => read(new Blob([bytes]), name)}, image));
  });
  return element("div", {}, element("p", {className: "note"}, `${label}:`), group);
}

function cameraInput(root, run) {
  const video = element("video", {
    muted: true, playsInline: true, hidden: true, "aria-label": "What the camera sees",
  });
  const start = element("button", {type: "button"}, "Camera");
  const take = element("button", {type: "button", className: "main", hidden: true}, "Take the picture");
  const stop = element("button", {type: "button", hidden: true}, "Stop the camera");
  const show = (on) => {
    start.hidden = on;
    take.hidden = stop.hidden = video.hidden = !on;
  };
  const end = () => {
    video.srcObject?.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
    show(false);
    start.focus();
  };
  start.onclick = async () => {
    showError(root, "");
    if (!navigator.mediaDevices?.getUserMedia) {
      showError(root, "No camera: browsers give it to pages from https:// or 127.0.0.1 only.");
      return;
    }
    try {
      const wanted = {video: {facingMode: "environment"}};
      video.srcObject = await navigator.mediaDevices.getUserMedia(wanted);
      await video.play();
      show(true);
      take.focus();
    } catch (error) {
      end();
      showError(root, `The camera cannot be used: ${sentence(error)}.`);
    }
  };
  take.onclick = () => run(pixelsOf(video, video.videoWidth, video.videoHeight));
  stop.onclick = end;
  return element("div", {}, video, element("div", {className: "row"}, start, take, stop));
}

/** White on black, by mouse, pen or finger; a stroke's end runs the model. */
function drawingPad([height, width], run) {
  const scale = PAD / Math.max(height, width);
  const label = "Drawing pad for mouse, pen or finger; by keyboard, choose a file or a test picture instead";
  const canvas = element("canvas", {
    className: "pad", width: Math.round(width * scale), height: Math.round(height * scale),
    role: "img", "aria-label": label,
  });
  const context = canvas.getContext("2d", {willReadFrequently: true});
  const clear = () => {
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
  };
  let last = null;
  const draw = (event) => {
    const box = canvas.getBoundingClientRect();
    const x = (event.clientX - box.left - canvas.clientLeft) * canvas.width / canvas.clientWidth;
    const y = (event.clientY - box.top - canvas.clientTop) * canvas.height / canvas.clientHeight;
    context.strokeStyle = "#fff";
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = Math.min(canvas.width, canvas.height) / PEN;
    context.beginPath();
    context.moveTo(...(last ?? [x, y]));
    context.lineTo(x, y);
    context.stroke();
    last = [x, y];
  };
  canvas.onpointerdown = (event) => {
    if (event.button) return;
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    last = null;
    draw(event);
  };
  canvas.onpointermove = (event) => last && draw(event);
  canvas.onpointerup = canvas.onpointercancel = () => {
    if (!last) return;
    last = null;
    run(pixelsOf(canvas, canvas.width, canvas.height));
  };
  clear();
  const button = element("button", {type: "button", onclick: clear}, "Clear");
  return element("div", {}, canvas, element("p", {}, button));
}

/** What the outputs say, as nodes. */
function shown(outputs, signature, picture, shape, description) {
  const described = description.signatures[signature].outputs;
  const of = (kind) => Object.keys(described).find((name) => described[name].kind === kind && outputs[name]);
  const taken = fitBox(picture.height, picture.width, shape, description.fit);
  if (of("boxes")) return shownBoxes(outputs, of, described, picture, taken, description);
  if (of("mask")) {
    const names = described[of("mask")].class_names;
    return shownMask(outputs[of("mask")], names, picture, taken, description);
  }
  if (of("image")) {
    const canvas = element("canvas", {className: "view", role: "img", "aria-label": of("image")});
    paint(canvas, outputs[of("image")].data, outputs[of("image")].shape);
    canvas.style.width = "224px";
    return [canvas];
  }
  const names = of("label") ? described[of("label")].class_names : [];
  if (names.length && outputs.probabilities?.shape.at(-1) === names.length) {
    const scores = [...outputs.probabilities.data].map((value, i) => [names[i], value]);
    return [bars(scores, (value) => `${(100 * value).toFixed(1)} %`)];
  }
  return Object.entries(outputs).flatMap(([name, {data, shape}]) => {
    const values = [...data].map((value, i) => [`${name}[${i}]`, value]);
    const size = shape.slice(1).join(" × ") || "1";
    return [element("p", {className: "note"}, `${name} (${size}), its largest entries:`),
      bars(values, (value) => value.toPrecision(4))];
  });
}

/** A list of names with the bars of their numbers, the largest first. */
function bars(values, write) {
  const sorted = values.sort((a, b) => b[1] - a[1]).slice(0, TOP);
  const longest = Math.max(...sorted.map(([, value]) => Math.abs(value)), 1e-9);
  const rows = sorted.map(([name, value]) => {
    const bar = element("span", {className: "bar"});
    bar.style.width = `${100 * Math.max(0, value) / Math.max(longest, 1)}%`;
    const number = element("span", {className: "number"}, write(value));
    return element("li", {}, bar, element("span", {}, name), number);
  });
  return element("ol", {className: "bars"}, ...rows);
}

/** A canvas with the picture in its own proportions, and how many of its pixels one of them is. */
function viewOf(picture) {
  const scale = VIEW / Math.max(picture.width, picture.height);
  const whole = new ImageData(new Uint8ClampedArray(picture.data), picture.width, picture.height);
  for (let i = 3; i < whole.data.length; i += 4) whole.data[i] = 255;  // as the model: without alpha
  const source = element("canvas", {width: picture.width, height: picture.height});
  source.getContext("2d").putImageData(whole, 0, 0);
  const [width, height] = [picture.width, picture.height].map((n) => Math.max(1, Math.round(n * scale)));
  const canvas = element("canvas", {className: "view", width, height, role: "img"});
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = scale < 1;
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return {canvas, context, scale};
}

/** Draw what `colorAt(i)` gives, `[red, green, blue, alpha]` or null, on the part that was taken. */
function overlay({context, scale}, height, width, {corner, sides}, colorAt) {
  const pixels = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    const color = colorAt(i);
    if (color) pixels.data.set(color, 4 * i);
  }
  const mask = element("canvas", {width, height});
  mask.getContext("2d").putImageData(pixels, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(mask, ...[corner[1], corner[0], sides[1], sides[0]].map((n) => n * scale));
}

function swatch(color) {
  const node = element("span", {className: "swatch", "aria-hidden": "true"});
  node.style.background = `rgb(${color.join(" ")})`;
  return node;
}

function shownMask({data, shape}, names, picture, taken, description) {
  const view = viewOf(picture), [height, width] = shape.slice(1);
  const colors = description.colors, counts = new Map();
  for (const k of data) counts.set(k, (counts.get(k) ?? 0) + 1);
  const colorAt = (i) => data[i] > 0 && colors[data[i]] ? [...colors[data[i]], 153] : null;
  overlay(view, height, width, taken, colorAt);
  const rows = [...counts].sort((a, b) => b[1] - a[1]).map(([k, count]) => {
    const text = `${names[k] ?? k}: ${(100 * count / data.length).toFixed(1)} %`;
    return element("li", {}, ...(k > 0 && colors[k] ? [swatch(colors[k])] : []), text);
  });
  view.canvas.setAttribute("aria-label", "The picture with its classes in colors");
  return [view.canvas, element("ul", {className: "legend"}, ...rows)];
}

/** Boxes in the part that was taken as boxes in the picture; see `kerasdl.data.images.in_whole`. */
function inWhole(box, picture, {corner, sides}) {
  const size = [picture.height, picture.width, picture.height, picture.width];
  return box.map((value, i) => Math.min(Math.max((corner[i % 2] + value * sides[i % 2]) / size[i], 0), 1));
}

function shownBoxes(outputs, of, described, picture, taken, description) {
  const boxes = outputs[of("boxes")].data, labels = of("label") ? outputs[of("label")].data : null;
  const scores = (outputs.scores ?? outputs.score)?.data;
  const masks = of("instances") && outputs[of("instances")];
  const names = labels ? described[of("label")].class_names : [];
  const objects = [];
  for (let m = 0; m < boxes.length / 4; m++) {
    const label = labels ? labels[m] : 0, box = [...boxes.slice(4 * m, 4 * m + 4)];
    if (label < 0 || box.every((value) => value === 0)) continue;
    objects.push({m, label, box: inWhole(box, picture, taken), score: scores ? scores[m] : null});
  }
  const slider = element("input", {type: "range", min: 0, max: 1, step: 0.01, value: MIN_SCORE});
  const place = element("div");
  const value = element("output", {}, slider.value);
  const draw = () => {
    value.textContent = slider.value;
    const kept = objects.filter((one) => one.score === null || one.score >= +slider.value);
    const view = viewOf(picture), {canvas, context} = view;
    for (const {m, label} of [...kept].reverse()) {
      if (!masks) break;
      const [height, width] = masks.shape.slice(2), start = m * height * width;
      const color = [...description.colors[label + 1], 128];
      overlay(view, height, width, taken, (i) => masks.data[start + i] ? color : null);
    }
    context.font = "bold 16px system-ui, sans-serif";
    context.textBaseline = "top";
    const rows = kept.map(({label, box, score}) => {
      const name = names[label] ?? (labels ? label : "object");
      const text = score === null ? `${name}` : `${name} ${score.toFixed(2)}`;
      const color = description.colors[label + 1] ?? [255, 255, 255];
      const size = [canvas.height, canvas.width];
      const [top, left, bottom, right] = box.map((n, i) => n * size[i % 2]);
      context.strokeStyle = context.fillStyle = `rgb(${color.join(" ")})`;
      context.lineWidth = 3;
      context.strokeRect(left, top, right - left, bottom - top);
      const wide = context.measureText(text).width + 8, y = top >= 20 ? top - 20 : top;
      const x = Math.max(0, Math.min(left, canvas.width - wide));
      context.fillRect(x, y, wide, 20);
      context.fillStyle = 0.3 * color[0] + 0.6 * color[1] + 0.1 * color[2] > 128 ? "#000" : "#fff";
      context.fillText(text, x + 4, y + 2);
      return element("li", {}, swatch(color), `${text} at ${box.map((n) => n.toFixed(3)).join(" ")}`);
    });
    canvas.setAttribute("aria-label", `The picture with ${kept.length} boxes`);
    const note = "Places are top, left, bottom and right, in proportions of the picture.";
    place.replaceChildren(canvas, ...(kept.length
      ? [element("ul", {className: "legend"}, ...rows), element("p", {className: "note"}, note)]
      : [element("p", {}, "No object.")]));
  };
  slider.oninput = draw;
  draw();
  return scores ? [place, element("div", {className: "row"}, field("Minimum score", slider), value)] : [place];
}
