// @ts-check
// The client of a Headwater stream: starts it, delivers its text once and in order, mends it, stops it.
//
//   const stream = openStream("/simple", { topic: "cat" });
//   for await (const text of stream) output.append(text);
//   const { finish } = await stream.result;
//
// Reading order: the two ways in; `follow`, one stream's life; its two transports; helpers. Types: stream.d.ts.

import { createParser } from "./vendor/eventsource-parser/index.js";

/** A stream's id and, after a dot, the number of the event that was read last. Events count from 0. May end an address. */
const CURSOR = /(?<=^|\/)([a-z0-9]{1,16}-[0-9A-Za-z]{22})(?:\.(\d+))?$/;

/** `message` is the type of an event that names none; `stream` opens a connection, and tells the id. Not `error`: a browser's
 * EventSource uses that itself. */
const EVENTS = ["stream", "message", "done", "failed"];
/** Statuses after which a start may be sent again with its key. A resume starts nothing: any 5xx will do. */
const REPEATABLE = [429, 502, 503, 504];
/** Sendings of a start, or of a stop, until its error is shown: a person waits no longer than these few seconds. */
const ATTEMPTS = 4;
/** A broken stream is mended for as long as a server keeps an answer, counted from its last event or heartbeat. */
const MEND_FOR_MS = 600_000;
/** Heartbeats come every 10 s: this long without a byte, and the connection is dead. */
const WATCHDOG_MS = 30_000;
/** Backoff before the server has said `retry`; what it says is kept between the floor and the ceiling. */
const RETRY_MS = 1_000;
const RETRY_FLOOR_MS = 100;
const BACKOFF_CEILING_MS = 30_000;
/** A longer `Retry-After` is an error to show, not a wait. */
const LONGEST_WAIT_MS = 120_000;
/** Why an EventSource is given up where fetch can learn more. */
const ASK_BY_FETCH = {};
/** Time for a body to end after its terminal event. */
const BODY_END_MS = 1_000;
/** Characters of one event, so that no server fills the memory. */
const EVENT_LIMIT = 4 << 20;

/** @typedef {import("./stream.d.ts").State} State */
/** @typedef {{ url: string, variables?: any, key?: any, cursor?: any }} Start  With a cursor, it is started already. */
/** @typedef {{ event?: string, id?: string, data: string }} ServerEvent  An absent or empty id is none. */

/** A problem's members, each by an example of its type. @type {Record<string, unknown>} */
const MEMBERS = { type: "", title: "", detail: "", status: 0, retryable: false, retryAfter: 0 };

export class StreamError extends Error {
  name = "StreamError";
  type = "about:blank";
  title = "Failed";
  retryable = false;

  /** @param {any} problem RFC 9457, or one of this client's own. Not every server means the same: what has another type is left out.
   * @param {ErrorOptions} [options] */
  constructor(problem, options) {
    super("", options);
    const own = /** @type {any} */ (this);
    for (const member in MEMBERS) if (typeof problem[member] === typeof MEMBERS[member]) own[member] = problem[member];
    this.message = own.detail ?? this.title;
  }
}

// The key: 128 random bits. Not `randomUUID`, which pages on plain HTTP don't have.
/** @type {typeof import("./stream.d.ts").openStream} */
export function openStream(url, variables = {}, { key = crypto.getRandomValues(new Uint8Array(16)).join("-"), ...options } = {}) {
  const [path, query] = String(url).split("#")[0].split(/\?(.*)/s);
  // A POST's variables are in its body alone.
  return follow(options, { url: path, variables: { ...Object.fromEntries(new URLSearchParams(query)), ...variables }, key });
}

/** @type {typeof import("./stream.d.ts").resumeStream} */
export function resumeStream(url, { cursor = String(url), ...options } = {}) {
  if (!CURSOR.test(cursor)) throw new StreamError({ type: "not-found", title: "Not a stream" });
  return follow(options, { url: String(url), cursor });
}

/**
 * @param {import("./stream.d.ts").Options} options
 * @param {Start} start
 * @returns {import("./stream.d.ts").Stream}
 */
