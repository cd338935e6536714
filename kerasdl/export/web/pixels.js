// From a picture of any kind and size to the pixels that the model is given, as `serve_bytes` does.

const MAX_PIXELS = 1e8;
const READ = "PNG, JPEG, WebP, BMP and GIF are";
const STARTS = {  // how files begin, in Latin-1
  "\x89PNG\r\n\x1a\n": "image/png", "\xff\xd8\xff": "image/jpeg", "GIF8": "image/gif",
  "BM": "image/bmp",
};
const fround = Math.fround;
const STEP = fround(1 / 255);
const FLOATS = Float32Array.from({length: 256}, (_, i) => i * STEP);  // of bytes

function roundEven(x) {
  const low = Math.floor(x), rest = x - low;
  return rest > 0.5 || (rest === 0.5 && low % 2) ? low + 1 : low;
}

/** The type of a picture by its first bytes, or null. */
function pictureType(bytes) {
  const start = String.fromCharCode(...bytes.subarray(0, 12));
  if (start.startsWith("RIFF") && start.endsWith("WEBP")) return "image/webp";
  return STARTS[Object.keys(STARTS).find((one) => start.startsWith(one))] ?? null;
}

/**
 * The pixels of an encoded picture: `{data (RGBA bytes), width, height}`, its alpha not multiplied
 * in, its colors as they stand in the file, a JPEG turned as its EXIF says. All are those of
 * `kerasdl.data.images.decode` but of JPEGs, which browsers decode by another transform: within 4.
 */
async function decodePicture(blob, name = "this file") {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const type = pictureType(bytes);
  if (!type) throw new Error(`${name}: is no picture that can be read; ${READ}.`);
  try {
    const exact = type !== "image/jpeg" && "ImageDecoder" in window
      && await ImageDecoder.isTypeSupported(type);
    return await (exact ? decodeExactly(bytes, type) : decodeOnCanvas(new Blob([bytes], {type})));
  } catch (error) {
    if (error instanceof TooLarge) throw new Error(`${name}: ${error.message}`);
    throw new Error(`${name}: is a broken picture, or one that this browser does not read.`);
  }
}

class TooLarge extends Error {}

function checkSize(width, height) {
  if (width * height > MAX_PIXELS) {
    throw new TooLarge(`has ${width} × ${height} pixels; at most ${MAX_PIXELS / 1e6} million are read.`);
  }
}

/** By WebCodecs: a canvas multiplies colors by alpha and loses their last bits. */
async function decodeExactly(bytes, type) {
  const options = {data: bytes, type, premultiplyAlpha: "none", colorSpaceConversion: "none"};
  const decoder = new ImageDecoder(options);
  try {
    const {image} = await decoder.decode({frameIndex: 0, completeFramesOnly: true});
    try {
      const {width, height} = image.visibleRect;  // as stored: only a JPEG is turned
      checkSize(width, height);
      if (!/^(RGB|BGR)[AX]$/.test(image.format ?? "")) {
        return await decodeOnCanvas(new Blob([bytes], {type}));
      }
      const data = new Uint8Array(width * height * 4);
      await image.copyTo(data, {layout: [{offset: 0, stride: 4 * width}]});
      if (image.format.startsWith("BGR")) {
        for (let i = 0; i < data.length; i += 4) [data[i], data[i + 2]] = [data[i + 2], data[i]];
      }
      return {data, width, height};
    } finally {
      image.close();
    }
  } finally {
    decoder.close();
  }
}

/** What is transparent loses bits, and a PNG is turned too as its EXIF says, if it has one. */
async function decodeOnCanvas(blob) {
  const options = {premultiplyAlpha: "none", colorSpaceConversion: "none"};
  const bitmap = await createImageBitmap(blob, options);
  checkSize(bitmap.width, bitmap.height);
  const picture = pixelsOf(bitmap, bitmap.width, bitmap.height);
  bitmap.close();
  return picture;
}

/** The pixels of what a canvas can draw. */
function pixelsOf(source, width, height) {
  const canvas = element("canvas", {width, height});
  const context = canvas.getContext("2d", {willReadFrequently: true});
  context.drawImage(source, 0, 0);
  return {data: context.getImageData(0, 0, width, height).data, width, height};
}

