// A client of Darkroom for browsers and Node, without dependencies.
//
//   import { Darkroom } from "./darkroom.js";
//   const item = await new Darkroom({ url: "http://127.0.0.1:8000" }).classify(file);
//   console.log(item.class, item.confidence);

/** @typedef {import("./schema.js").components["schemas"]} Schemas what openapi-typescript makes of docs/openapi.json */
/** @typedef {Schemas["JobResource"]} Job */
/** @typedef {Schemas["ItemResult"]} Item */
/** @typedef {Schemas["ServerResource"]} Server */
/** @typedef {Schemas["ModelResource"]} Model */
/** @typedef {{ model?: string, lane?: string, top_k?: number }} Options */
/** @typedef {Blob | string | (() => Promise<Blob>)} Body a function makes the body of each try */
/** @typedef {{ query?: Record<string, unknown>, body?: Body, type?: string, idempotencyKey?: string,
 *    prefer?: string, onProgress?: (sentBytes: number) => void, signal?: AbortSignal }} Request */
/** @typedef {{ status: number, header: (name: string) => string | null, text: string }} Answer */

const RETRYABLE = [0, 429, 502, 503, 504];
const PAUSE_SECONDS_MAX = 10;
const WAIT_SECONDS_MAX = 20;
export const TAR = "application/x-tar";

/** A refusal of the server, or no answer: `status` 0, code `unreachable`. */
export class DarkroomError extends Error {
  /** @param {number} status @param {string} code @param {string} detail @param {number | null} [retryAfterSeconds] */
  constructor(status, code, detail, retryAfterSeconds = null) {
    super(detail);
    this.name = "DarkroomError";
    this.status = status;
    this.code = code;
    this.retryAfterSeconds = retryAfterSeconds;
  }

  /** Whether the same call may succeed a little later. */
  get retryable() {
    return RETRYABLE.includes(this.status) || this.code === "idempotency_in_progress";
  }
}

export class Darkroom {
  /**
   * A call that fails for now is tried again for `retrySeconds`; `onTrouble` is told of each such failure, and null when
   * it is over. A call whose key is refused is made again once `onUnauthorized` has found another `key`.
   * @param {{ url?: string | URL, key?: string, retrySeconds?: number, onUnauthorized?: () => Promise<void>,
   *   onTrouble?: (error: DarkroomError | null, seconds: number) => void }} [options]
   */
  constructor({ url = "http://127.0.0.1:8000", key = "", retrySeconds = 120, onUnauthorized, onTrouble = () => {} } = {}) {
    this.url = new URL(String(url).replace(/\/?$/, "/"));
    this.key = key;
    this.retrySeconds = retrySeconds;
    this.onUnauthorized = onUnauthorized;
    this.onTrouble = onTrouble;
  }

  /** @returns {Promise<Server>} */
  server() {
    return this.call("GET", "v1/server");
  }

  /** The models, and which of them workers cannot serve. @returns {Promise<Schemas["ModelList"]>} */
  models() {
    return this.call("GET", "v1/models");
  }

  /** One image's result. @param {Blob} image @param {Options} [options] @returns {Promise<Item>} */
  async classify(image, options = {}) {
    const type = image.type || "application/octet-stream";
    let job = await this.call("POST", "v1/jobs", { query: options, body: image, type, prefer: "wait=20" });
    while (!job.completed_at) job = await this.job(job.id, WAIT_SECONDS_MAX);
    return job.result;
  }

  /** An archive (zip, tar) as one job. @param {Blob} archive @param {Options & Request} options @returns {Promise<Job>} */
  submit(archive, { onProgress, signal, ...options }) {
    const type = archive.type || "application/octet-stream";
    return this.call("POST", "v1/jobs", { query: options, body: archive, type, onProgress, signal });
  }

  /** A job that takes parts until it is sealed. @param {Options} [options] @returns {Promise<Job>} */
  open(options = {}) {
    return this.call("POST", "v1/jobs", { query: { ...options, open: true } });
  }

