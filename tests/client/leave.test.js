// Leaving, stopping and staying away: what ends a stream at the client. One scenario per test, so the file is long.

import assert from "node:assert/strict";
import { test } from "node:test";

import { openStream, resumeStream } from "../../public/stream.js";
import { broken, calm, chunks, done, event, hangUp, ID, impatient, mockTime, noContent, opening, PREAMBLE, read, refuse, serve, until, whole } from "./helpers.js";

const STOPPED = { finish: "stopped" };

/** Two connections at once: the stream's, and that of its DELETE, which ends it. */
function stoppable(...begin) {
  let reader;
  return [
    (res) => { reader = res; opening(...begin)(res); },
    (res, { method }) => {
      assert.equal(method, "DELETE");
      noContent(res);
      reader.end(done(1, STOPPED));
    },
  ];
}

test("stop asks the server to stop, and the stream ends with what it says", async (t) => {
  const { base, requests } = await serve(t, ...stoppable(PREAMBLE, chunks(["a"])));
  const stream = openStream(`${base}/simple`);
  const outcome = read(stream);
  await until(() => stream.cursor === `${ID}.0`);
  await stream.stop();
  assert.deepEqual(await outcome, { texts: ["a"], result: STOPPED });
  assert.equal(stream.state, "stopped");
  assert.equal(requests[1].url, `/streams/${ID}`);
});

test("stop, before the id is known, is done as soon as it is", async (t) => {
  let reader;
  const { base, requests } = await serve(t, (res) => { reader = res; }, (res) => { noContent(res); reader.end(done(0, STOPPED)); });
  const stream = openStream(`${base}/simple`);
  const outcome = read(stream);
  await until(() => reader);
  const stopped = stream.stop();
  assert.equal(stream.stop(), stopped, "asked twice, it stops once");
  await calm();
  assert.equal(requests.length, 1);
  opening(PREAMBLE)(reader);
  await stopped;
  assert.deepEqual(await outcome, { texts: [], result: STOPPED });
  assert.equal(requests[1].method, "DELETE");
});

test("stopped while a start fails, it is not started again", async (t) => {
  impatient(t);
  let reader;
  const { base, requests } = await serve(t, (res) => { reader = res; });
  const stream = openStream(`${base}/simple`);
  await until(() => reader);
  const stopped = stream.stop();
  hangUp(reader);
  assert.deepEqual(await read(stream), { texts: [], result: STOPPED });
  await stopped;
  await calm();
  assert.equal(requests.length, 1);
});

test("stopped at once, it is not even started", async (t) => {
  impatient(t);
  const { base, requests } = await serve(t);
  const stream = openStream(`${base}/simple`);
  await stream.stop();
  assert.deepEqual(await read(stream), { texts: [], result: STOPPED });
  await calm();
  assert.equal(requests.length, 0);
});

test("stopped in the pause before a start is repeated, it is not repeated", async (t) => {
  mockTime(t);
  const { base, requests } = await serve(t, refuse(503, { retryable: true }, { "retry-after": "60" }));
  const stream = openStream(`${base}/simple`);
  const outcome = read(stream);
  await until(() => stream.state === "reconnecting");
  await stream.stop();
  assert.deepEqual(await outcome, { texts: [], result: STOPPED });
  assert.equal(requests.length, 1);
});

test("stopped in the pause before a resume, it doesn't wait for the pause's end", async (t) => {
  mockTime(t);
  const { base, requests } = await serve(t, broken(PREAMBLE, chunks(["a"])), noContent, whole(done(1, STOPPED)));
  const stream = openStream(`${base}/simple`);
  const outcome = read(stream);
  await until(() => stream.state === "reconnecting");
  await stream.stop();
  assert.deepEqual(await outcome, { texts: ["a"], result: STOPPED });
  assert.deepEqual(requests.map(({ method }) => method), ["POST", "DELETE", "GET"]);
});

test("a stream without ids is stopped by leaving", async (t) => {
  impatient(t);
  const { base, requests } = await serve(t, opening('data: {"chunk":"a"}\n\n'));
  const stream = openStream(`${base}/simple`);
  const texts = [];
  for await (const text of stream) {
    texts.push(text);
    void stream.stop();
  }
  assert.deepEqual(texts, ["a"]);
  assert.deepEqual(await stream.result, STOPPED);
  await until(() => requests[0].gone);
  await calm();
  assert.equal(requests.length, 1);
});

