// The pictures of a drop, of a paste, or of a field.

export const FILES_MAX = 20_000;
export const PICTURES = ".jpg,.jpeg,.png,.webp,.gif,.bmp,.avif,.heic,.heif,.tif,.tiff";
const PICTURE = new RegExp(`\\.(${PICTURES.replaceAll(".", "").replaceAll(",", "|")})$`, "i");
const ARCHIVE = /\.(zip|tar|tgz|tar\.gz)$/i;
const COUNT_STEP = 100;

/** @typedef {{ name: string, file: File }} Picture */
/**
 * What was chosen: pictures, or one archive; names of other files and of too large ones; whether there were too many,
 * or only text; the name of the folder, if it is one.
 * @typedef {{ pictures: Picture[], archive: File | null, others: string[], large: string[], tooMany: boolean,
 *   isText: boolean, folder: string }} Choice
 */

/**
 * Must be called in the event of a drop or a paste: what it brings is gone afterwards.
 * @param {DataTransfer} transfer @param {number} bytesMax of a picture @param {(count: number) => void} onCount
 */
export function chosenBy(transfer, bytesMax, onCount) {
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const found = items.map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  const isText = !found.length && transfer.types.some((type) => type.startsWith("text/"));
  return collect(found.filter((it) => it !== null), bytesMax, onCount, isText);
}

/**
 * @param {Iterable<File>} files of a field @param {number} bytesMax @param {(count: number) => void} onCount
 */
export function chosenIn(files, bytesMax, onCount) {
  const path = (/** @type {File} */ file) => file.webkitRelativePath; // empty, unless a folder was chosen
  return collect([...files].sort((one, other) => (path(one) < path(other) ? -1 : Number(path(one) > path(other)))), bytesMax, onCount, false);
}

/**
 * @param {(FileSystemEntry | File)[]} found @param {number} bytesMax @param {(count: number) => void} onCount
 * @param {boolean} isText @returns {Promise<Choice>}
 */
async function collect(found, bytesMax, onCount, isText) {
  /** @type {Choice} */
  const choice = { pictures: [], archive: null, others: [], large: [], tooMany: false, isText, folder: "" };
  const [first] = found;
  const isOneFolder = found.length === 1 && !(first instanceof File) && first.isDirectory;
  if (isOneFolder) choice.folder = first.name;
  else if (first instanceof File && first.webkitRelativePath) choice.folder = first.webkitRelativePath.split("/")[0];

  /** @type {Set<string>} */
  const names = new Set();
  /** A name that no other picture has: of two with one name the server takes the first. @param {string} name */
  const unique = (name) => {
    let found = name;
    for (let number = 2; names.has(found); number += 1) found = name.replace(/(\.[^./]*)?$/, ` (${number})$1`);
    names.add(found);
    return found;
  };

  /** @param {string} name @param {File} file */
  const add = (name, file) => {
    if (name.split("/").some((word) => word.startsWith(".") || word === "__MACOSX")) return;
    if (ARCHIVE.test(name)) choice.archive ??= file;
    else if (!PICTURE.test(name) && !file.type.startsWith("image/")) choice.others.push(name);
    else if (file.size > bytesMax) choice.large.push(name);
    else if (choice.pictures.push({ name: unique(name), file }) % COUNT_STEP === 0) onCount(choice.pictures.length);
    choice.tooMany ||= choice.pictures.length > FILES_MAX;
  };

  /** @param {FileSystemEntry} entry @param {string} name @returns {Promise<void>} */
  const walk = async (entry, name) => {
    if (choice.tooMany) return;
    if (entry.isFile) {
      const file = await fileOf(/** @type {FileSystemFileEntry} */ (entry)).catch(() => null);
      return file ? add(name, file) : void choice.others.push(name);
    }
    for (const child of await children(/** @type {FileSystemDirectoryEntry} */ (entry))) {
      await walk(child, name ? `${name}/${child.name}` : child.name);
    }
  };

  for (const it of found) {
    if (it instanceof File) add(it.webkitRelativePath.split("/").slice(1).join("/") || it.name, it);
    else await walk(it, isOneFolder ? "" : it.name);
  }
  onCount(choice.pictures.length);
  if (choice.pictures.length && choice.archive) choice.others.push(choice.archive.name);
  return choice;
}

/** @param {FileSystemFileEntry} entry @returns {Promise<File>} */
function fileOf(entry) {
  return new Promise((resolve, reject) => entry.file(resolve, reject));
}

/** What a folder has, sorted. @param {FileSystemDirectoryEntry} folder */
async function children(folder) {
  const reader = folder.createReader();
  /** @type {FileSystemEntry[]} */
  const found = [];
  for (;;) {
    /** @type {FileSystemEntry[]} */
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return found.sort((one, other) => (one.name < other.name ? -1 : 1));
    found.push(...some);
  }
}
