// What the whole page knows: the server, the key, and the job that is shown.

import { computed, signal } from "./vendor/vendor.js";
import { Darkroom, DarkroomError } from "./darkroom.js";
import { FILES_MAX } from "./files.js";
import { earlierJobs, forgetJob, rememberJob, storeKey, storedKey } from "./memory.js";
import { Work } from "./work.js";

/** @typedef {import("./darkroom.js").Job} Job */
/** @typedef {import("./darkroom.js").Server} Server */
/** @typedef {import("./darkroom.js").Model} Model */
/** @typedef {import("./files.js").Choice} Choice */

const LOOK_MS = 5000;
const RETRY_SECONDS = 3600; // a page waits for its server as long as somebody leaves it open
const JOB = /^#job=([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/i;
const BYTES_MAX = 10 << 20; // of a picture, until the server has said so

export const server = signal(/** @type {Server | null} */ (null));
export const models = signal(/** @type {Model[]} */ ([]));
export const faults = signal(0); // of models that workers cannot serve
export const model = signal("");
export const access = signal(/** @type {"ok" | "needed" | "wrong"} */ ("ok"));
export const trouble = signal(/** @type {string} */ (""));
export const notices = signal(/** @type {string[]} */ ([]));
export const counting = signal(/** @type {number | null} */ (null));
export const work = signal(/** @type {Work | null} */ (null));
export const earlier = signal(earlierJobs());
export const upgraded = signal(false);
/** @type {Map<string, import("./files.js").Picture[]>} what this tab has sent, by job */
const sent = new Map();
export const noWorker = computed(() => server.value !== null && server.value.workers === 0);
export const bytesMax = computed(() => server.value?.limits.image_bytes_max ?? BYTES_MAX);

export const client = new Darkroom({
  url: new URL(".", document.baseURI),
  key: storedKey(),
  retrySeconds: RETRY_SECONDS,
  onUnauthorized: () => {
    askForKey();
    return new Promise((resolve) => waiting.push(() => resolve(undefined)));
  },
  onTrouble: (error, seconds) => (trouble.value = error ? troubleText(error, seconds) : ""),
});
/** @type {(() => void)[]} calls that go on once there is a key that is accepted */
const waiting = [];
/** Looks at the server now and then; it does not insist. */
const observer = new Darkroom({ url: client.url, retrySeconds: 0 });

/** @param {DarkroomError} error @param {number} seconds */
function troubleText(error, seconds) {
  const again = `trying again in ${Math.max(1, Math.round(seconds))} s`;
  if (error.code === "queue_full") return `The queue is full: ${again}. Nothing is lost.`;
  if (error.status === 0) return `The server does not answer: ${again}. No picture is sent twice.`;
  return `${error.message} (${error.code}): ${again}.`;
}

function askForKey() {
  access.value = client.key ? "wrong" : "needed";
}

export async function look() {
  if (document.hidden) return;
  observer.key = client.key;
  try {
    const found = await observer.server();
    upgraded.value ||= server.value !== null && server.value.version !== found.version;
    server.value = found;
    const list = await observer.models();
    models.value = list.models;
    faults.value = list.faults.length;
    access.value = "ok";
    for (const goOn of waiting.splice(0)) goOn();
  } catch (error) {
    if (error instanceof DarkroomError && error.status === 401) askForKey();
  }
}

/** @param {string} key @param {boolean} remember */
export async function useKey(key, remember) {
  client.key = key.trim();
  storeKey(client.key, remember);
  access.value = "ok";
  await look();
}

/** Begin a job with what was chosen. @param {Promise<Choice>} choosing */
export async function begin(choosing) {
  counting.value = 0;
  const choice = await choosing;
  counting.value = null;
  notices.value = noticesOf(choice);
  if (choice.tooMany || (!choice.pictures.length && !choice.archive)) return;
  const begun = show(new Work(client, choice.archive && !choice.pictures.length ? [] : choice.pictures));
  begun.title.value = titleOf(choice);
  const made = (/** @type {Job} */ job) => {
    sent.set(job.id, choice.pictures);
    history.pushState(null, "", `#job=${job.id}`);
    remember(job, begun.title.value, choice.pictures.length);
  };
  if (choice.pictures.length) await begun.send(model.value, made);
  else if (choice.archive) await begun.sendArchive(choice.archive, model.value, made);
  rememberEnd(begun);
}

