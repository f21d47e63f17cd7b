// One job: how far it is, its classes, and its pictures.

import { Fragment, h, htm, useEffect, useState } from "./vendor/vendor.js";
import { chosenIn } from "./files.js";
import { Detail } from "./detail.js";
import { Grid } from "./grid.js";
import { bytesMax, client, retryFailed, toStart } from "./state.js";
import { DOUBTFUL_BELOW, SHOWN_MAX } from "./work.js";

/** @typedef {import("./work.js").Work} Work */

const html = htm.bind(h);
const CHIPS_MAX = 12;
const SAID_MS = 5000; // between two lines for screen readers

const number = (/** @type {number} */ value) => Math.round(value).toLocaleString("en");
/** A day and a time, as the browser's language writes them. @param {number | string} time */
export const moment = (time) => new Date(time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
/** @param {number} bytes @param {number} total whose unit both have */
const size = (bytes, total) => (total < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(total < 1e7 ? 1 : 0)} MB`);

/** @param {Work} work */
function headline(work) {
  const counts = work.job.value?.counts;
  const images = number(work.images);
  const ended = number((counts?.succeeded ?? 0) + (counts?.failed ?? 0));
  const all = work.totalBytes;
  switch (work.phase.value) {
    case "opening":
      return "Looking for the job";
    case "uploading":
      return `Uploading ${size(Math.min(work.sentBytes.value, all), all)} of ${size(all, all)} · ${ended} of ${images} classified`;
    case "classifying":
      return `${ended} of ${images} classified`;
    case "interrupted":
      return `This upload was interrupted: ${images} pictures have arrived`;
    case "gone":
      return "This job is gone: results are kept for a while only, or it belongs to another key";
    case "failed":
      return work.error.value?.message ?? "";
    default:
      if (work.job.value?.status === "canceled" || counts?.canceled) return `Canceled · ${ended} of ${images} classified`;
      if (counts?.failed) return `${number(counts.succeeded)} of ${images} classified · ${number(counts.failed)} failed`;
      return images === "1" ? "Classified" : `All ${images} classified`;
  }
}

/** @param {{ work: Work }} props */
export function JobView({ work }) {
  const job = work.job.value;
  const phase = work.phase.value;
  const isRunning = phase === "uploading" || phase === "classifying";
  const counts = job?.counts;
  const ended = (counts?.succeeded ?? 0) + (counts?.failed ?? 0);
  const text = headline(work);
  /** @param {"csv" | "json"} format */
  const save = async (format) => {
    const url = URL.createObjectURL(await client.file(/** @type {any} */ (job).id, format));
    Object.assign(document.createElement("a"), { href: url, download: `darkroom-${work.title.value.replace(/[^\p{L}\p{N}._-]+/gu, "-").slice(0, 80)}.${format}` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  };
  return html`<section class="job" aria-label="Job">
    <h2>${text}</h2><${Said} text=${text} />
    ${job && html`<p class="hint about">${[work.title.value, moment(job.created_at)].filter(Boolean).join(" · ")}
      ${job.expires_at && ` · kept until ${moment(job.expires_at)}; this page's address opens it again`}</p>`}
    ${isRunning && html`<div class="bars">
      ${phase === "uploading" && html`<progress aria-label="Uploaded" max=${work.totalBytes || 1} value=${work.sentBytes.value}></progress>`}
      <progress aria-label="Classified" max=${work.images || 1} value=${ended}></progress></div>`}
    ${job?.notice && isRunning && html`<p class="message">${job.notice}</p>`}
    ${work.images > SHOWN_MAX && html`<p class="message">The first ${number(SHOWN_MAX)} pictures are shown; files have all.</p>`}
    <p class="actions">
      ${phase === "done" && html`<button onClick=${() => save("csv")}>Download CSV</button>
        <button onClick=${() => save("json")}>Download JSON</button>`}
      ${phase === "done" && work.counts.value.again > 0 && html`<button onClick=${retryFailed}>Retry failed</button>`}
      ${phase === "interrupted" && html`<button class="primary" onClick=${() => work.seal()}>Classify what has arrived</button>`}
      ${(isRunning || phase === "interrupted") && job && html`<button onClick=${() => work.cancel()}>Cancel</button>`}
      ${!isRunning && html`<button onClick=${toStart}>New job</button>`}
    </p>
    ${phase === "done" && work.lacksFiles && html`<${ChooseAgain} work=${work} />`}
    ${phase !== "gone" && work.images > 0 && html`<${Fragment}><${Chips} work=${work} /><${Tools} work=${work} />
      <${Grid} work=${work} /><${Detail} work=${work} /></${Fragment}>`}
  </section>`;
}

/** What a screen reader says now and then. @param {{ text: string }} props */
function Said({ text }) {
  const [said, say] = useState(text);
  useEffect(() => {
    const timer = setTimeout(() => say(text), text === said ? 0 : SAID_MS);
    return () => clearTimeout(timer);
  }, [text]);
  return html`<p class="unseen" role="status">${said}</p>`;
}

/** A job that was opened by its address has names, and no pictures. @param {{ work: Work }} props */
function ChooseAgain({ work }) {
  const [isFound, setFound] = useState(true);
  const picked = async (/** @type {any} */ event) => {
    const { pictures } = await chosenIn([...event.target.files], bytesMax.value, () => {});
    setFound(work.showAgain(pictures));
  };
  return html`<p class="message again">The server keeps the results, not the pictures. To see the pictures, choose the same files:
    <label class="button">Show pictures<input type="file" multiple onChange=${picked} /></label>
    <label class="button">Show a folder<input type="file" webkitdirectory onChange=${picked} /></label>
    ${!isFound && html`<span role="alert">None of those has a name of this job.</span>`}</p>`;
}

/** @param {{ work: Work }} props */
function Chips({ work }) {
  const { classes, failed, unfamiliar, doubtful } = work.counts.value;
  const now = work.filter.value;
  const [isLong, lengthen] = useState(false);
  /** @param {import("./work.js").Filter} filter @param {string} label @param {number} count @param {string} [title] */
  const chip = (filter, label, count, title) => {
    const isOn = now.by === filter.by && now.name === filter.name;
    return html`<button class=${`chip ${filter.by}`} key=${filter.by + label} aria-pressed=${isOn} title=${title}
      onClick=${() => choose(isOn ? { by: "all" } : filter)}>${label} <b>${number(count)}</b></button>`;
  };
  const choose = (/** @type {import("./work.js").Filter} */ filter) => {
    work.filter.value = filter;
    if (filter.by !== "class") work.below.value = 100; // failed ones have no confidence
  };
  const some = isLong ? classes : classes.slice(0, CHIPS_MAX);
  return html`<div class="chips" role="group" aria-label="Show">
    ${chip({ by: "all" }, "All", Math.min(SHOWN_MAX, work.images))}
    ${some.map(([name, count]) => chip({ by: "class", name }, name, count))}
    ${classes.length > CHIPS_MAX && html`<button class="quiet" onClick=${() => lengthen(!isLong)}>
      ${isLong ? "fewer" : `${classes.length - CHIPS_MAX} more`}</button>`}
    ${failed > 0 && chip({ by: "failed" }, "Failed", failed)}
    ${unfamiliar > 0 && chip({ by: "unfamiliar" }, "Unfamiliar", unfamiliar, "unlike the pictures that the model was trained on")}
    ${doubtful > 0 && chip({ by: "doubtful" }, "Doubtful", doubtful, `unfamiliar, or below ${100 * DOUBTFUL_BELOW}%`)}
  </div>`;
}

/** @param {{ work: Work }} props */
function Tools({ work }) {
  const below = work.below.value;
  const shown = work.view.value.length;
  const all = Math.min(SHOWN_MAX, work.images);
  const limit = (/** @type {number} */ percent) => {
    work.below.value = percent;
    if (work.filter.value.by === "failed") work.filter.value = { by: "all" };
  };
  return html`<p class="tools">
    <label>Confidence up to <span>${below}%</span>
      <input type="range" min="10" max="100" step="5" value=${below}
        onInput=${(/** @type {any} */ e) => limit(Number(e.target.value))} /></label>
    <label>Sort <select value=${work.sort.value} onChange=${(/** @type {any} */ e) => (work.sort.value = e.target.value)}>
      <option value="order">as they came</option><option value="doubtful">doubtful first</option>
      <option value="class">by class</option><option value="name">by name</option></select></label>
    ${shown < all && html`<span>${number(shown)} of ${number(all)} shown</span>
      <button class="chip" onClick=${() => ((work.below.value = 100), (work.filter.value = { by: "all" }))}>Show all</button>`}
  </p>`;
}
