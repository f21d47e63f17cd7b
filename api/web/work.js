// One job as the page has it: its files, how much of it the server has, and its results.

import { computed, signal } from "./vendor/vendor.js";
import { Darkroom, DarkroomError, randomId } from "./darkroom.js";
import { tarOf } from "./tar.js";

/** @typedef {import("./darkroom.js").Item} Item */
/** @typedef {import("./darkroom.js").Job} Job */
/** @typedef {import("./files.js").Picture} Picture */
/** @typedef {"opening" | "uploading" | "classifying" | "interrupted" | "done" | "gone" | "failed"} Phase */
/** @typedef {{ by: "all" | "failed" | "unfamiliar" | "doubtful" | "class", name?: string }} Filter */
/** @typedef {"order" | "doubtful" | "class" | "name"} Sort */

export const SHOWN_MAX = 10_000;
const PART_BYTES_MAX = 16 << 20;
const PART_FILES_MAX = 500;
const FIRST_PART_FILES_MAX = 32; // so that the first classes are there soon
const REDRAW_MS = 150;
const LOOK_MS = 1000;
export const DOUBTFUL_BELOW = 0.7;
const RETRYABLE = "worker_crashed timeout out_of_memory worker_lost model_failed deadline_exceeded";

/** Whether somebody should look at it. @param {Item | undefined} item */
export const isDoubtful = (item) => Boolean(item?.warnings?.length) || (item?.confidence ?? 1) < DOUBTFUL_BELOW;

export class Work {
  /** @param {Darkroom} client @param {Picture[]} pictures none of a job that was opened by its address */
  constructor(client, pictures = []) {
    this.client = client;
    this.pictures = pictures;
    /** @type {(Item | undefined)[]} by index */
    this.items = [];
    /** @type {Map<string, Picture>} by name: files that were chosen again for a job that was opened by its address */
    this.again = new Map();
    /** @type {Set<number>} indices of files that could not be read */
    this.unreadable = new Set();
    /** @type {Set<string>} in the order in which their first results came */
    this.classes = new Set();
    this.abort = new AbortController();
    this.phase = signal(/** @type {Phase} */ ("uploading"));
    this.job = signal(/** @type {Job | null} */ (null));
    this.title = signal("");
    this.error = signal(/** @type {DarkroomError | null} */ (null));
    this.sentBytes = signal(0);
    this.tick = signal(0);
    this.filter = signal(/** @type {Filter} */ ({ by: "all" }));
    this.sort = signal(/** @type {Sort} */ ("order"));
    this.below = signal(100);
    this.open = signal(/** @type {number | null} */ (null));
    this.totalBytes = pictures.reduce((total, { file }) => total + file.size, 0);
    this.view = computed(() => this.#view());
    this.counts = computed(() => this.#counts());
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.redraw = undefined;
    /** @type {ReturnType<typeof setInterval> | undefined} */
    this.looking = undefined;
  }

  get images() {
    return Math.max(this.pictures.length, this.job.value?.counts.total ?? 0);
  }

  /** Send pictures as parts of one job. @param {string} model @param {(job: Job) => void} made */
  async send(model, made) {
    await this.#guard(async () => {
      const job = await this.client.open({ model });
      this.job.value = job;
      made(job);
      const following = this.#follow(job.id);
      following.catch(() => {}); // awaited below, unless sending fails first
      await this.#sendParts(job.id);
      this.abort.signal.throwIfAborted();
      this.job.value = await this.client.seal(job.id);
      this.phase.value = "classifying";
      await following;
      await this.#finish();
    });
  }