function follow({ signal, transport, onState }, start) {
  // All that changes in a stream's life.
  let { url } = start;
  let state = /** @type {State} */ ("connecting");
  let settled = false;
  // Known from the first answer on; without an id, nothing can be mended.
  let [, id, last] = /** @type {string[]} */ (CURSOR.exec(start.cursor) ?? []);
  let due = Number(last ?? -1) + 1; // number of the event to take next
  let delivered = due; // the same, when the consumer got its last text
  let began = false; // an event was delivered: without an id, to start again would double it
  let retry = RETRY_MS;
  let failures = 0; // since the last event or heartbeat
  let brokenSince = 0;
  let native = transport === "eventsource";
  let paused = /** @type {any} */ (undefined); // between two connections: how the last one ended
  let wire = new AbortController(); // ends the connection, or the pause
  let stopping = /** @type {Promise<void> | undefined} */ (undefined);

  const life = new AbortController(); // ends with the stream; its signal takes the listeners along
  const result = Promise.withResolvers();
  result.promise.catch(() => {}); // nobody has to look
  const known = Promise.withResolvers(); // when the id is known, or never will be
  const texts = connections();
  /** @type {Promise<IteratorResult<string, void>> | undefined} */
  let first = texts.next(); // asks at once; what follows is read as the consumer reads

  return {
    get id() { return id; },
    get url() { return id && url; },
    get cursor() { return id && before(delivered); },
    get state() { return state; },
    result: result.promise,
    stop: () => stopping ??= stop(),
    [Symbol.asyncIterator]: () => ({
      async next() {
        const next = first ?? texts.next();
        first = undefined;
        const step = await next;
        if (step.done) await result.promise; // throws what ended it, however often it is asked
        else delivered = due;
        return step;
      },
      return() {
        leave();
        return texts.return();
      },
    }),
  };

  /** Every connection of the stream, one after the other, as one sequence of texts. */
  async function* connections() {
    await null; // `onState` isn't called before `openStream` has returned
    signal?.addEventListener("abort", () => leave(signal.reason), life);
    globalThis.addEventListener?.("online", reconnect, life);
    if (signal?.aborted) leave(signal.reason);

    over(); // stopped at once, it isn't even started
    while (!settled) {
      wire = new AbortController();
      try {
        for await (const event of (native && !stopping ? overEventSource : overFetch)(wire)) {
          const text = take(event);
          if (text !== undefined) yield text;
          if (settled) break;
        }
        if (over()) return;
        if (id) throw fault(); // one of ours ends with a terminal event
        if (began) settle("done", {}); // a stream without ids ends at its end
        else settle("failed", fault("malformed", "Not an event stream")); // the start was answered, so it isn't repeated
      } catch (error) {
        await mend(error);
      }
    }
  }

  /** Delivers an event: gives its text, or ends the stream. Drops what was delivered before; a gap breaks the connection.
   * @param {ServerEvent} event @returns {string | void} */
  function take({ event, id: at, data }) {
    const number = learn(at);
    if (id && event === "stream") return; // it has no number of its own
    if (id) {
      if (number < due) return;
      if (number > due) throw native ? ASK_BY_FETCH : fault("gap", "An event is missing"); // it may be of a type that EventSource hides
      if (number !== due++) throw malformed("An event has no number"); // so it might be an old one
    }
    began = true;
    failures = brokenSince = 0;
    if (over()) return;

    if (event === "stream" || event && !EVENTS.includes(event)) return; // HTML §9.2.6: nobody listens to it
    const body = parse(data);
    if (event === "done") return settle(body.finish === "stopped" ? "stopped" : "done", body);
    if (event === "failed") return settle("failed", new StreamError(body));
    if (typeof body.chunk !== "string") throw malformed("An event has no text");
    return body.chunk;
  }

  /** Learns the stream's id from a cursor or an address; gives the event's number, else NaN. @param {any} from */
  function learn(from) {
    const [, of, number] = CURSOR.exec(from) ?? [];
    if (of && !id) {
      id = of;
      url = new URL(`/streams/${id}`, url).href;
      known.resolve(id);
    }
    if (of && id !== of) throw fault("gap", "An event is another stream's");
    return Number(number);
  }

  /** The cursor to event `n` and those behind it. @param {number} n */
  function before(n) {
    return n ? `${id}.${n - 1}` : id;
  }

  /** After a connection broke: waits until the next one is due, or gives up. @param {any} error */
  async function mend(error) {
    if (error === ASK_BY_FETCH && (id || !began)) {
      native = false;
      return;
    }
    if (over()) return;
    failures++;
    brokenSince ||= Date.now();
    const spent = id ? Date.now() - brokenSince > MEND_FOR_MS : began || failures >= ATTEMPTS;
    if (spent || !mendable(error, id)) return settle("failed", error);

    const delay = error === NETWORK_CHANGED ? 0 : backoff(error, failures, retry);
    wire = new AbortController();
    paused = error;
    const pause = sleep(delay, wire); // before `onState`, which may end it
    move("reconnecting", { delay, error });
    await pause;
    paused = undefined;
    if (!native) over(); // EventSource may have hidden the id of what it started: first fetch learns it
  }

  /** The network is back: a connection from before may hang unnoticed, so begin a new one at once, unless asked to wait.
   * Not where a start would double what was read, or what is being stopped. */
  function reconnect() {
    if (paused?.retryAfter || (!id && (began || stopping))) return;
    if (id) failures = 0;
    wire.abort(NETWORK_CHANGED);
  }

  /** Stop asks the server to end the generation; its `done` then ends the stream. */
  async function stop() {
    if (!id) {
      if (native || began || paused) wire.abort(ASK_BY_FETCH); // or, where no id will come, it is over
      await known.promise;
    }
    for (let failures = 1; id && state !== "done" && state !== "stopped"; failures++) {
      const answer = await ask(url, { method: "DELETE", keepalive: true }, new AbortController()).catch((error) => error);
      if (answer.ok || answer.status === 404) break; // 404: it is gone already
      if (failures === ATTEMPTS || !mendable(answer, true)) {
        stopping = undefined; // may be tried again
        throw answer;
      }
      await sleep(backoff(answer, failures, retry));
    }
    if (paused) wire.abort(); // its end can be read at once
  }

  /** Stopped without an id, it is over by leaving: the request came to nothing, or its stream has no ids and ends with its reader. */
  function over() {
    if (stopping && !id) settle("stopped", { finish: "stopped" });
    return settled;
  }

  /** Leaving ends the connection, not the generation: another reader may follow it. @param {unknown} [reason] */
  function leave(reason) {
    first = undefined; // nothing is delivered any more
    wire.abort(reason);
    life.abort(reason);
    settle("left", life.signal.reason);
  }

  /** The only end, whatever its kind. @param {State} end @param {any} outcome the result; for `failed` and `left`, the error */
  function settle(end, outcome) {
    if (settled) return;
    settled = true;
    life.abort();
    known.resolve(id);
    if (end === "failed" || end === "left") {
      result.reject(outcome);
      move(end, { error: outcome });
    } else {
      result.resolve(outcome);
      move(end);
    }
  }

  /** Async, so that what `onState` throws is reported as unhandled, and disturbs nothing here.
   * @param {State} now @param {{ delay?: number, error?: unknown }} [detail] */
  async function move(now, detail) {
    state = now;
    onState?.({ state, ...detail });
  }

  /** Backpressure comes by itself: nothing is read from the network until the consumer has taken what was read before.
   * @param {AbortController} connection @returns {AsyncGenerator<ServerEvent, void>} */
  async function* overFetch(connection) {
    const accept = "text/event-stream"; // or the server would send bare frames
    const response = id
      ? await ask(url, { headers: { accept, "last-event-id": before(due) } }, connection)
      : await ask(start.url, {
        method: "POST",
        headers: { accept, "content-type": "application/json", "idempotency-key": start.key },
        body: JSON.stringify(start.variables),
      }, connection);
    try {
      if (id && response.status === 204) return settle("done", {}); // the cursor is at the end already
      // HTML §9.2.3: anything else is no stream, as if it ended here. It comes from something in between, and may go away.
      if (!response.headers.get("content-type")?.match(/^text\/event-stream/i)) return;
      opened(response.url, response.headers.get("content-location"));

      /** @type {ServerEvent[]} */
      const events = [];
      const parser = createParser({
        maxBufferSize: EVENT_LIMIT,
        onId: learn, // before the first text; a server may tell it without data
        onEvent: (/** @type {ServerEvent} */ event) => events.push(event),
        onComment() { if (id) failures = brokenSince = 0; }, // a heartbeat: the generation lives
        onRetry: (/** @type {number} */ ms) => { retry = Math.max(ms, RETRY_FLOOR_MS); },
        onError(/** @type {any} */ error) {
          if (error.type === "max-buffer-size-exceeded") throw malformed("An event is too long");
        },
      });
      const decoder = new TextDecoder();
      for (const reader = /** @type {ReadableStream} */ (response.body).getReader(); ;) {
        const { done, value } = await watched(reader.read(), connection);
        if (done) return;
        parser.feed(decoder.decode(value, { stream: true }));
        yield* events.splice(0);
      }
    } finally {
      // Behind a terminal event the body's end is on its way: let it come, and the connection can serve again.
      setTimeout(() => connection.abort(), settled ? BODY_END_MS : 0);
    }
  }

  /** The browser's own EventSource: it can't be slowed down, hides heartbeats, and doesn't say why it was refused.
   * So it makes single connections, mended like those of fetch, and where it can't tell, fetch asks in its place.
   * @param {AbortController} connection @returns {AsyncGenerator<ServerEvent, void>} */
  async function* overEventSource(connection) {
    const source = new EventSource(id
      ? `${url}?last_event_id=${before(due)}`
      : `${start.url}?${new URLSearchParams({ ...start.variables, idempotency_key: start.key })}`);
    /** @type {ServerEvent[]} */
    const events = [];
    let woken = /** @type {PromiseWithResolvers<void>} */ (Promise.withResolvers());
    for (const type of EVENTS) {
      source.addEventListener(type, ({ lastEventId, data }) => {
        events.push({ event: type, id: lastEventId, data });
        woken.resolve();
      });
    }
    source.onopen = () => opened(source.url);
    source.onerror = () => {
      connection.abort(source.readyState === source.CLOSED ? ASK_BY_FETCH : fault());
    };
    connection.signal.onabort = () => {
      source.close();
      woken.resolve();
    };
    try {
      while (events.length || !connection.signal.aborted) {
        await woken.promise;
        woken = Promise.withResolvers();
        yield* events.splice(0);
      }
    } finally {
      source.close();
    }
    throw connection.signal.reason;
  }

  /** @param {string} at the address that answered @param {string | null} [location] of the stream, as far as it says */
  function opened(at, location) {
    if (!id) url = at;
    learn(location);
    move("streaming");
  }
}

