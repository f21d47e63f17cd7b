// The pictures of a job: as many cells as are visible, however many pictures there are.

import {
  h, htm, observeWindowOffset, observeWindowRect, useEffect, useLayoutEffect, useRef, useState, Virtualizer, windowScroll,
} from "./vendor/vendor.js";
import { drawThumbnail } from "./thumbnails.js";
import { isDoubtful } from "./work.js";

/** @typedef {import("./work.js").Work} Work */

const html = htm.bind(h);
const CELL_WIDTH_MIN = 148;
const GAP = 12;
const TEXT_HEIGHT = 64;

/** @param {{ work: Work }} props */
export function Grid({ work }) {
  const view = work.view.value;
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const [width, setWidth] = useState(0);
  const [focus, setFocus] = useState(0);
  const columns = Math.max(2, Math.floor((width + GAP) / (CELL_WIDTH_MIN + GAP)));
  const cell = (width - GAP * (columns - 1)) / columns;
  const rowHeight = Math.round(cell + TEXT_HEIGHT + GAP);
  const rows = useRows(Math.ceil(view.length / columns), rowHeight, box.current?.offsetTop ?? 0);
  useLayoutEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(entry.contentRect.width));
    observer.observe(/** @type {HTMLElement} */ (box.current));
    return () => observer.disconnect();
  }, []);

  /** @param {KeyboardEvent} event */
  const onKey = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
    if (event.key === "Enter" || event.key === " ") work.open.value = view[focus] ?? null;
    else if (step) {
      const next = Math.min(view.length - 1, Math.max(0, focus + step));
      setFocus(next);
      rows.scrollToIndex(Math.floor(next / columns));
      requestAnimationFrame(() => /** @type {any} */ (box.current?.querySelector(`[data-place="${next}"]`))?.focus());
    } else return;
    event.preventDefault();
  };

  if (!view.length) return html`<div ref=${box}><p class="none">No picture is like that.</p></div>`;
  const last = Math.min(focus, view.length - 1);
  return html`<div ref=${box}><div class="grid" role="grid" aria-label="Pictures" aria-rowcount=${Math.ceil(view.length / columns)}
    style=${{ height: `${rows.getTotalSize()}px` }} onKeyDown=${onKey}>
    ${width > 0 && rows.getVirtualItems().map((/** @type {{ index: number, start: number }} */ row) => html`<div key=${row.index} class="row" role="row" aria-rowindex=${row.index + 1}
      style=${{ top: `${row.start - rows.options.scrollMargin}px`, gridTemplateColumns: `repeat(${columns}, 1fr)`, gap: `${GAP}px` }}>
      ${view.slice(row.index * columns, (row.index + 1) * columns).map((index, column) => {
        const place = row.index * columns + column;
        return html`<${Cell} key=${index} work=${work} index=${index} place=${place} hasFocus=${place === last}
          height=${cell} onOpen=${() => (setFocus(place), (work.open.value = index))} />`;
      })}</div>`)}
  </div></div>`;
}

/** The rows that the window shows. @param {number} count @param {number} height @param {number} top */
function useRows(count, height, top) {
  const [, redraw] = useState(0);
  const options = {
    count,
    estimateSize: () => height,
    scrollMargin: top,
    overscan: 2,
    getScrollElement: () => window,
    observeElementRect: observeWindowRect,
    observeElementOffset: observeWindowOffset,
    scrollToFn: windowScroll,
    initialOffset: () => window.scrollY,
    onChange: () => redraw((times) => times + 1),
  };
  const [rows] = useState(() => new Virtualizer(options));
  rows.setOptions(options);
  useLayoutEffect(() => rows._didMount(), []);
  useLayoutEffect(() => rows._willUpdate());
  useLayoutEffect(() => rows.measure(), [height, top]);
  return rows;
}

/**
 * @param {{ work: Work, index: number, place: number, hasFocus: boolean, height: number, onOpen: () => void }} props
 */
function Cell({ work, index, place, hasFocus, height, onOpen }) {
  const item = work.items[index];
  const name = work.nameOf(index);
  const share = Math.floor(100 * (item?.confidence ?? 0)); // rounded, 99.9% would seem certain
  const file = work.fileOf(index);
  const said = item?.class ?? (item ? (item.error?.code ?? item.status).replaceAll("_", " ") : "…");
  const kind = !item ? "waits" : item.class ? (isDoubtful(item) ? "doubtful" : "good") : "failed";
  return html`<div class=${`cell ${kind}`} role="gridcell" tabindex=${hasFocus ? 0 : -1} data-place=${place}
    aria-label=${`${name}: ${said}${item?.class ? `, ${share}%` : ""}`} onClick=${onOpen} style=${{ "--share": `${share}%` }}>
    <${Picture} key=${Boolean(file)} file=${file} name=${name} height=${height} />
    <b><span>${said}</span>${item?.class && html`<i>${share}%</i>`}</b><small>${name}</small>
  </div>`;
}

/** @param {{ file: Blob | undefined, name: string, height: number }} props */
export function Picture({ file, name, height }) {
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const [isShown, setShown] = useState(Boolean(file));
  useEffect(() => (canvas.current && file ? drawThumbnail(canvas.current, file, setShown) : undefined), [file]);
  const style = { height: `${height}px` };
  if (!file || !isShown) return html`<span class="blank" style=${style}>${/\.(\w{1,5})$/.exec(name)?.[1] ?? "image"}</span>`;
  return html`<canvas ref=${canvas} style=${style}></canvas>`;
}
