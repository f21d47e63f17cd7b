// Tar archives composed of references to files: nothing is read into memory.

const BLOCK = 512;
const encoder = new TextEncoder();

/** @typedef {{ name: string, file: Blob | null }} Member a file is null if it cannot be read */

/** Members of a tar, in order; one that cannot be read is a FIFO, which fails in its place. @param {Member[]} members */
export function tarOf(members) {
  /** @type {BlobPart[]} */
  const parts = [];
  for (const { name, file } of members) {
    const path = encoder.encode(name);
    if (path.length > 100) parts.push(header(encoder.encode("././@LongLink"), path.length + 1, "L"), padded(path));
    parts.push(header(path.subarray(0, 100), file?.size ?? 0, file ? "0" : "6"));
    if (file) parts.push(file, new Uint8Array(-file.size & (BLOCK - 1)));
  }
  return new Blob([...parts, new Uint8Array(2 * BLOCK)]);
}

/** @param {Uint8Array} path with its final zero, up to whole blocks */
function padded(path) {
  const blocks = new Uint8Array(Math.ceil((path.length + 1) / BLOCK) * BLOCK);
  blocks.set(path);
  return blocks;
}

/** A head in GNU's format. @param {Uint8Array} path @param {number} size @param {string} kind */
function header(path, size, kind) {
  const block = new Uint8Array(BLOCK);
  block.set(path);
  /** @param {number} at @param {string} text */
  const put = (at, text) => block.set(encoder.encode(text), at);
  put(100, "0000644\0" + "0000000\0" + "0000000\0");
  put(124, size.toString(8).padStart(11, "0") + "\0" + "00000000000\0" + "        " + kind);
  put(257, "ustar  \0");
  const sum = block.reduce((total, byte) => total + byte, 0);
  put(148, sum.toString(8).padStart(6, "0") + "\0 ");
  return block;
}