test("a stop that the network swallows is sent again", async (t) => {
  impatient(t);
  const [begin, stop] = stoppable(PREAMBLE, chunks(["a"]));
  const { base, requests } = await serve(t, begin, hangUp, refuse(503), stop);
  const stream = openStream(`${base}/simple`);
  const outcome = read(stream);
  await until(() => stream.id);
  await stream.stop();
  assert.equal((await outcome).result.finish, "stopped");
  assert.deepEqual(requests.map(({ method }) => method), ["POST", "DELETE", "DELETE", "DELETE"]);
});

test("a stop that can't be told rejects, and may be tried again", async (t) => {
  impatient(t);
  const [begin, stop] = stoppable(PREAMBLE, chunks(["a"]));
  const { base } = await serve(t, begin, refuse(403, { type: "/problems/cross-site" }), stop);
  const stream = openStream(`${base}/simple`);
  const outcome = read(stream);
  await until(() => stream.id);
  await assert.rejects(stream.stop(), { type: "/problems/cross-site" });
  assert.equal(stream.state, "streaming");
  await stream.stop();
  assert.equal((await outcome).result.finish, "stopped");
});

test("a stop that failed is not sent again once the stream has ended", async (t) => {
  mockTime(t);
  let reader;
  const { base, requests } = await serve(t, (res) => { reader = res; opening(PREAMBLE)(res); }, refuse(503));
  const stream = openStream(`${base}/simple`);
  const outcome = read(stream);
  await until(() => stream.id);
  const stopped = stream.stop();
  await until(() => requests.length === 2);
  await calm();
  reader.end(done(0));
  assert.deepEqual((await outcome).result, { finish: "stop" });
  t.mock.timers.tick(1_000);
  await stopped;
  await calm();
  assert.equal(requests.length, 2);
});

test("to stop what is gone or done is no error", async (t) => {
  impatient(t);
  const { base, requests } = await serve(t, opening(PREAMBLE), refuse(404), whole(PREAMBLE, done(0)));
  const stream = resumeStream(`${base}/streams/${ID}`);
  await until(() => stream.state === "streaming");
  await stream.stop();
  stream[Symbol.asyncIterator]().return();
  const ended = resumeStream(`${base}/streams/${ID}`);
  await read(ended);
  await ended.stop();
  await calm();
  assert.equal(requests.length, 3);
});

test("aborting the signal leaves: the connection closes, nothing is deleted, and the reason is thrown", async (t) => {
  impatient(t);
  const { base, requests } = await serve(t, opening(PREAMBLE, chunks(["a", "b"])));
  const leaving = new AbortController();
  const stream = openStream(`${base}/simple`, {}, { signal: leaving.signal });
  const reason = new Error("enough");
  const texts = [];
  await assert.rejects(async () => {
    for await (const text of stream) {
      texts.push(text);
      leaving.abort(reason);
    }
  }, reason);
  assert.deepEqual(texts, ["a"], "nothing is delivered after it");
  await assert.rejects(stream.result, reason);
  assert.equal(stream.state, "left");
  await until(() => requests[0].gone);
  await calm();
  assert.equal(requests.length, 1);
});

test("after leaving, a text that was read ahead isn't delivered either", async (t) => {
  impatient(t);
  const { base, requests } = await serve(t, opening(PREAMBLE, chunks(["a", "b"])));
  const leaving = new AbortController();
  const stream = openStream(`${base}/simple`, {}, { signal: leaving.signal });
  await until(() => stream.id);
  await calm();
  leaving.abort();
  const { texts, error } = await read(stream);
  assert.deepEqual(texts, []);
  assert.equal(error.name, "AbortError");
  assert.equal(stream.cursor, ID);
  await until(() => requests[0].gone);
});

test("aborting the signal ends a wait for the server, and one for the next attempt", async (t) => {
  mockTime(t);
  const { base, requests } = await serve(t, () => {}, refuse(503, { retryable: true }));
  for (const state of ["connecting", "reconnecting"]) {
    const leaving = new AbortController();
    const stream = openStream(`${base}/simple`, {}, { signal: leaving.signal });
    const outcome = read(stream);
    const asked = requests.length;
    await until(() => requests.length > asked && stream.state === state);
    leaving.abort();
    assert.equal((await outcome).error.name, "AbortError");
  }
  assert.equal(requests.length, 2);
});

