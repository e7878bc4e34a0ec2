// @ts-check
// The client of a Headwater stream: starts it, delivers its text once and in order, resumes it, stops it.
//
//   const stream = openStream("/simple", { topic: "cat" });
//   for await (const text of stream) output.append(text);
//   const { finish } = await stream.result;
//
// A conversation: openStream("/chat", { messages }).
//
// Reading order: the two ways in; `follow`, one stream's states; helpers. fetch.js and eventsource.js read one connection each,
// error.js has what is thrown, stream.d.ts the types. The file is long because the states of one stream share what it has read.

import { fault, malformed, StreamError } from "./error.js";
import { ask, randomKey, readByFetch } from "./fetch.js";

export { StreamError };

/** A stream's id and, after a dot, the number of the event that was read last. Events count from 0. May end an address. */
const CURSOR = /(?:^|\/)([a-z0-9]{1,16}-[0-9A-Za-z]{22})(?:\.(\d+))?$/;
/** What follows the base in the address of a start. */
const START_PATH = /\/(simple|chat|prompts\/[^/]+)\/?$/;
/** With the flag `u` only halves of a surrogate pair that stand alone. */
const LONE_SURROGATES = /[\ud800-\udfff]/gu;

/** Statuses after which a start may be sent again with its key. A resume starts nothing: any 5xx will do. */
const REPEATABLE = [429, 502, 503, 504];
/** How often a start or a stop is sent before its error is reported. */
const ATTEMPTS = 4;
/** A server keeps an answer for this long: a broken stream is resumed until then, counted from its last event or heartbeat. */
const MEND_FOR_MS = 600_000;
/** Backoff before the server has said `retry`, whose value is kept between the floor and the ceiling. */
const RETRY_MS = 1_000;
const RETRY_FLOOR_MS = 100;
const BACKOFF_CEILING_MS = 30_000;
/** A longer `Retry-After` is an error to show, not a wait. */
const LONGEST_WAIT_MS = 120_000;
/** After this long in the background a connection isn't trusted: phones close it without an error. */
const HIDDEN_MS = 3_000;
/** A stop without an answer for this long may be waiting for one of the six connections of HTTP/1.1. */
const STOP_PATIENCE_MS = 500;
/** Time for a body to end after its terminal event, so that its connection can serve again. */
const BODY_END_MS = 1_000;

/** After these a connection may be dead without an error, or the page is seen for the first time. */
const PAGE_EVENTS = ["online", "pageshow", "visibilitychange", "resume", "prerenderingchange"];
/** The types of events. `stream` opens a response, `message` is the type of an event that names none. Not `error`: a browser's
 * EventSource uses that itself. */
const EVENTS = ["stream", "message", "reasoning", "done", "failed"];
const FINAL = /done|stopped|failed|left/;
const STOPPED = { finish: "stopped" };
/** The connection is given up for a new one, without a pause. */
const REPLACED = fault("network", "Replaced");

/** @typedef {import("./stream.d.ts").State} State */
/** @typedef {{ url: string, variables?: any, body?: string, key?: any, cursor?: any }} Start  With a cursor, it has been started already. */

/** @type {typeof import("./stream.d.ts").openStream} */
export function openStream(url, variables = /** @type {any} */ ({}), { key = randomKey(), ...options } = {}) {
  const [path, query] = String(url).split("#")[0].split(/\?(.*)/s);
  const all = { ...Object.fromEntries(new URLSearchParams(query)), ...variables };
  // A POST's variables are in its body alone, which is written now: a conversation may have grown when a start is repeated.
  return follow(options, { url: path, variables: all, body: toJson(all), key });
}

/** @type {typeof import("./stream.d.ts").resumeStream} */
export function resumeStream(url, { cursor = String(url), ...options } = {}) {
  if (!CURSOR.test(cursor)) throw new StreamError({ type: "not-found", title: "Not a stream" });
  return follow(options, { url: String(url).replace(/\.\d+$/, ""), cursor });
}

/**
 * One stream's states. Down: what happens; across: the state in which it happens. A dot: nothing changes.
 *
 *                      connecting        streaming                       reconnecting
 *   answer             streaming         .                               streaming
 *   text, reasoning    .                 delivered                       .
 *   `done`, `failed`   .                 done or stopped, failed         .
 *   connection ends    reconnecting; failed where a repetition can't help or was tried often enough;
 *                      done where a stream without ids has begun
 *   pause ends         .                 .                               the next request is sent
 *   page event         the connection is replaced: reconnecting, without a pause
 *   stop()             sent when the id is known; without an id, stopped as soon as no id can come
 *   leave              left              left                            left
 *
 * done, stopped, failed and left are final: nothing changes them.
 *
 * @param {import("./stream.d.ts").Options} options
 * @param {Start} start
 * @returns {import("./stream.d.ts").Stream}
 */
