// @ts-check
// One connection by fetch. It reads only as fast as its consumer does, and notices a silent server.

import { createParser } from "./vendor/eventsource-parser/index.js";
import { fault, malformed, StreamError } from "./error.js";

/** Heartbeats come every 10 s: after this long without a byte the connection is dead. */
const WATCHDOG_MS = 30_000;
/** Characters of one event, and of an error's body: no server fills the memory. */
const EVENT_LIMIT = 4 << 20;
const PROBLEM_LIMIT = 64 << 10;

/** @typedef {{ event?: string, id?: string, data: string }} ServerEvent  An absent or empty id is none. */

/**
 * What a connection tells beside its events.
 * @typedef {object} Listener
 * @property {(url: string, location?: string | null) => void} onAnswer the address that answered, and the `Content-Location`
 * @property {() => void} onNothing a 204
 * @property {(id: string) => void} onId
 * @property {(ms: number) => void} onRetry
 * @property {() => void} onComment
 */

/** The events of one response. @param {string} url @param {RequestInit} init @param {AbortController} connection @param {Listener} on
 * @returns {AsyncGenerator<ServerEvent, void>} */
export async function* readByFetch(url, init, connection, on) {
  const response = await ask(url, init, connection);
  if (response.status === 204) on.onNothing();
  // HTML §9.2.3: anything else is no stream, as if it ended here. It comes from something in between, and may go away.
  if (!/^text\/event-stream/i.test(response.headers.get("content-type") ?? "")) return;
  on.onAnswer(response.url, response.headers.get("content-location"));

  /** @type {ServerEvent[]} */
  const events = [];
  const parser = createParser({
    ...on, // a server may tell the id without data
    maxBufferSize: EVENT_LIMIT,
    onEvent: (/** @type {ServerEvent} */ event) => events.push(event),
    onError(/** @type {any} */ error) {
      if (error.type === "max-buffer-size-exceeded") throw malformed("An event is too long");
    },
  });
  for await (const text of textOf(response, connection)) {
    parser.feed(text);
    yield* events.splice(0);
  }
}

/** A body as it arrives. @param {Response} response @param {AbortController} connection @returns {AsyncGenerator<string, void>} */
async function* textOf(response, connection) {
  let reader;
  try {
    reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  } catch (cause) { // React Native's fetch gives no body, and what wraps fetch may have locked it
    throw new StreamError({ type: "unsupported", title: 'No body to read: use transport "eventsource", or expo/fetch' }, { cause });
  }
  for (const decoder = new TextDecoder(); ;) {
    const { done, value } = await watched(reader.read(), connection);
    if (done) return;
    yield decoder.decode(value, { stream: true });
  }
}

/** A start's: 128 bits. Not `randomUUID`, which pages on plain HTTP don't have. */
export function randomKey() {
  return crypto.getRandomValues(new Uint8Array(16)).join("-");
}

/** One request. Throws any answer but a 2xx. @param {string} url @param {RequestInit} init @param {AbortController} connection */
export async function ask(url, init, connection) {
  const request = fetch(url, { cache: "no-store", ...init, signal: connection.signal });
  const response = await watched(request, connection, "network", "No connection");
  if (response.ok) return response;
  const { status, headers } = response;
  throw new StreamError({
    title: `HTTP ${status}`,
    retryable: status === 429 || status >= 500,
    ...await problemOf(response, connection),
    status,
    retryAfter: retryAfter(headers.get("retry-after")),
  });
}

/** None where a proxy answers with something else. @param {Response} response @param {AbortController} connection */
async function problemOf(response, connection) {
  let body = "";
  try {
    for await (const text of textOf(response, connection)) {
      body += text;
      if (body.length > PROBLEM_LIMIT) return connection.abort();
    }
    return JSON.parse(body);
  } catch {}
}

/** Waits for bytes, but not for ever. The timer runs only while somebody waits: a consumer that doesn't read is no fault.
 * @template T @param {Promise<T>} bytes @param {AbortController} connection @param {string} [type] @param {string} [title] */
async function watched(bytes, connection, type, title) {
  const watchdog = setTimeout(() => connection.abort(fault("network", "The server is silent")), WATCHDOG_MS);
  try {
    return await bytes;
  } catch (cause) {
    throw (connection.signal.aborted && connection.signal.reason) || fault(type, title, cause);
  } finally {
    clearTimeout(watchdog);
  }
}

/** Seconds or a date (RFC 9110 §10.2.3), in ms from now. @param {any} value none, or nonsense: no wait */
function retryAfter(value) {
  return Math.max(/^\d+$/.test(value) ? value * 1000 : Date.parse(value) - Date.now(), 0) || undefined;
}
