// The page: its head, the start, and what a drop or a paste does.

import { h, htm, render, useEffect, useRef, useState } from "./vendor/vendor.js";
import { chosenBy, chosenIn, PICTURES } from "./files.js";
import { JobView, moment } from "./job_view.js";
import * as state from "./state.js";

const html = htm.bind(h);
const SAMPLES = { "ankle-boot": "Ankle boot", bag: "Bag", dress: "Dress", sneaker: "Sneaker", shirt: "Shirt", trouser: "Trousers" };
const EARLIER_SHOWN = 5;

const number = (/** @type {number} */ value) => Math.round(value).toLocaleString("en");
const pictures = (/** @type {number} */ count) => (count === 1 ? "1 picture" : `${number(count)} pictures`);
const CLASSES_SHOWN = 6;
const counted = (/** @type {number} */ count) => (state.counting.value = count);

/** @param {FileList | File[] | null} files */
function beginWith(files) {
  if (files?.length) state.begin(chosenIn(files, state.bytesMax.value, counted));
}

/** @param {Event} event */
function toEarlier(event) {
  event.preventDefault();
  state.toStart();
  requestAnimationFrame(() => document.querySelector(".earlier")?.scrollIntoView());
}

function Top() {
  const found = state.server.value;
  const waiting = found ? Object.values(found.queue).reduce((total, lane) => total + lane.images, 0) : 0;
  return html`<header>
    <h1><a href="#" onClick=${(/** @type {Event} */ e) => (e.preventDefault(), state.toStart())}>Darkroom</a></h1>
    ${state.models.value.length > 0 && html`<label class="picker">Model
      <select value=${state.model.value} onChange=${(/** @type {any} */ e) => (state.model.value = e.target.value)}>
        <option value="">${found?.default_model ?? "the default"}</option>
        ${state.models.value.map((it) => it.name !== found?.default_model && html`<option value=${it.id}>${it.id}</option>`)}
      </select></label>`}
    ${found && html`<p class="strip"><span class=${found.workers ? "lamp on" : "lamp"}></span>
      ${found.workers} ${found.workers === 1 ? "worker" : "workers"} · ${number(waiting)} waiting ·
      ${" "}${number(found.images_per_second)} images/s${state.faults.value > 0 && ` · ${state.faults.value} with faults`}</p>`}
    <nav>${state.earlier.value.length > 0 && html`<a href="#" onClick=${toEarlier}>Your jobs</a>`}<a href="docs">API</a></nav>
  </header>`;
}

function KeyForm() {
  const isWrong = state.access.value === "wrong";
  const field = useRef(/** @type {HTMLInputElement | null} */ (null));
  const [remember, setRemember] = useState(false);
  /** @param {Event} event */
  const submit = (event) => {
    event.preventDefault();
    state.useKey(field.current?.value ?? "", remember);
  };
  return html`<form class="key" onSubmit=${submit}>
    <h2>${isWrong ? "This key is not accepted" : "This server asks for a key"}</h2>
    <p>${isWrong ? "It may have been revoked, or cut off." : "Who runs the server has one for you."}</p>
    <label>API key <input ref=${field} type="password" autocomplete="off" required aria-invalid=${isWrong} /></label>
    <label><input type="checkbox" checked=${remember} onChange=${() => setRemember(!remember)} /> remember it in this browser</label>
    <button class="primary">Use this key</button>
  </form>`;
}