function follow({ signal, transport, onState, onReasoning, base }, start) {
  let state = /** @type {State} */ ("connecting");
  let { url } = start; // the start's address; the stream's, once the id is known
  let [, id, last] = /** @type {string[]} */ (CURSOR.exec(start.cursor) ?? []); // without an id nothing can be resumed
  let due = Number(last ?? -1) + 1; // number of the event to take next
  let delivered = due; // `due` behind the last text or reasoning that the consumer got
  let began = false; // an event was delivered: without an id, another start would double it
  let retry = RETRY_MS; // the server's `retry`
  let failures = 0; // since the last event or heartbeat
  let brokenSince = 0; // when the first of them happened; 0: none
  let native = transport === "eventsource"; // until EventSource can't tell what fetch can
  const posted = START_PATH.exec(start.url)?.[1] === "chat"; // no query holds a conversation
  let connection = new AbortController(); // of the connection or the pause; its reason is the error
  let paused = /** @type {any} */ ({}); // between two connections, and before the first: how the last one ended
  let hiddenAt = Date.now(); // the page was hidden last, if it was
  let iterated = false; // somebody takes the texts
  let reading = /** @type {Promise<void> | undefined} */ (undefined); // `result` was asked for before that
  let stopping = /** @type {Promise<void> | undefined} */ (undefined);

  const life = new AbortController(); // ends with the stream; takes the listeners along
  let resolve = /** @type {(value: any) => void} */ (() => {});
  let reject = resolve;
  const result = /** @type {Promise<any>} */ (new Promise((...both) => { [resolve, reject] = both; }));
  result.catch(() => {}); // nobody has to look
  let onIdKnown = () => {}; // or when it is known that none will come
  const texts = connections();
  const ahead = [texts.next()]; // asked for, not yet taken. The first is asked for at once

  const stream = {
    get id() { return id; },
    get url() { return id && url; },
    get cursor() { return id && before(delivered); },
    get state() { return state; },
    get result() {
      reading ??= readAhead();
      return result;
    },
    stop() {
      stopping ??= stop();
      stopping.catch(() => {}); // nobody has to look
      return stopping;
    },
    [Symbol.asyncIterator]: () => ({
      /** @returns {Promise<IteratorResult<string, void>>} */
      async next() {
        iterated = true;
        for (;;) {
          const { value } = await (ahead.shift() ?? texts.next());
          if (!value) {
            await result; // throws what ended it, however often it is asked
            return { done: true, value };
          }
          delivered = value.due;
          if (value.event !== "reasoning") return { value: value.text };
          tell(onReasoning, value.text);
        }
      },
      /** @returns {Promise<IteratorResult<string, void>>} */
      async return() {
        leave();
        return { done: true, value: undefined };
      },
    }),
  };
  return stream;

  /** Reads for `result` until somebody iterates, who then gets what was read. */
  async function readAhead() {
    for (let step = ahead[0]; !iterated && step && !(await step).done;) ahead.push(step = texts.next());
  }

  /** Every connection of the stream, one after the other, as one sequence of texts and reasonings.
   * @returns {AsyncGenerator<{ text: string, event?: string, due: number }, void>} */
  async function* connections() {
    await null; // `onState` isn't called before `openStream` has returned
    const options = { signal: life.signal, capture: true }; // the document's events don't all bubble
    for (const type of PAGE_EVENTS) globalThis.addEventListener?.(type, onPage, options);
    signal?.addEventListener("abort", () => leave(signal.reason), options);
    if (signal?.aborted) leave(signal.reason);
    // A prerendered page may never be seen, and servers refuse its start.
    for (; !isOver() && page().prerendering; connection = new AbortController()) await aborted(connection);

    while (!isOver()) {
      paused = undefined;
      const mine = connection = new AbortController();
      const byEventSource = native && (id || !posted);
      let broken;
      try {
        for await (const event of byEventSource ? overEventSource() : overFetch()) {
          const text = onEvent(event);
          if (text !== undefined) yield { event: event.event, text, due };
          if (isOver()) break;
        }
        onEnd();
      } catch (error) {
        broken = error;
      }
      const closing = /** @type {any} */ (setTimeout(() => mine.abort(), isOver() ? BODY_END_MS : 0));
      closing.unref?.(); // it doesn't keep Node running
      if (broken) await onBroken(broken, byEventSource);
    }
  }

  function overFetch() {
    const accept = "text/event-stream"; // or the server would send bare frames
    const listener = { onAnswer, onNothing, onId, onRetry, onComment: onHeartbeat };
    if (id) return readByFetch(url, { headers: { accept, "last-event-id": before(due) } }, connection, listener);
    return readByFetch(start.url, {
      method: "POST",
      headers: { accept, "content-type": "application/json", "idempotency-key": start.key },
      body: start.body,
    }, connection, listener);
  }

  async function* overEventSource() {
    const mine = connection; // the module loads meanwhile
    const { readByEventSource } = await import("./eventsource.js");
    const query = id ? `last_event_id=${before(due)}` : new URLSearchParams({ ...start.variables, idempotency_key: start.key });
    yield* readByEventSource(`${id ? url : start.url}?${query}`, EVENTS, mine, { onAnswer });
  }

  /** @param {string} at the address that answered; empty where a service worker or a test made the answer @param {string | null} [location] */
  function onAnswer(at, location) {
    if (!id && at) url = at.split("?")[0];
    onId(location);
    enter("streaming");
  }

  /** 204: the cursor is at the end already. */
  function onNothing() {
    if (id) settle("done", {});
  }

  /** Learns the stream's id from a cursor or an address; gives the event's number, else NaN. @param {any} from */
  function onId(from) {
    const [, of, number] = CURSOR.exec(from) ?? [];
    if (of && !id) {
      id = of;
      url = `${baseOf(url, base)}/streams/${id}`;
      onIdKnown();
    }
    if (of && id !== of) throw fault("gap", "An event is out of place");
    return Number(number);
  }

  /** @param {number} ms */
  function onRetry(ms) {
    retry = Math.max(ms, RETRY_FLOOR_MS);
  }

  function onHeartbeat() {
    if (id) failures = brokenSince = 0; // without an id nothing says that the generation lives
  }

  /** Gives an event's text or reasoning, or ends the stream. Drops what was delivered before; a gap breaks the connection.
   * @param {import("./fetch.js").ServerEvent} event @returns {string | void} */
  function onEvent({ event, id: at, data }) {
    if (isOver()) return;
    const number = onId(at);
    if (id) {
      if (event === "stream") return; // opens a response, and has no number of its own
      if (number < due) return;
      if (number > due) throw fault("gap", "An event is out of place");
      if (number !== due++) throw malformed("An event has no number"); // so it might be an old one
    }
    began = true;
    failures = brokenSince = 0;
    if (stopping && !id) return settle("stopped", STOPPED); // a stream without ids ends with its reader

    if (event && !EVENTS.includes(event) || event === "stream") return; // HTML §9.2.6: nobody listens to it
    const body = parse(data);
    if (event === "done") return settle(body.finish === "stopped" ? "stopped" : "done", body);
    if (event === "failed") return settle("failed", new StreamError(body));
    if (typeof body.chunk !== "string") throw malformed("An event has no text");
    return body.chunk;
  }

  /** A body ended, perhaps by a proxy that ends a broken one cleanly. */
  function onEnd() {
    if (isOver()) return;
    if (id) throw fault(); // one of ours ends with a terminal event
    if (stopping) settle("stopped", STOPPED);
    else if (began) settle("done", {}); // a stream without ids ends at its end
    else settle("failed", fault("malformed", "Not an event stream")); // the start was answered, so it isn't repeated
  }

  /** A connection broke, or was refused: waits until the next one is due, or gives up. @param {any} error @param {unknown} byEventSource */
  async function onBroken(error, byEventSource) {
    if (isOver()) return;
    if (stopping && !id) return settle("stopped", STOPPED); // the start came to nothing
    if (native && !byEventSource && id && error.type === "unsupported") return; // EventSource reads what fetch has started
    if (byEventSource && !/network|truncated|malformed/.test(error.type) && (id || !began)) {
      native = false; // refused, a gap, or no EventSource here: fetch learns the reason, or the events that EventSource hides
      return;
    }
    failures++;
    brokenSince ||= Date.now();
    const spent = id ? Date.now() - brokenSince > MEND_FOR_MS : began || failures >= ATTEMPTS;
    if (spent || !isMendable(error, id)) {
      settle("failed", error);
      if (error.type === "unsupported" && id) stream.stop(); // nobody can read it
      return;
    }
    const delay = error === REPLACED ? 0 : backoff(error, failures, retry);
    connection = new AbortController();
    paused = error;
    const pause = sleep(delay, connection); // before `onState`, which may end it
    enter("reconnecting", { delay, error });
    await pause;
  }

  /** The network is back, or the page: out of the back-forward cache, shown for the first time, or seen again after a while. A
   * connection from before may hang unnoticed, so a new one begins at once, unless the server asked to wait. Not where a start
   * would double what was read, or what is being stopped. @param {any} event */
  function onPage({ type, persisted }) {
    const { hidden } = page();
    const isBack = type === "visibilitychange" ? !hidden && Date.now() - hiddenAt > HIDDEN_MS : type !== "pageshow" || persisted;
    if (hidden) hiddenAt = Date.now();
    if (!isBack || paused?.retryAfter || (!id && (began || stopping))) return;
    if (id) failures = 0;
    connection.abort(REPLACED);
  }

  /** Asks the server to end the generation; its `done` then ends the stream. */
  async function stop() {
    if (!id && !isOver()) {
      if (began || paused) { // a stream without ids ends with its reader; a start that isn't under way is not sent
        settle("stopped", STOPPED);
        connection.abort();
      }
      if (!isOver()) await new Promise((resolve) => { onIdKnown = /** @type {() => void} */ (resolve); });
    }
    for (let attempt = 1; id && !/done|stopped/.test(state); attempt++) {
      const makeRoom = setTimeout(() => { if (!paused) connection.abort(REPLACED); }, STOP_PATIENCE_MS);
      const answer = await ask(url, { method: "DELETE", keepalive: true }, new AbortController()).catch((error) => error);
      clearTimeout(makeRoom);
      if (answer.ok || answer.status === 404) break; // 404: it is gone already
      if (attempt === ATTEMPTS || !isMendable(answer, true)) {
        stopping = undefined; // may be tried again
        throw answer;
      }
      await sleep(backoff(answer, attempt, retry));
    }
    if (paused) connection.abort(); // its end can be read at once
  }

  /** Leaving ends the connection, not the generation: another reader may follow it. @param {unknown} [reason] */
  function leave(reason) {
    ahead.length = 0; // nothing is delivered any more
    connection.abort(reason);
    life.abort(reason);
    settle("left", life.signal.reason);
  }

  /** The only end, whatever its kind. @param {State} end @param {any} outcome the result; for `failed` and `left`, the error */
  function settle(end, outcome) {
    if (isOver()) return;
    const failed = /failed|left/.test(end);
    (failed ? reject : resolve)(outcome);
    enter(end, failed ? { error: outcome } : {});
    life.abort();
    onIdKnown();
  }

  function isOver() {
    return FINAL.test(state);
  }

  /** @param {State} next @param {{ delay?: number, error?: unknown }} [detail] */
  function enter(next, detail) {
    if (isOver()) return;
    state = next;
    tell(onState, { state, ...detail });
  }

  /** The cursor to event `n` and those behind it. @param {number} n */
  function before(n) {
    return n ? `${id}.${n - 1}` : id;
  }
}