/** One request; any answer but a 2xx is thrown. @param {string} url @param {RequestInit} init @param {AbortController} wire */
async function ask(url, init, wire) {
  const request = fetch(url, { cache: "no-store", ...init, signal: wire.signal });
  const response = await watched(request, wire, "network", "No connection");
  if (response.ok) return response;
  const { status, headers } = response;
  throw new StreamError({
    title: `HTTP ${status}`,
    retryable: status === 429 || status >= 500,
    ...await watched(response.json(), wire).catch(() => {}), // not every proxy speaks problem+json
    status,
    retryAfter: retryAfter(headers.get("retry-after")),
  });
}

/** Waits for bytes, but not for ever. Runs only while somebody waits: a consumer that doesn't read is no fault.
 * @template T @param {Promise<T>} bytes @param {AbortController} wire @param {string} [type] @param {string} [title] */
async function watched(bytes, wire, type, title) {
  const watchdog = setTimeout(() => wire.abort(fault("network", "The server is silent")), WATCHDOG_MS);
  try {
    return await bytes;
  } catch (cause) {
    throw wire.signal.aborted ? wire.signal.reason : fault(type, title, cause);
  } finally {
    clearTimeout(watchdog);
  }
}

/** @param {any} error @param {unknown} resuming */
function mendable({ retryable, status, retryAfter }, resuming) {
  return retryable && !(retryAfter > LONGEST_WAIT_MS) && (!status || resuming || REPEATABLE.includes(status));
}