/** @param {{ isSmall: boolean }} props */
function DropField({ isSmall }) {
  const count = state.counting.value;
  const picked = (/** @type {any} */ event) => {
    beginWith([...event.target.files]);
    event.target.value = "";
  };
  return html`<section class=${isSmall ? "drop small" : "drop"} aria-label="Pictures to classify">
    <p class="lead">${count !== null ? `Counting: ${pictures(count)}` : isSmall ? "Another job: drop more pictures" : "Drop pictures here"}</p>
    ${!isSmall && html`<p class="hint">a folder, a zip or a tar — or paste one</p><${Classes} />`}
    <p class="choose">
      <label class=${isSmall ? "button" : "button primary"}>Choose pictures<input type="file" multiple accept=${`image/*,${PICTURES},.zip,.tar,.tgz`} onChange=${picked} /></label>
      <label class="button">Choose a folder<input type="file" webkitdirectory onChange=${picked} /></label>
    </p>
  </section>`;
}

/** What the chosen model knows. */
function Classes() {
  const name = state.server.value?.default_model;
  const found = state.models.value.find((it) => (state.model.value ? it.id === state.model.value : it.default && it.name === name));
  if (!found) return null;
  const some = found.classes.slice(0, CLASSES_SHOWN).join(", ");
  return html`<p class="hint">${found.name} tells ${number(found.classes.length)} classes apart: ${some}, …</p>`;
}

function Start() {
  /** @param {string} name */
  const trySample = async (name) => {
    const answer = await fetch(`web/samples/${name}.png`);
    beginWith([new File([await answer.blob()], `${name}.png`, { type: "image/png" })]);
  };
  return html`<${DropField} isSmall=${false} /><${EarlierJobs} />
    <section class="samples"><h2>Or try one of these</h2><ul>
      ${Object.entries(SAMPLES).map(([name, title]) => html`<li><button onClick=${() => trySample(name)}>
        <img src=${`web/samples/${name}.png`} width="28" height="28" alt="" />${title}</button></li>`)}
    </ul></section>`;
}

/** The jobs that this browser has made or opened. */
function EarlierJobs() {
  const [isLong, lengthen] = useState(false);
  const jobs = state.earlier.value;
  const more = jobs.length - EARLIER_SHOWN;
  if (!jobs.length) return null;
  /** @param {import("./memory.js").Earlier} job */
  const row = ({ id, title, images, at, until }) => html`<li key=${id}>
    <a href=${`#job=${id}`}><span>${title}</span> <small>${images > 0 && `${pictures(images)} · `}${moment(at)}
      ${until && (until > Date.now() ? ` · kept until ${moment(until)}` : " · no longer kept")}</small></a>
    <button class="quiet" aria-label=${`Forget ${title}`} title="Remove from this list. The job stays." onClick=${() => state.forget(id)}>×</button></li>`;
  return html`<section class="earlier"><h2>Your earlier jobs</h2><ul>${(isLong ? jobs : jobs.slice(0, EARLIER_SHOWN)).map(row)}</ul>
    ${more > 0 && html`<button class="quiet" onClick=${() => lengthen(!isLong)}>${isLong ? "fewer" : `${more} more`}</button>`}</section>`;
}

function App() {
  const shown = state.work.value;
  const title = shown?.title.value;
  useEffect(() => void (document.title = title ? `${title} – Darkroom` : "Darkroom"), [title]);
  const warnings = [...state.notices.value];
  if (state.noWorker.value) warnings.push("No worker runs: pictures are accepted, and classified once one has started.");
  if (state.upgraded.value) warnings.push("The server was upgraded. Load this page again.");
  return html`<${Top} />
    <main>
      <div class="messages" role="status">
        ${state.trouble.value && html`<p class="message trouble">${state.trouble.value}</p>`}
        ${warnings.map((text) => html`<p class="message" key=${text}>${text}</p>`)}
      </div>
      ${state.access.value !== "ok" && html`<${KeyForm} />`}
      ${shown && html`<${JobView} key=${shown} work=${shown} />`}
      ${shown ? html`<${DropField} isSmall=${true} />` : html`<${Start} />`}
    </main>`;
}

/** @param {Event} event */
const allow = (event) => event.preventDefault();
addEventListener("dragover", (event) => (allow(event), document.body.classList.add("dragging")));
addEventListener("dragleave", (event) => event.relatedTarget ?? document.body.classList.remove("dragging"));
addEventListener("drop", (event) => {
  allow(event);
  document.body.classList.remove("dragging");
  if (event.dataTransfer) state.begin(chosenBy(event.dataTransfer, state.bytesMax.value, counted));
});
addEventListener("paste", (event) => {
  if (event.clipboardData && !(event.target instanceof HTMLInputElement)) {
    state.begin(chosenBy(event.clipboardData, state.bytesMax.value, counted));
  }
});
state.start();
const page = /** @type {HTMLElement} */ (document.getElementById("page"));
page.replaceChildren();
render(html`<${App} />`, page);
