// What the browser keeps: the key, and the jobs that were made here. Storage may be off or full: then nothing is kept.

const KEY = "darkroom.key";
const JOBS = "darkroom.jobs";
const JOBS_MAX = 30;

/** @typedef {{ id: string, title: string, images: number, at: number, until?: number }} Earlier `until`: its results are kept */

/** @template T @param {() => T} use @param {T} otherwise */
function attempt(use, otherwise) {
  try {
    return use();
  } catch {
    return otherwise;
  }
}

export function storedKey() {
  return attempt(() => sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY) ?? "", "");
}

/** @param {string} key @param {boolean} remember beyond this tab */
export function storeKey(key, remember) {
  attempt(() => {
    localStorage.removeItem(KEY);
    sessionStorage.removeItem(KEY);
    if (key) (remember ? localStorage : sessionStorage).setItem(KEY, key);
  }, undefined);
}

/** The newest first. @returns {Earlier[]} */
export function earlierJobs() {
  const found = attempt(() => JSON.parse(localStorage.getItem(JOBS) ?? "[]"), []);
  return Array.isArray(found) ? found.filter((it) => typeof it?.id === "string") : [];
}

/** @param {Earlier} job */
export function rememberJob(job) {
  const others = earlierJobs().filter((it) => it.id !== job.id); // read again: another tab may have added some
  const all = [job, ...others].sort((one, other) => other.at - one.at);
  attempt(() => localStorage.setItem(JOBS, JSON.stringify(all.slice(0, JOBS_MAX))), undefined);
}

/** @param {string} id */
export function forgetJob(id) {
  attempt(() => localStorage.setItem(JOBS, JSON.stringify(earlierJobs().filter((it) => it.id !== id))), undefined);
}
