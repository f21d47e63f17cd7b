// One picture: its classes or why it has none, and the calls that classify it.

import { h, htm, useEffect, useLayoutEffect, useRef, useState } from "./vendor/vendor.js";
import { client } from "./state.js";

/** @typedef {import("./work.js").Work} Work */

const html = htm.bind(h);
const WARNINGS = { unfamiliar: "This picture is unlike those that the model was trained on." };

/** @param {{ work: Work }} props */
export function Detail({ work }) {
  const index = work.open.value;
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useLayoutEffect(() => {
    if (index !== null && !dialog.current?.open) dialog.current?.showModal();
    if (index === null) dialog.current?.close();
  }, [index]);
  /** @param {KeyboardEvent} event */
  const onKey = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || index === null) return;
    const next = work.view.value[work.view.value.indexOf(index) + step];
    if (next !== undefined) work.open.value = next;
  };
  return html`<dialog ref=${dialog} aria-label="Picture" onClose=${() => (work.open.value = null)} onKeyDown=${onKey}
    onClick=${(/** @type {Event} */ e) => e.target === dialog.current && dialog.current?.close()}>
    ${index !== null && html`<${Content} key=${index} work=${work} index=${index} />`}
  </dialog>`;
}

/** @param {{ work: Work, index: number }} props */
function Content({ work, index }) {
  work.tick.value;
  const item = work.items[index];
  const name = work.nameOf(index);
  const file = work.fileOf(index);
  const place = work.view.value.indexOf(index);
  /** @param {number} step @param {string} label @param {string} sign */
  const button = (step, label, sign) => {
    const next = place < 0 ? undefined : work.view.value[place + step];
    return html`<button class="quiet" aria-label=${label} disabled=${next === undefined}
      onClick=${() => (work.open.value = next ?? index)}>${sign}</button>`;
  };
  const [url, setUrl] = useState("");
  useEffect(() => {
    if (!file) return;
    const made = URL.createObjectURL(file);
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [file]);
  return html`<article>
    <button class="quiet close" aria-label="Close" onClick=${() => (work.open.value = null)}>×</button>
    <p class="steps">${button(-1, "Previous", "‹")} ${place + 1} of ${work.view.value.length} ${button(1, "Next", "›")}</p>
    <h2>${item?.class ?? (item ? (item.status === "failed" ? "Failed" : "No class") : "Not classified yet")}</h2>
    <p class="name">${name}</p>
    ${url && html`<img src=${url} alt="" onError=${() => setUrl("")} class=${file && file.size < 20_000 ? "tiny" : ""} />`}
    ${item?.error && html`<p class="reason"><b>${item.error.code.replaceAll("_", " ")}</b> ${item.error.detail}</p>`}
    ${(item?.warnings ?? []).map((it) => html`<p class="reason">${/** @type {any} */ (WARNINGS)[it] ?? it}</p>`)}
    ${item?.top_k && html`<ul class="ranks">${item.top_k.map((it) => html`<li key=${it.class} style=${{ "--share": `${100 * it.confidence}%` }}>
      <span>${it.class}</span> <b>${(100 * it.confidence).toFixed(1)}%</b></li>`)}</ul>`}
    <${Calls} name=${name} model=${item?.model ?? work.job.value?.model ?? ""} type=${file?.type || "application/octet-stream"} />
  </article>`;
}

/** @param {{ name: string, model: string, type: string }} props */
function Calls({ name, model, type }) {
  const [language, choose] = useState("curl");
  const url = client.url.href.replace(/\/$/, "");
  const key = client.key ? { curl: ` \\\n  -H "Authorization: Bearer $DARKROOM_API_KEY"`, js: ", key: process.env.DARKROOM_API_KEY" } : { curl: "", js: "" };
  const quoted = JSON.stringify(name);
  const calls = {
    curl: `curl -H "Content-Type: ${type}" -H "Prefer: wait=30"${key.curl} \\\n  --data-binary @'${name.replaceAll("'", `'\\''`)}' "${url}/v1/jobs?model=${model}"`,
    Python: `from darkroom import Darkroom\n\nwith Darkroom("${url}") as darkroom:\n    item = darkroom.classify(${quoted}, model="${model}")\n    print(item.class_name, item.confidence)`,
    JavaScript: `// In Node, after: curl -o darkroom.mjs "${url}/web/darkroom.js"\nimport { readFile } from "node:fs/promises";\nimport { Darkroom } from "./darkroom.mjs";\n\nconst darkroom = new Darkroom({ url: "${url}"${key.js} });\nconst picture = new Blob([await readFile(${quoted})], { type: "${type}" });\nconst item = await darkroom.classify(picture, { model: "${model}" });\nconsole.log(item.class, item.confidence);`,
  };
  return html`<details class="calls"><summary>The call in code</summary>
    <p class="chips" role="group" aria-label="Language">${Object.keys(calls).map((it) => html`<button class="chip" key=${it}
      aria-pressed=${it === language} onClick=${() => choose(it)}>${it}</button>`)}</p>
    <pre tabindex="0"><code>${/** @type {any} */ (calls)[language]}</code></pre>
  </details>`;
}