  /** Send an archive. @param {File} archive @param {string} model @param {(job: Job) => void} made */
  async sendArchive(archive, model, made) {
    await this.#guard(async () => {
      this.totalBytes = archive.size;
      const onProgress = (/** @type {number} */ sent) => (this.sentBytes.value = sent);
      const job = await this.client.submit(archive, { model, onProgress, signal: this.abort.signal });
      made(job);
      await this.#show(job);
    });
  }

  /** Show a job that exists. @param {string} id */
  async load(id) {
    this.phase.value = "opening";
    await this.#guard(async () => this.#show(await this.client.job(id)));
  }

  /** Take what has arrived of an upload that was interrupted. */
  async seal() {
    await this.#guard(async () => this.#show(await this.client.seal(this.#id)));
  }

  async cancel() {
    const isFollowing = this.phase.value === "classifying";
    if (!isFollowing) this.abort.abort();
    this.job.value = await this.client.cancel(this.#id);
    if (isFollowing) return;
    for await (const item of this.client.results(this.#id)) this.#take(item);
    await this.#finish();
  }

  /** Leave it: what runs here ends, and the job goes on. */
  leave() {
    this.abort.abort();
    clearTimeout(this.redraw);
  }

  /** The file of an image, if this tab has it. @param {number} index */
  fileOf(index) {
    return (this.pictures[index] ?? this.again.get(this.items[index]?.name ?? ""))?.file;
  }

  /** Whether an image lacks its file. */
  get lacksFiles() {
    this.tick.value;
    return this.items.some((item) => item && item.name !== null && !this.fileOf(item.index));
  }

  /** Show files in the places of the images that have their names. False if none has. @param {Picture[]} pictures */
  showAgain(pictures) {
    for (const picture of pictures) this.again.set(picture.name, picture);
    this.tick.value += 1;
    return this.items.some((item) => this.again.has(item?.name ?? ""));
  }

  /** The name of an image. @param {number} index */
  nameOf(index) {
    return this.pictures[index]?.name ?? this.items[index]?.name ?? `image ${index + 1}`;
  }

  get #id() {
    return /** @type {Job} */ (this.job.value).id;
  }

  /** @param {Job} job */
  async #show(job) {
    this.job.value = job;
    if (job.status === "open") {
      this.phase.value = "interrupted";
      for await (const item of this.client.results(job.id)) this.#take(item);
      this.#drawSoon();
      return;
    }
    this.phase.value = "classifying";
    await this.#follow(job.id);
    await this.#finish();
  }

  /** @param {string} id */
  async #follow(id) {
    const observer = new Darkroom({ url: this.client.url, retrySeconds: 0 });
    this.looking = setInterval(() => this.#look(observer, id), LOOK_MS); // until the job's end, however many are shown
    for await (const item of this.client.results(id, { follow: true, signal: this.abort.signal })) {
      this.#take(item);
      if (item.index + 1 >= SHOWN_MAX) break;
    }
  }

  async #finish() {
    let job = await this.client.job(this.#id);
    while (!job.completed_at) job = await this.client.job(this.#id, 20);
    this.job.value = job;
    this.phase.value = "done";
    this.tick.value += 1;
  }

  /** @param {Darkroom} observer @param {string} id */
  async #look(observer, id) {
    if (document.hidden) return;
    observer.key = this.client.key;
    const job = await observer.job(id).catch(() => null);
    if (job && this.phase.value !== "done") this.job.value = job;
  }

  /** @param {string} id */
  async #sendParts(id) {
    const key = randomId();
    let sent = 0;
    for (let first = 0, part = 0; first < this.pictures.length; part += 1) {
      let end = first;
      let bytes = 0;
      const filesMax = part ? PART_FILES_MAX : FIRST_PART_FILES_MAX;
      while (end < this.pictures.length && end - first < filesMax) {
        bytes += this.pictures[end].file.size;
        if (end > first && bytes > PART_BYTES_MAX) break;
        end += 1;
      }
      const onProgress = (/** @type {number} */ partBytes) => (this.sentBytes.value = sent + partBytes);
      const from = first;
      const body = () => this.#tar(from, end); // of each try: a file may be gone meanwhile
      this.job.value = await this.client.add(id, body, `${key}-${part}`, { onProgress, signal: this.abort.signal });
      for (; first < end; first += 1) sent += this.pictures[first].file.size;
      this.sentBytes.value = sent;
    }
  }

  /** @param {number} first @param {number} end */
  async #tar(first, end) {
    const members = [];
    for (let index = first; index < end; index += 1) {
      const { name, file } = this.pictures[index];
      const isThere = await file.slice(0, 1).arrayBuffer().then(() => true, () => false); // prettier-ignore
      if (!isThere) this.unreadable.add(index);
      members.push({ name, file: isThere ? file : null });
    }
    return tarOf(members);
  }

  /** @param {Item} item */
  #take(item) {
    if (this.unreadable.has(item.index)) {
      const code = /** @type {any} */ ("unreadable"); // none of the API's
      item.error = { code, detail: "The file is gone, or the browser may not read it." };
    }
    this.items[item.index] = item;
    if (item.class) this.classes.add(item.class);
    this.#drawSoon();
  }

  #drawSoon() {
    this.redraw ??= setTimeout(() => {
      this.redraw = undefined;
      this.tick.value += 1;
    }, REDRAW_MS);
  }

  /** @param {() => Promise<void>} action */
  async #guard(action) {
    try {
      await action();
    } catch (error) {
      if (this.abort.signal.aborted) return;
      if (!(error instanceof DarkroomError)) throw error;
      this.error.value = error;
      this.phase.value = ["job_not_found", "job_expired"].includes(error.code) ? "gone" : "failed";
    } finally {
      clearInterval(this.looking);
    }
  }

  /** The indices to show, in their order. @returns {number[]} */
  #view() {
    this.tick.value;
    const { by, name } = this.filter.value;
    const below = this.below.value / 100;
    const count = Math.min(SHOWN_MAX, Math.max(this.images, this.items.length));
    const found = [];
    for (let index = 0; index < count; index += 1) {
      const item = this.items[index];
      if (below < 1 && !((item?.confidence ?? 2) <= below)) continue;
      if (by === "failed" && item?.status !== "failed") continue;
      if (by === "unfamiliar" && !item?.warnings?.length) continue;
      if (by === "doubtful" && !isDoubtful(item)) continue;
      if (by === "class" && item?.class !== name) continue;
      found.push(index);
    }
    if (this.sort.value === "doubtful") {
      found.sort((one, other) => this.#certainty(one) - this.#certainty(other));
    } else if (this.sort.value === "class") {
      const key = (/** @type {number} */ index) => this.items[index]?.class ?? "\uffff";
      found.sort((one, other) => key(one).localeCompare(key(other)) || one - other);
    } else if (this.sort.value === "name") {
      found.sort((one, other) => this.nameOf(one).localeCompare(this.nameOf(other), "en", { numeric: true }));
    }
    return found;
  }

  /** @param {number} index */
  #certainty(index) {
    const item = this.items[index];
    return (item?.confidence ?? 2) - (item?.warnings?.length ? 1 : 0);
  }

  #counts() {
    this.tick.value;
    /** By count once the job has ended; until then in the places that they have, or they would move under the pointer. */
    const classes = new Map([...this.classes].map((name) => [name, 0]));
    let [failed, unfamiliar, doubtful, again] = [0, 0, 0, 0];
    for (const item of this.items) {
      if (item?.class) classes.set(item.class, (classes.get(item.class) ?? 0) + 1);
      if (item?.status === "failed") failed += 1;
      if (item?.error && RETRYABLE.split(" ").includes(item.error.code)) again += 1;
      if (item?.warnings?.length) unfamiliar += 1;
      if (isDoubtful(item)) doubtful += 1;
    }
    const isRunning = ["opening", "uploading", "classifying"].includes(this.phase.value);
    const found = [...classes];
    if (!isRunning) found.sort(([one, count], [other, more]) => more - count || one.localeCompare(other, "en"));
    return { classes: found, failed, unfamiliar, doubtful, again };
  }
}