/** What is taken of a picture: `{corner, sides}`, each `[y, x]`; see `kerasdl.data.images.Fit`. */
function fitBox(height, width, shape, fit) {
  const size = [height, width];
  let sides = size;
  if (fit.mode !== "squash") {
    const ratios = size.map((n, i) => fround(n / shape[i]));
    const ratio = fit.mode === "crop" ? Math.min(...ratios) : Math.max(...ratios);
    sides = [fround(shape[0] * ratio), fround(shape[1] * ratio)];
  }
  sides = sides.map((n) => fround(n * fround(fit.fraction)));
  return {corner: size.map((n, i) => fround(fround(n - sides[i]) * 0.5)), sides};
}

/** First pixels and weights of each output pixel along an axis, as TensorFlow's ScaleAndTranslate. */
function spansOf(outputs, inputs, corner, side) {
  const scale = fround(outputs / side), translation = fround(-corner * scale);
  const inverse = fround(1 / scale), shift = fround(-inverse * translation);
  const reach = Math.max(inverse, 1), perReach = fround(1 / reach);
  const clamp = (n) => Math.min(Math.max(n, 0), inputs - 1);
  return Array.from({length: outputs}, (_, x) => {
    const at = fround(fround((x + 0.5) * inverse) + shift);
    if (at < 0 || at > inputs) return {start: 0, weights: []};
    const start = clamp(Math.ceil(fround(fround(at - reach) - 0.5)));
    const end = clamp(Math.floor(fround(fround(at + reach) - 0.5))) + 1;
    const weights = new Float32Array(end - start);
    let total = 0;
    for (let i = 0; i < weights.length; i++) {
      const distance = Math.abs(fround(fround(fround(start + i + 0.5) - at) * perReach));
      weights[i] = Math.max(0, 1 - distance);  // the triangle
      total = fround(total + weights[i]);
    }
    const per = fround(1 / total);
    return {start, weights: total > 1e-35 ? weights.map((w) => w * per) : []};
  });
}

/** Bytes `(H, W)` of the luma of a picture; gray stays as it is. */
function luma({data, width, height}) {
  const [red, green, blue] = [0.299, 0.587, 0.114].map(fround);
  const result = new Uint8Array(width * height);
  for (let i = 0; i < result.length; i++) {
    const color = fround(fround(red * data[4 * i]) + fround(green * data[4 * i + 1]));
    result[i] = roundEven(fround(color + fround(blue * data[4 * i + 2])));
  }
  return result;
}

/**
 * A picture at the size of a model, floats in [0, 1] `(H, W, C)` that are multiples of 1/255:
 * bilinear, antialiased; see `kerasdl.data.images.read`.
 */
function preprocess(picture, shape, fit) {
  const [height, width, channels] = shape;
  const {corner, sides} = fitBox(picture.height, picture.width, shape, fit);
  const [bytes, stride] = channels === 1 ? [luma(picture), 1] : [picture.data, 4];
  const rows = spansOf(height, picture.height, corner[0], sides[0]);
  const columns = spansOf(width, picture.width, corner[1], sides[1]);
  const line = new Float32Array(picture.width * channels);
  const result = new Float32Array(height * width * channels);
  rows.forEach(({start, weights}, y) => {
    line.fill(0);
    weights.forEach((weight, i) => {
      let from = (start + i) * picture.width * stride;
      for (let to = 0; to < line.length; to += channels, from += stride) {
        for (let c = 0; c < channels; c++) line[to + c] += weight * bytes[from + c];
      }
    });
    columns.forEach((span, x) => {
      for (let c = 0; c < channels; c++) {
        let sum = 0;
        for (let i = 0; i < span.weights.length; i++) {
          sum = fround(sum + fround(span.weights[i] * line[(span.start + i) * channels + c]));
        }
        const byte = Math.min(Math.max(roundEven(sum), 0), 255);
        result[(y * width + x) * channels + c] = FLOATS[byte];
      }
    });
  });
  return result;
}

/** Draw floats in [0, 1] `(H, W, C)`, or a batch of one, pixel by pixel. */
function paint(canvas, data, shape) {
  const [height, width, channels] = shape.slice(-3);
  canvas.width = width;
  canvas.height = height;
  canvas.classList.add("pixels");
  const pixels = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) {
      pixels.data[4 * i + c] = Math.round(255 * data[i * channels + (channels === 3 ? c : 0)]);
    }
    pixels.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}