test("aborting the signal in `onState` ends the pause that it tells of, at once", async (t) => {
  mockTime(t);
  const { base, requests } = await serve(t, broken(PREAMBLE, chunks(["a"])));
  const leaving = new AbortController();
  const onState = ({ state }) => { if (state === "reconnecting") leaving.abort(); };
  const { texts, error } = await read(openStream(`${base}/simple`, {}, { signal: leaving.signal, onState }));
  assert.deepEqual(texts, ["a"]);
  assert.equal(error.name, "AbortError");
  await calm();
  assert.equal(requests.length, 1);
});

test("stopped in `onState`, it doesn't wait for the pause's end", async (t) => {
  mockTime(t);
  const retryLater = refuse(503, { retryable: true }, { "retry-after": "60" });
  const { base, requests } = await serve(t, broken(PREAMBLE, chunks(["a"])), noContent, whole(done(1, STOPPED)), retryLater);
  for (const texts of [["a"], []]) {
    const stream = openStream(`${base}/simple`, {}, { onState: ({ state }) => { if (state === "reconnecting") void stream.stop(); } });
    assert.deepEqual(await read(stream), { texts, result: STOPPED });
  }
  assert.deepEqual(requests.map(({ method }) => method), ["POST", "DELETE", "GET", "POST"]);
});

test("who leaves in a pause leaves no timer behind", async (t) => {
  const started = t.mock.method(globalThis, "setTimeout").mock;
  const ended = t.mock.method(globalThis, "clearTimeout").mock;
  const { base } = await serve(t, refuse(503, { retryable: true }, { "retry-after": "60" }));
  const leaving = new AbortController();
  const stream = openStream(`${base}/simple`, {}, { signal: leaving.signal });
  const outcome = read(stream);
  await until(() => stream.state === "reconnecting");
  const [pause, ...more] = started.calls.filter(({ arguments: [, ms] }) => ms >= 60_000).map(({ result }) => result);
  assert.ok(pause && !more.length);
  const isCleared = () => ended.calls.some(({ arguments: [timer] }) => timer === pause);
  assert.ok(!isCleared());
  leaving.abort();
  await outcome;
  assert.ok(isCleared());
});

test("with a signal that is aborted already, nothing is asked", async (t) => {
  impatient(t);
  const { base, requests } = await serve(t);
  const states = [];
  const stream = openStream(`${base}/simple`, {}, { signal: AbortSignal.abort(), onState: ({ state }) => states.push(state) });
  assert.deepEqual(states, [], "nothing is said before it has returned");
  assert.equal((await read(stream)).error.name, "AbortError");
  assert.deepEqual(states, ["left"]);
  await calm();
  assert.equal(requests.length, 0);
});

test("a break leaves, too", async (t) => {
  impatient(t);
  const { base, requests } = await serve(t, opening(PREAMBLE, chunks(["a", "b"])));
  const stream = openStream(`${base}/simple`);
  for await (const text of stream) {
    assert.equal(text, "a");
    break;
  }
  assert.equal(stream.state, "left");
  await assert.rejects(stream.result, { name: "AbortError" });
  await assert.rejects(stream[Symbol.asyncIterator]().next(), { name: "AbortError" }, "nor does it look whole");
  await until(() => requests[0].gone);
  await calm();
  assert.equal(requests.length, 1);
});

test("what `onState` throws is reported, and neither fails a stream nor keeps a connection", async (t) => {
  const reported = unhandled(t);
  const { base, requests } = await serve(t, whole(PREAMBLE, chunks(["a"]), done(1)), opening(PREAMBLE, chunks(["a"])));
  const onState = ({ state }) => { throw new Error(state); };
  assert.deepEqual(await read(openStream(`${base}/simple`, {}, { onState })), { texts: ["a"], result: { finish: "stop" } });
  for await (const _ of openStream(`${base}/simple`, {}, { onState })) break;
  await until(() => requests[1].gone && reported.length === 4);
  assert.deepEqual(reported.map(({ message }) => message), ["streaming", "done", "streaming", "left"]);
});

