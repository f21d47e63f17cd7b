// Small pictures of files: of visible ones, a few at a time, and some hundred are kept.

const SIDE = 176;
const AT_ONCE = 4;
const KEPT = 400;
const SMALL_BYTES = 20_000; // such a file may have fewer pixels than its thumbnail

/** @typedef {{ file: Blob, done: (bitmap: ImageBitmap | null) => void }} Wish */

/** @type {Map<Blob, ImageBitmap | null>} null: the browser cannot show it */
const kept = new Map();
/** @type {Wish[]} */
const waiting = [];
let running = 0;

/**
 * Draw a file into a canvas once it is decoded; `shown` is told whether it could be. Returns a function that stops it.
 * @param {HTMLCanvasElement} canvas @param {Blob} file @param {(isShown: boolean) => void} shown
 */
export function drawThumbnail(canvas, file, shown) {
  /** @type {Wish} */
  const wish = {
    file,
    done: (bitmap) => {
      if (bitmap) draw(canvas, bitmap);
      shown(bitmap !== null);
    },
  };
  const known = kept.get(file);
  if (known !== undefined) wish.done(known);
  else waiting.push(wish), next();
  return () => {
    const at = waiting.indexOf(wish);
    if (at >= 0) waiting.splice(at, 1);
    wish.done = () => {};
  };
}

/** @param {HTMLCanvasElement} canvas @param {ImageBitmap} bitmap */
function draw(canvas, bitmap) {
  const scale = Math.max(1, Math.floor(SIDE / Math.max(bitmap.width, bitmap.height))); // few pixels stay pixels
  canvas.width = bitmap.width * scale;
  canvas.height = bitmap.height * scale;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.imageSmoothingEnabled = false;
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
}

async function next() {
  while (running < AT_ONCE && waiting.length) {
    const wish = /** @type {Wish} */ (waiting.shift());
    running += 1;
    const bitmap = await decode(wish.file).catch(() => null);
    running -= 1;
    kept.set(wish.file, bitmap);
    if (kept.size > KEPT) forgetOldest();
    wish.done(bitmap);
  }
}

/** @param {Blob} file */
function decode(file) {
  return file.size > SMALL_BYTES
    ? createImageBitmap(file, { resizeHeight: SIDE, resizeQuality: "medium" })
    : createImageBitmap(file);
}

function forgetOldest() {
  const [[file, bitmap]] = kept;
  kept.delete(file);
  bitmap?.close();
}
