// Real servers on loopback, scripted request by request, and mocked time.

import { readFileSync, readdirSync } from "node:fs";
import { createServer } from "node:http";

export const ID = "a-0123456789ABCDEFabcdef";
/** What opens a response: the id, or on a resumed one the cursor, and the number of the event that follows. */
export const opened = (cursor = ID, next = 0) => `retry: 1000\nevent: stream\nid: ${cursor}\ndata: ${JSON.stringify({ id: ID, next })}\n\n`;
export const PREAMBLE = opened();
/** An opening that EventSource hides, because it has no data: its id comes with the first text. */
export const ID_ONLY = `retry: 1000\nid: ${ID}\n\n`;
export const HEARTBEAT = ": keep-alive\n";

/** @param {string[]} texts @param {number} [from] number of the first event */
export const chunks = (texts, from = 0) =>
  texts.map((chunk, i) => `id: ${ID}.${from + i}\ndata: ${JSON.stringify({ chunk })}\n\n`).join("");

/** @param {number} n @param {object} [result] */
export const done = (n, result = { finish: "stop" }) => event("done", n, result);

/** @param {string} name @param {number} n @param {object} data */
export const event = (name, n, data) => `event: ${name}\nid: ${ID}.${n}\ndata: ${JSON.stringify(data)}\n\n`;

/** @param {string} [name] a stream's wire fixtures; all of them without a name */
export function fixtures(name) {
  const folder = new URL("../fixtures/", import.meta.url);
  const names = name ? [name] : readdirSync(folder).filter((file) => file.endsWith(".sse")).map((file) => file.slice(0, -4));
  return names.map((name) => ({
    name,
    bytes: readFileSync(new URL(`${name}.sse`, folder)),
    ...JSON.parse(readFileSync(new URL(`${name}.json`, folder), "utf8")),
  }));
}

/** A fixture's events but for the opening one, each at the place that its number says. */
export const numbered = (events) => events.filter(({ event }) => event !== "stream");

/**
 * A server on port 0 that gives its first answer to the first request, and so on; it must not be asked more often.
 * Gone when the test ends.
 * @param {import("node:test").TestContext} t
 * @param {((res: import("node:http").ServerResponse, req: any) => void)[]} answers
 */
export async function serve(t, ...answers) {
  const requests = /** @type {{ method: string, url: string, headers: any, body: string, gone: boolean }[]} */ ([]);
  const server = createServer(async (req, res) => {
    const request = { method: req.method, url: req.url, headers: req.headers, body: "", gone: false };
    requests.push(request);
    const answer = answers[requests.length - 1];
    res.on("close", () => { request.gone = true; });
    res.on("error", () => {});
    for await (const part of req) request.body += part;
    res.socket?.setNoDelay();
    (answer ?? refuse(410))(res, request);
  });
  await new Promise((resolve) => { server.listen(0, "127.0.0.1", () => resolve(undefined)); });
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { base: `http://127.0.0.1:${server.address().port}`, requests };
}

/** An event stream: what is given, then the end. */
export const whole = (...parts) => (res) => { opening(...parts)(res); res.end(); };

/** What is given, then silence. */
export const opening = (...parts) => (res) => {
  res.writeHead(200, { "content-type": "text/event-stream" });
  res.flushHeaders();
  for (const part of parts) res.write(part);
};

/** What is given, then the connection breaks. */
export const broken = (...parts) => (res) => {
  opening(...parts)(res);
  // The bytes must be out before the reset.
  setImmediate(() => res.socket ? res.socket.end(() => res.destroy()) : res.destroy());
};

/** No answer at all: the connection is closed. */
export const hangUp = (res) => res.destroy();

/** A problem, as the edge answers it. */
export const refuse = (status, problem = {}, headers = {}) => (res) => {
  res.writeHead(status, { "content-type": "application/problem+json", ...headers });
  res.end(JSON.stringify({ type: "/problems/test", title: "Test", status, ...problem }));
};

/** What a portal or a proxy says in a stream's place. */
export const page = (res) => res.writeHead(200, { "content-type": "text/html" }).end("<h1>Log in</h1>");

export const noContent = (res) => res.writeHead(204).end();

/** Reads a stream to its end, whichever that is. */
export async function read(stream) {
  const texts = [];
  try {
    for await (const text of stream) texts.push(text);
    return { texts, result: await stream.result };
  } catch (error) {
    return { texts, error };
  }
}

/** Backoff without the waiting: full jitter begins at 0. */
export const impatient = (t) => t.mock.method(Math, "random", () => 0);

/** From here on time stands still, but for `t.mock.timers.tick`. Jitter takes its largest value. */
export function mockTime(t, random = 1) {
  t.mock.method(Math, "random", () => random);
  t.mock.timers.enable({ apis: ["setTimeout", "Date"], now: Date.UTC(2026, 0, 1) });
}

const now = performance.now.bind(performance);

/** Lets the sockets work until it is so. Not by a timer: those may be mocked. */
export async function until(condition, what = condition.toString()) {
  for (const start = now(); !condition();) {
    if (now() - start > 5_000) throw new Error(`never: ${what}`);
    await new Promise((resolve) => { setImmediate(resolve); });
  }
}

/** Gives sockets the time to do what they should not do. */
export async function calm() {
  for (const start = now(); now() - start < 50;) await new Promise((resolve) => { setImmediate(resolve); });
}

/** Opens a stream whose delays are noted down, and skipped when `skip` is called. */
export function observe(t, open) {
  const delays = [];
  const stream = open({ onState: ({ state, delay }) => { if (state === "reconnecting") delays.push(delay); } });
  const outcome = read(stream);
  const skip = async (count) => {
    await until(() => delays.length === count, `${count} pauses, not ${delays.length}`);
    t.mock.timers.tick(delays[count - 1]);
  };
  return { stream, outcome, delays, skip };
}

/** Node has no window and no document: the browser's events, for one test. */
export function browser(t, document = { hidden: false, prerendering: false }) {
  const window = new EventTarget();
  Object.assign(globalThis, { addEventListener: window.addEventListener.bind(window), document });
  t.after(() => { for (const name of ["addEventListener", "document"]) Reflect.deleteProperty(globalThis, name); });
  return window;
}