/** Async, so that what `listener` throws is reported as unhandled, and disturbs nothing here.
 * @template T @param {((what: T) => void) | undefined} listener @param {T} what */
async function tell(listener, what) {
  listener?.(what);
}

/** Where a proxy serves the edge under a prefix, `/streams/ID` has that prefix too. @param {string} url of a start @param {string} [base] */
function baseOf(url, base) {
  const known = base ?? url.replace(START_PATH, "");
  return known === url ? /^(\w+:\/\/[^/]+)?/.exec(url)?.[0] : known.replace(/\/$/, "");
}

/** Half of a surrogate pair becomes U+FFFD, as in a query, however deep it is: no server reads it as JSON. @param {unknown} variables */
function toJson(variables) {
  return JSON.stringify(variables, (_, value) => typeof value === "string" ? value.replace(LONE_SURROGATES, "\ufffd") : value);
}

/** Node and workers have no document. @returns {any} */
const page = () => globalThis.document ?? {};

/** @param {any} error @param {unknown} resuming */
function isMendable({ retryable, status, retryAfter }, resuming) {
  return retryable && !(retryAfter > LONGEST_WAIT_MS) && (!status || resuming || REPEATABLE.includes(status));
}

/** Exponential with full jitter, so that clients cut off together don't come back together; on top of `Retry-After`. In ms.
 * @param {StreamError & { retryAfter?: number }} error @param {number} failures @param {number} retry */
function backoff({ retryAfter = 0 }, failures, retry) {
  return retryAfter + Math.random() * Math.min(retry * 2 ** (failures - 1), BACKOFF_CEILING_MS);
}

/** Until then, or until it is aborted. @param {number} ms @param {AbortController} [pause] */
async function sleep(ms, pause = new AbortController()) {
  const timer = setTimeout(() => pause.abort(), ms);
  await aborted(pause);
  clearTimeout(timer);
}

/** @param {AbortController} pause */
const aborted = ({ signal }) => new Promise((resolve) => { signal.onabort = resolve; });

/** @param {string} data @returns {any} */
function parse(data) {
  try {
    return Object(JSON.parse(data));
  } catch (cause) {
    throw malformed("An event is not JSON", cause);
  }
}
