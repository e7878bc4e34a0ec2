// Streams as a client reads them that is not ours.

import http from "node:http";
import { connect } from "node:net";
import { createParser } from "eventsource-parser";
import { until } from "./servers.js";

const FRAMED = { accept: "text/event-stream" };

/** The topic that makes the scripted model say this: texts, pauses in ms, `{ tokens, every_ms }`, `{ fail }`, … */
export const script = (...steps) => JSON.stringify(steps);

/** What it says at `{ tokens: count }`. */
export const numbers = (count) => Array.from({ length: count }, (_, n) => `${n} `).join("");

/** A start's address. @param {{ url: string }} server */
export const simple = ({ url }, topic, parameters = {}) => `${url}/simple?${new URLSearchParams({ topic, ...parameters })}`;

/** A start as POST. */
export const post = (variables, headers = {}) => ({
  method: "POST", headers: { ...FRAMED, "content-type": "application/json", ...headers }, body: JSON.stringify(variables),
});

/** A POST of the scripted model's topic, framed. */
export const posted = (...steps) => post({ topic: script(...steps) });

/**
 * One connection. Framed unless `headers` say otherwise.
 * @param {string} url @param {RequestInit} [init]
 * @param {number} [bytes] after which the client cuts it, wherever that is in a frame
 */
export async function open(url, init = {}, bytes = Infinity) {
  const wire = new AbortController();
  const response = await fetch(url, { headers: FRAMED, ...init, signal: wire.signal });
  const events = /** @type {{ id?: string, event?: string, data: any, at: number }[]} */ ([]);
  const openings = [];
  const comments = [];
  const ids = [];
  let retry;
  let at = 0; // when the newest part came, which may hold many events
  const parser = createParser({
    onEvent: ({ id, event, data }) => (event === "stream" ? openings : events).push({ id, event, data: JSON.parse(data), at }),
    onId: (id) => ids.push(id),
    onRetry: (ms) => { retry = ms; },
    onComment: (text) => comments.push(text),
  });
  const decoder = new TextDecoder();
  let raw = "";
  let over = /** @type {"" | "ended" | "broken"} */ ("");
  const end = read();

  async function read() {
    try {
      for await (const part of response.body ?? []) {
        at = performance.now();
        const text = decoder.decode(part.subarray(0, bytes), { stream: true });
        raw += text;
        parser.feed(text);
        bytes -= part.length;
        if (bytes <= 0) wire.abort();
      }
      over = "ended";
    } catch {
      over = "broken";
    }
    return over;
  }

  return {
    response,
    status: response.status,
    /** The events behind the opening one. */
    events,
    /** The opening events, of which there is one at most. */
    openings,
    comments,
    /** Every id on the wire, that of the opening event too. */
    ids,
    get retry() { return retry; },
    get raw() { return raw; },
    /** What the response says of its place. */
    get place() { return response.headers.get("content-location"); },
    /** The texts so far. */
    get chunks() { return chunksOf(events); },
    /** The texts so far, as one. */
    get text() { return chunksOf(events).join(""); },
    /** The terminal event, where there is one. */
    get terminal() { return events.find(({ event }) => event === "done" || event === "failed"); },
    /** The cursor after the last event. */
    get cursor() { return events.at(-1)?.id ?? ids[0]; },
    /** How the connection came to its end: `ended`, or `broken`. */
    end,
    /** Waits for the first n events. */
    reach: (n) => until(() => events.length >= n || over, `${n} events`),
    /** Closes the connection. */
    async leave() {
      wire.abort();
      await end;
    },
  };
}

/** Goes on with a stream. @param {{ url: string }} server @param {string} cursor `ID` or `ID.n` */
export const resume = ({ url }, cursor, bytes) =>
  open(`${url}/streams/${cursor.split(".")[0]}`, { headers: { ...FRAMED, "last-event-id": cursor } }, bytes);

/** A connection read to its end. */
export async function whole(url, init) {
  const stream = await open(url, init);
  await stream.end;
  return stream;
}

/** A problem, as it is answered. */
export async function problem(url, init) {
  const response = await fetch(url, init);
  const text = await response.text();
  return { status: response.status, headers: response.headers, text, document: json(text) };
}

/** The events' texts. */
export const chunksOf = (events) => events.filter(({ event }) => !event).map(({ data }) => data.chunk);

function json(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * A request that fetch would not send. Gives the answer as soon as it is there; `write` sends the body.
 * @param {string} url
 * @param {{ method?: string, headers?: object, write?: (request: http.ClientRequest) => void }} [options]
 */
export function ask(url, { method = "GET", headers = {}, write = (request) => request.end() } = {}) {
  return new Promise((resolve, reject) => {
    const request = http.request(url, { method, headers, agent: false }, async (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (part) => { text += part; });
      response.once("close", () => {
        request.destroy();
        resolve({ status: response.statusCode, headers: response.headers, text, document: json(text) });
      });
    });
    request.once("error", reject);
    write(request);
  });
}

/** The answer's head to a request as it is written here. */
export const raw = (port, request) => new Promise((resolve, reject) => {
  const socket = connect(port, "127.0.0.1", () => socket.write(request.includes("\r\n\r\n") ? request : `${request}\r\n\r\n`));
  let answer = "";
  socket.setEncoding("latin1").on("data", (text) => {
    answer += text;
    if (!answer.includes("\r\n\r\n")) return;
    if (/^HTTP\/1.1 100 /.test(answer)) answer = answer.slice(answer.indexOf("\r\n\r\n") + 4);
    if (!answer.includes("\r\n\r\n")) return;
    socket.destroy();
    resolve(answer);
  });
  socket.once("error", reject).once("end", () => resolve(answer));
});