/** @param {Job} job @param {string} title @param {number} images */
function remember(job, title, images) {
  const until = job.expires_at ? Date.parse(job.expires_at) : undefined;
  rememberJob({ id: job.id, title, images, at: Date.parse(job.created_at), until });
  earlier.value = earlierJobs();
}

/** @type {Set<string>} ids of jobs that were taken from the list, maybe while they ran */
const forgotten = new Set();

/** Once a job has ended it is known until when its results are kept. @param {Work} shown */
function rememberEnd(shown) {
  const job = shown.job.value;
  if (job && shown.phase.value === "done" && !forgotten.has(job.id)) remember(job, shown.title.value, shown.images);
}

/** @param {Choice} choice */
function noticesOf(choice) {
  const found = [];
  if (choice.tooMany) {
    found.push(`More than ${FILES_MAX.toLocaleString()} pictures are for the command: darkroom classify FOLDER`);
  }
  if (choice.large.length) {
    const bytes = bytesMax.value;
    const limit = bytes < 1 << 20 ? `${bytes >> 10} kB` : `${bytes >> 20} MB`;
    found.push(`Left out, as larger than ${limit}: ${listed(choice.large)}.`);
  }
  if (choice.others.length) found.push(`Left out, as no picture: ${listed(choice.others)}.`);
  if (choice.isText) found.push("That is text. Drop pictures, a folder, a zip or a tar.");
  else if (!found.length && !choice.pictures.length && !choice.archive) found.push("There are no pictures in it.");
  return found;
}

/** @param {string[]} names */
function listed(names) {
  return names.slice(0, 3).join(", ") + (names.length > 3 ? ` and ${names.length - 3} more` : "");
}

/** @param {Choice} choice */
function titleOf({ pictures, archive, folder }) {
  if (!pictures.length && archive) return archive.name;
  return (pictures.length > 1 && folder) || titleBy(pictures[0].name, pictures.length);
}

/** @param {string} first name @param {number} count */
function titleBy(first, count) {
  return count === 1 ? first : `${first} and ${count - 1} more`;
}

/** @param {Work} next */
function show(next) {
  work.value?.leave();
  work.value = next;
  return next;
}

/** Show the job that the address names, or the start. */
export async function openAddressed() {
  const found = JOB.exec(location.hash);
  if (!found) {
    if (location.hash.startsWith("#job")) notices.value = ["The address names no job."];
    work.value?.leave();
    work.value = null;
    return;
  }
  if (work.value?.job.value?.id === found[1].toLowerCase() && !work.value.error.value) return;
  notices.value = [];
  const opened = show(new Work(client));
  opened.showAgain(sent.get(found[1].toLowerCase()) ?? []);
  const known = earlier.value.find((it) => it.id === found[1].toLowerCase());
  opened.title.value = known?.title ?? "";
  await opened.load(found[1]);
  if (!opened.title.value && opened.images > 0) opened.title.value = titleBy(opened.nameOf(0), opened.images);
  rememberEnd(opened); // also in a browser that has not made it
}

export function toStart() {
  notices.value = [];
  history.pushState(null, "", location.pathname + location.search);
  openAddressed();
}

const AGAIN = ": failed ones, again";

/** Try the failed images again, as a new job. */
export async function retryFailed() {
  const shown = /** @type {Work} */ (work.value);
  try {
    const job = await client.retry(/** @type {{ id: string }} */ (shown.job.value).id);
    remember(job, `${shown.title.value.replace(AGAIN, "")}${AGAIN}`, job.counts.total);
    location.hash = `#job=${job.id}`;
  } catch (error) {
    if (!(error instanceof DarkroomError)) throw error;
    notices.value = [error.message];
  }
}

/** @param {string} id */
export function forget(id) {
  forgotten.add(id);
  forgetJob(id);
  earlier.value = earlierJobs();
}

export function start() {
  look();
  setInterval(look, LOOK_MS);
  openAddressed();
  addEventListener("hashchange", openAddressed);
  addEventListener("popstate", openAddressed);
  addEventListener("storage", () => (earlier.value = earlierJobs()));
  addEventListener("beforeunload", (event) => {
    if (work.value?.phase.value === "uploading") event.preventDefault();
  });
}