  /**
   * Add a tar to an open job. The same key adds it once, however often it is sent.
   * @param {string} id @param {Body} tar @param {string} idempotencyKey @param {Request} [request] @returns {Promise<Job>}
   */
  add(id, tar, idempotencyKey, request = {}) {
    return this.call("POST", `v1/jobs/${id}/items`, { ...request, body: tar, type: TAR, idempotencyKey });
  }

  /** @param {string} id @returns {Promise<Job>} */
  seal(id) {
    return this.call("POST", `v1/jobs/${id}/seal`);
  }

  /** @param {string} id @param {number} [waitSeconds] for the end of the job @returns {Promise<Job>} */
  job(id, waitSeconds) {
    return this.call("GET", `v1/jobs/${id}`, { query: { wait: waitSeconds } });
  }

  /** @param {string} id @returns {Promise<Job>} */
  cancel(id) {
    return this.call("POST", `v1/jobs/${id}/cancel`);
  }

  /** A new job of the failed images. @param {string} id @returns {Promise<Job>} */
  retry(id) {
    return this.call("POST", `v1/jobs/${id}/retry`);
  }

  /** The results as a file. @param {string} id @param {"csv" | "json"} format @returns {Promise<Blob>} */
  async file(id, format) {
    const query = format === "csv" ? { format, bom: true } : { format: "ndjson" };
    const answer = await this.#fetch(`v1/jobs/${id}/results`, query);
    if (format === "csv") return answer.blob();
    const items = (await answer.text()).split("\n").filter(Boolean);
    return new Blob([`[\n${items.join(",\n")}\n]\n`], { type: "application/json" });
  }

  /**
   * The images that have ended, in order; with `follow` all, as they end. Goes on where a stream broke off.
   * @param {string} id @param {{ from?: number, follow?: boolean, signal?: AbortSignal }} [options]
   * @returns {AsyncGenerator<Item>}
   */
  async *results(id, { from = 0, follow = false, signal } = {}) {
    const patience = new Patience(this, signal);
    for (;;) {
      try {
        const query = { format: "ndjson", follow: follow || undefined, from: from || undefined };
        const answer = await this.#fetch(`v1/jobs/${id}/results`, query, signal);
        patience.rest();
        for await (const line of lines(answer)) {
          const item = JSON.parse(line);
          from = item.index + 1;
          yield item;
        }
        return;
      } catch (error) {
        await patience.after(error);
      }
    }
  }

  /** The JSON of an answer. @param {string} method @param {string} path @param {Request} [request] @returns {Promise<any>} */
  async call(method, path, request = {}) {
    const { query = {}, body, type, prefer, idempotencyKey, onProgress, signal } = request;
    const own = { Accept: "application/json", "Content-Type": type, Prefer: prefer };
    const once = method === "POST" ? { "Idempotency-Key": idempotencyKey ?? randomId() } : {};
    const send = onProgress && typeof XMLHttpRequest === "function" ? sendWithProgress : sendByFetch;
    const patience = new Patience(this, signal);
    for (;;) {
      try {
        const content = typeof body === "function" ? await body() : body;
        const headers = this.#headers({ ...own, ...once });
        const answer = await send(method, this.#at(path, query), { headers, body: content, onProgress, signal });
        const found = parsed(answer);
        patience.rest();
        return found;
      } catch (error) {
        await patience.after(error);
      }
    }
  }

  /** @param {string} path @param {Record<string, unknown>} query @param {AbortSignal} [signal] */
  async #fetch(path, query, signal) {
    const answer = await reach(this.#at(path, query), { headers: this.#headers({}), signal });
    if (!answer.ok) parsed({ status: answer.status, header: (it) => answer.headers.get(it), text: await answer.text() });
    return answer;
  }

  /** @param {string} path @param {Record<string, unknown>} query */
  #at(path, query) {
    const url = new URL(path, this.url);
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined && value !== "") url.searchParams.set(name, String(value));
    }
    return url;
  }

  /** @param {Record<string, string | undefined>} given */
  #headers(given) {
    const all = { ...given, Authorization: this.key ? `Bearer ${this.key}` : undefined };
    /** @type {Record<string, string>} */
    const headers = {};
    for (const [name, value] of Object.entries(all)) if (value) headers[name] = value;
    return headers;
  }
}