/** Exponential with full jitter, so that clients cut off together don't come back together; on top of `Retry-After`. In ms.
 * @param {StreamError & { retryAfter?: number }} error @param {number} failures @param {number} retry */
function backoff({ retryAfter = 0 }, failures, retry) {
  return retryAfter + Math.random() * Math.min(retry * 2 ** (failures - 1), BACKOFF_CEILING_MS);
}

/** Seconds or a date (RFC 9110 §10.2.3), in ms from now. @param {any} value none, or nonsense: no wait */
function retryAfter(value) {
  return Math.max(/^\d+$/.test(value) ? value * 1000 : Date.parse(value) - Date.now(), 0) || undefined;
}

/** Until then, or until it is aborted. @param {number} ms @param {AbortController} [wire] */
async function sleep(ms, wire = new AbortController()) {
  const timer = setTimeout(() => wire.abort(), ms);
  await new Promise((resolve) => { wire.signal.onabort = resolve; });
  clearTimeout(timer);
}

/** @param {string} data @returns {any} */
function parse(data) {
  try {
    return Object(JSON.parse(data));
  } catch (cause) {
    throw malformed("An event is not JSON", cause);
  }
}

/** What asking again may mend; if nothing is said, a truncated stream. @param {string} [type] @param {string} [title] @param {unknown} [cause] */
const fault = (type = "truncated", title = "The answer broke off", cause) => new StreamError({ type, title, retryable: true }, { cause });

/** @param {string} title @param {unknown} [cause] */
const malformed = (title, cause) => new StreamError({ type: "malformed", title }, { cause });

/** Mended at once. */
const NETWORK_CHANGED = fault("network", "The network changed");