test("what `onReasoning` throws is reported, and disturbs nothing", async (t) => {
  const reported = unhandled(t);
  const { base } = await serve(t, whole(PREAMBLE, event("reasoning", 0, { chunk: "hm" }), chunks(["a"], 1), done(2)));
  const onReasoning = (text) => { throw new Error(text); };
  assert.deepEqual(await read(openStream(`${base}/chat`, {}, { onReasoning })), { texts: ["a"], result: { finish: "stop" } });
  await until(() => reported.length === 1);
  assert.equal(reported[0].message, "hm");
});

test("a stop that fails and that nobody awaits is no unhandled rejection, while one that is awaited rejects", async (t) => {
  impatient(t);
  const reported = unhandled(t);
  const { base, requests } = await serve(t, opening(PREAMBLE), refuse(403), refuse(403));
  const stream = openStream(`${base}/simple`);
  await until(() => stream.id);
  void stream.stop();
  await until(() => requests.length === 2);
  await calm();
  await assert.rejects(stream.stop(), { status: 403 });
  await calm();
  assert.deepEqual(reported, []);
  stream[Symbol.asyncIterator]().return();
});

test("fault 36: a stop that gets no answer may want a connection: the stream's own is given up for it", async (t) => {
  mockTime(t);
  let stopRequest;
  const { base, requests } = await serve(t,
    opening(PREAMBLE, chunks(["a"])),
    (res) => { stopRequest = res; },
    whole(PREAMBLE, done(1, STOPPED)));
  const stream = openStream(`${base}/simple`);
  const outcome = read(stream);
  await until(() => stream.cursor === `${ID}.0`);
  const stopped = stream.stop();
  await until(() => stopRequest);
  await calm();
  assert.equal(requests[0].gone, false);
  t.mock.timers.tick(500);
  await until(() => requests[0].gone);
  noContent(stopRequest);
  await stopped;
  t.mock.timers.tick(0);
  assert.deepEqual(await outcome, { texts: ["a"], result: STOPPED });
});

test("a final state is final: left between the answer and its headers, it doesn't stream again", async (t) => {
  const leaving = new AbortController();
  const { fetch } = globalThis;
  t.mock.method(globalThis, "fetch", async (...request) => {
    const response = await fetch(...request);
    queueMicrotask(() => leaving.abort());
    return response;
  });
  const { base } = await serve(t, opening(PREAMBLE, chunks(["a"])));
  const states = [];
  const stream = openStream(`${base}/simple`, {}, { signal: leaving.signal, onState: ({ state }) => states.push(state) });
  assert.equal((await read(stream)).error.name, "AbortError");
  await calm();
  assert.deepEqual(states, ["left"]);
  assert.equal(stream.state, "left");
});

/** Promises that nobody caught, which else would fail the test. */
function unhandled(t) {
  const reported = [];
  const others = process.listeners("unhandledRejection");
  process.removeAllListeners("unhandledRejection");
  process.on("unhandledRejection", (error) => reported.push(error));
  t.after(() => {
    process.removeAllListeners("unhandledRejection");
    for (const other of others) process.on("unhandledRejection", other);
  });
  return reported;
}

test("who left may still stop", async (t) => {
  const { base, requests } = await serve(t, opening(PREAMBLE, chunks(["a"])), noContent);
  const stream = openStream(`${base}/simple`);
  for await (const _ of stream) break;
  await stream.stop();
  assert.equal(requests[1].method, "DELETE");
});

test("backpressure: what isn't read isn't fetched", async (t) => {
  let sent = 0;
  const { base } = await serve(t, (res) => {
    opening(PREAMBLE)(res);
    const text = "x".repeat(1 << 16);
    let n = 0;
    const more = () => {
      while (res.writable) {
        sent += text.length;
        if (!res.write(chunks([text], n++))) break;
      }
    };
    res.on("drain", more);
    more();
  });
  const stream = openStream(`${base}/simple`);
  const texts = stream[Symbol.asyncIterator]();
  await texts.next();
  let before;
  do {
    before = sent;
    await calm();
  } while (sent > before);
  assert.ok(sent < 32 << 20, `${sent} bytes went into the buffers of the sockets`);
  for (let i = 0; i < 1000; i++) assert.equal((await texts.next()).value.length, 1 << 16);
  assert.ok(sent > before, "and it goes on");
  await texts.return();
});