/** When to try again, until there was no answer for the client's `retrySeconds`. */
class Patience {
  /** @param {Darkroom} client @param {AbortSignal} [signal] */
  constructor(client, signal) {
    this.client = client;
    this.signal = signal;
    this.rest();
  }

  /** The server answered. */
  rest() {
    if (this.since) this.client.onTrouble(null, 0);
    this.since = 0;
    this.pause = 0.5;
  }

  /** Wait until the next try. Throws what cannot pass. @param {unknown} error */
  async after(error) {
    this.signal?.throwIfAborted();
    const now = Date.now() / 1000;
    this.since ||= now;
    if (!(error instanceof DarkroomError)) throw error;
    if (error.status === 401 && this.client.onUnauthorized) {
      await this.client.onUnauthorized();
      this.signal?.throwIfAborted();
      return this.rest();
    }
    const seconds = error.retryAfterSeconds ?? this.pause * (0.5 + Math.random() / 2);
    if (!error.retryable || now + seconds > this.since + this.client.retrySeconds) {
      this.rest();
      throw error;
    }
    this.client.onTrouble(error, seconds);
    this.pause = Math.min(2 * this.pause, PAUSE_SECONDS_MAX);
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, 1000 * seconds);
      this.signal?.addEventListener("abort", () => resolve(clearTimeout(timer)), { once: true });
    });
    this.signal?.throwIfAborted();
  }
}

/** 32 hexadecimal digits, also where a page has no TLS. */
export function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {URL} url @param {RequestInit} init */
async function reach(url, init) {
  try {
    return await fetch(url, init);
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw unreachable(url);
  }
}

/** @param {URL} url */
function unreachable(url) {
  return new DarkroomError(0, "unreachable", `${url.origin} does not answer.`);
}

/**
 * @param {string} method @param {URL} url
 * @param {{ headers: Record<string, string>, body?: Blob | string, signal?: AbortSignal }} init @returns {Promise<Answer>}
 */
async function sendByFetch(method, url, { headers, body, signal }) {
  const answer = await reach(url, { method, headers, body, signal });
  return { status: answer.status, header: (name) => answer.headers.get(name), text: await answer.text() };
}

/**
 * `fetch` does not say how much of a body is sent.
 * @param {string} method @param {URL} url
 * @param {{ headers: Record<string, string>, body?: Blob | string, onProgress?: (sentBytes: number) => void,
 *   signal?: AbortSignal }} init @returns {Promise<Answer>}
 */
function sendWithProgress(method, url, { headers, body, onProgress, signal }) {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    xhr.open(method, url);
    for (const [name, value] of Object.entries(headers)) xhr.setRequestHeader(name, value);
    xhr.upload.onprogress = (event) => onProgress?.(event.loaded);
    xhr.onload = () =>
      resolve({ status: xhr.status, header: (name) => xhr.getResponseHeader(name), text: xhr.responseText });
    xhr.onerror = xhr.onabort = () => reject(unreachable(url));
    signal?.addEventListener("abort", () => xhr.abort(), { once: true });
    xhr.send(body);
  });
}

/** The JSON of an answer. @param {Answer} answer */
function parsed({ status, header, text }) {
  if (status === 204) return null;
  let body = null;
  try {
    body = JSON.parse(text);
  } catch {
    // A proxy answers with a page of its own.
  }
  if (status < 300 && body !== null) return body;
  const after = header("Retry-After");
  const seconds = after && /^\d+$/.test(after) ? Number(after) : null;
  const said = [body?.title, body?.detail].filter(Boolean).join(". ") || `The server answers with status ${status}.`;
  throw new DarkroomError(status, body?.code ?? "no_darkroom", said, seconds);
}

/** The lines of a stream. @param {Response} answer */
async function* lines(answer) {
  const reader = /** @type {ReadableStream<Uint8Array>} */ (answer.body).getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read().catch(() => Promise.reject(unreachable(new URL(answer.url))));
      if (done) break;
      const found = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = found.pop() ?? "";
      yield* found;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
