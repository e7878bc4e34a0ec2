import assert from "node:assert/strict";
import { test } from "node:test";

import { openStream, resumeStream } from "../../public/stream.js";
import { broken, browser, calm, chunks, done, hangUp, HEARTBEAT, ID, impatient, mockTime, observe, opening, PREAMBLE, read, refuse, serve, until, whole } from "./helpers.js";

test("backoff doubles with each failure, up to 30 s, and begins anew after progress", async (t) => {
  mockTime(t);
  const { base } = await serve(t,
    broken(PREAMBLE, chunks(["a"])), ...Array(7).fill(hangUp),
    broken(chunks(["b"], 1)), hangUp, whole(chunks(["c"], 2), done(3)));
  const { outcome, delays, skip } = observe(t, (options) => openStream(`${base}/simple`, {}, options));
  for (let i = 1; i <= 10; i++) await skip(i);
  assert.deepEqual((await outcome).texts, ["a", "b", "c"]);
  assert.deepEqual(delays, [1, 2, 4, 8, 16, 30, 30, 30, 1, 2].map((s) => s * 1000));
});

test("jitter is full: a delay is anything from nothing to all of it", async (t) => {
  mockTime(t, 0.25);
  const { base } = await serve(t, broken(PREAMBLE), hangUp, whole(chunks(["a"]), done(1)));
  const { outcome, delays, skip } = observe(t, (options) => openStream(`${base}/simple`, {}, options));
  for (let i = 1; i <= 2; i++) await skip(i);
  await outcome;
  assert.deepEqual(delays, [250, 500]);
});

for (const [retry, delay] of [[3000, 3000], [0, 100], [86_400_000, 30_000]]) {
  test(`\`retry: ${retry}\` makes the first delay ${delay} ms`, async (t) => {
    mockTime(t);
    const { base } = await serve(t, broken(`retry: ${retry}\nid: ${ID}\n\n`), whole(chunks(["a"]), done(1)));
    const { outcome, delays, skip } = observe(t, (options) => openStream(`${base}/simple`, {}, options));
    await skip(1);
    await outcome;
    assert.deepEqual(delays, [delay]);
  });
}

for (const [what, header, delay] of [
  ["in seconds", "7", 7000],
  ["as a date", "Thu, 01 Jan 2026 00:00:09 GMT", 9000],
  ["in the past", "Wed, 31 Dec 2025 00:00:00 GMT", 0],
  ["that is nonsense", "soon", 0],
]) {
  test(`a Retry-After ${what} is waited for, and then the jitter`, async (t) => {
    mockTime(t);
    const { base, requests } = await serve(t, refuse(503, { retryable: true }, { "retry-after": header }), whole(PREAMBLE, chunks(["a"]), done(1)));
    const { outcome, delays } = observe(t, (options) => openStream(`${base}/simple`, {}, options));
    await until(() => delays.length === 1);
    t.mock.timers.tick(delays[0] - 1);
    await calm();
    assert.equal(requests.length, 1);
    t.mock.timers.tick(1);
    await outcome;
    assert.deepEqual(delays, [delay + 1000]);
    assert.equal(requests.length, 2);
  });
}

test("a Retry-After that nobody would wait for is an error that tells it", async (t) => {
  mockTime(t);
  const { base, requests } = await serve(t, refuse(429, { type: "/problems/rate-limited", retryable: true }, { "retry-after": "3600" }));
  const { error } = await read(openStream(`${base}/simple`));
  assert.equal(error.type, "/problems/rate-limited");
  assert.equal(error.retryAfter, 3_600_000);
  assert.equal(requests.length, 1);
});

test("a stream that can't be mended for 10 minutes is truncated, and throws", async (t) => {
  mockTime(t);
  const { base } = await serve(t, broken(PREAMBLE, chunks(["a"])), ...Array(40).fill(hangUp));
  const { outcome, delays, skip } = observe(t, (options) => openStream(`${base}/simple`, {}, options));
  let over = false;
  outcome.then(() => { over = true; });
  for (let i = 1; !over && i < 40; i++) {
    await until(() => over || delays.length === i);
    if (!over) await skip(i);
  }
  const { texts, error } = await outcome;
  assert.deepEqual(texts, ["a"]);
  assert.equal(error.type, "network");
  const waited = delays.reduce((sum, delay) => sum + delay);
  assert.ok(waited >= 600_000 && waited < 640_000, `${waited} ms`);
});

test("heartbeats end the mending, though no event comes", async (t) => {
  mockTime(t);
  let connection;
  const { base } = await serve(t,
    broken(PREAMBLE, chunks(["a"])),
    hangUp,
    (res) => { connection = res; opening(PREAMBLE)(res); },
    hangUp,
    whole(chunks(["b"], 1), done(2)));
  const { outcome, delays, skip } = observe(t, (options) => openStream(`${base}/simple`, {}, options));
  for (let i = 1; i <= 2; i++) await skip(i);
  await until(() => connection);
  for (let silence = 0; silence <= 600; silence += 25) {
    await calm();
    t.mock.timers.tick(25_000);
    connection.write(HEARTBEAT);
  }
  await calm();
  connection.destroy();
  for (let i = 3; i <= 4; i++) await skip(i);
  assert.deepEqual((await outcome).texts, ["a", "b"]);
  assert.deepEqual(delays, [1000, 2000, 1000, 2000]);
});

test("a start that brings heartbeats but no id, and breaks, is not repeated for ever", async (t) => {
  mockTime(t);
  const { base, requests } = await serve(t, ...Array(9).fill(broken(HEARTBEAT)));
  const { outcome, delays, skip } = observe(t, (options) => openStream(`${base}/simple`, {}, options));
  for (let i = 1; i <= 3; i++) await skip(i);
  assert.equal((await outcome).error.type, "truncated");
  assert.deepEqual(delays, [1000, 2000, 4000]);
  assert.equal(requests.length, 4);
});

test("a server that takes connections and stays silent is given up, too", async (t) => {
  mockTime(t);
  const { base, requests } = await serve(t, broken(PREAMBLE, chunks(["a"])), ...Array(20).fill(opening()));
  const { stream, outcome, delays, skip } = observe(t, (options) => openStream(`${base}/simple`, {}, options));
  let over = false;
  outcome.then(() => { over = true; });
  for (let i = 1; !over && i < 20; i++) {
    await until(() => over || delays.length === i);
    if (over) break;
    await skip(i);
    await until(() => requests.length === i + 1 && stream.state === "streaming");
    await calm();
    t.mock.timers.tick(30_000);
  }
  assert.equal((await outcome).error.type, "network");
});

test("30 s without a byte: the connection is given up and the stream resumed", async (t) => {
  mockTime(t);
  const { base, requests } = await serve(t, opening(PREAMBLE, chunks(["a"])), whole(chunks(["b"], 1), done(2)));
  const { stream, outcome, delays, skip } = observe(t, (options) => openStream(`${base}/simple`, {}, options));
  await until(() => stream.cursor === `${ID}.0`);
  await calm();
  t.mock.timers.tick(29_999);
  await calm();
  assert.equal(requests.length, 1);
  t.mock.timers.tick(1);
  await skip(1);
  assert.deepEqual((await outcome).texts, ["a", "b"]);
  assert.equal(requests[1].headers["last-event-id"], `${ID}.0`);
  assert.deepEqual(delays, [1000]);
  await until(() => requests[0].gone);
});

test("30 s without an answer: the start is repeated with its key", async (t) => {
  mockTime(t);
  const { base, requests } = await serve(t, () => {}, whole(PREAMBLE, chunks(["a"]), done(1)));
  const { outcome, skip } = observe(t, (options) => openStream(`${base}/simple`, {}, options));
  await until(() => requests.length === 1);
  t.mock.timers.tick(30_000);
  await skip(1);
  assert.deepEqual((await outcome).texts, ["a"]);
  assert.equal(requests[1].headers["idempotency-key"], requests[0].headers["idempotency-key"]);
});

for (const [when, begin, from] of [["before the first token", [], 0], ["between tokens", ["a"], 1]]) {
  test(`fault 11: 40 s of silence ${when}, with heartbeats: no reconnect, no failure`, async (t) => {
    mockTime(t);
    let connection;
    const { base, requests } = await serve(t, (res) => {
      connection = res;
      opening(PREAMBLE, chunks(begin))(res);
    });
    const { stream, outcome, delays } = observe(t, (options) => openStream(`${base}/simple`, {}, options));
    await until(() => stream.id && connection);
    for (let silence = 0; silence < 40; silence += 10) {
      await calm();
      t.mock.timers.tick(10_000);
      connection.write(HEARTBEAT);
    }
    await calm();
    connection.end(chunks(["b"], from) + done(from + 1));
    assert.deepEqual((await outcome).texts, [...begin, "b"]);
    assert.deepEqual(delays, []);
    assert.equal(requests.length, 1);
  });
}

test("the watchdog rests while the consumer doesn't read", async (t) => {
  mockTime(t);
  const { base, requests } = await serve(t, opening(PREAMBLE, chunks(["a", "b"])));
  const stream = openStream(`${base}/simple`);
  const texts = stream[Symbol.asyncIterator]();
  assert.equal((await texts.next()).value, "a");
  t.mock.timers.tick(3_600_000);
  await calm();
  assert.equal((await texts.next()).value, "b");
  assert.equal(stream.state, "streaming");
  assert.equal(requests.length, 1);
  await texts.return?.();
});

test("when the network is back, a pause ends at once", async (t) => {
  mockTime(t);
  const window = browser(t);
  const { base, requests } = await serve(t, broken(PREAMBLE, chunks(["a"])), hangUp, hangUp, hangUp, whole(chunks(["b"], 1), done(2)));
  const { outcome, delays, skip } = observe(t, (options) => openStream(`${base}/simple`, {}, options));
  for (let i = 1; i <= 3; i++) await skip(i);
  await until(() => delays.length === 4);
  assert.equal(delays[3], 8000);
  window.dispatchEvent(new Event("online"));
  assert.deepEqual((await outcome).texts, ["a", "b"]);
  assert.equal(requests.length, 5);
});

test("when the network is back, a Retry-After is waited for all the same", async (t) => {
  mockTime(t);
  const window = browser(t);
  const { base, requests } = await serve(t, refuse(503, { retryable: true }, { "retry-after": "60" }), whole(PREAMBLE, done(0)));
  const { outcome, delays, skip } = observe(t, (options) => openStream(`${base}/simple`, {}, options));
  await until(() => delays.length === 1);
  window.dispatchEvent(new Event("online"));
  await calm();
  assert.equal(requests.length, 1);
  await skip(1);
  await outcome;
  assert.equal(requests.length, 2);
});

test("a network that comes and goes doesn't repeat a start more often", async (t) => {
  mockTime(t);
  const window = browser(t);
  const { base, requests } = await serve(t, hangUp, hangUp, hangUp, hangUp, hangUp);
  const { outcome, delays } = observe(t, (options) => openStream(`${base}/simple`, {}, options));
  for (let i = 1; i <= 3; i++) {
    await until(() => delays.length === i);
    window.dispatchEvent(new Event("online"));
  }
  assert.equal((await outcome).error.type, "network");
  assert.equal(requests.length, 4);
});

test("when the network is back, a connection from before is not trusted", async (t) => {
  mockTime(t);
  const window = browser(t);
  const { base, requests } = await serve(t, opening(PREAMBLE, chunks(["a"])), whole(chunks(["b"], 1), done(2)));
  const { stream, outcome, delays, skip } = observe(t, (options) => openStream(`${base}/simple`, {}, options));
  await until(() => stream.cursor === `${ID}.0`);
  window.dispatchEvent(new Event("online"));
  await skip(1);
  assert.deepEqual((await outcome).texts, ["a", "b"]);
  assert.deepEqual(delays, [0]);
  assert.equal(requests.length, 2);
});

for (const transport of /** @type {const} */ (["fetch", "eventsource"])) {
  for (const [what, hanging] of [["without an answer", () => {}], ["without an id", opening()]]) {
    test(`${transport}: when the network is back, a start that hangs ${what} is repeated at once, with its key`, async (t) => {
      mockTime(t);
      const window = browser(t);
      const { base, requests } = await serve(t, hanging, whole(PREAMBLE, chunks(["a"]), done(1)));
      const { stream, outcome, delays, skip } = observe(t, (options) => openStream(`${base}/simple`, {}, { transport, ...options }));
      await until(() => requests.length === 1 && stream.state === (what === "without an id" ? "streaming" : "connecting"));
      window.dispatchEvent(new Event("online"));
      await skip(1);
      assert.deepEqual((await outcome).texts, ["a"]);
      assert.deepEqual(delays, [0]);
      const keys = requests.map(({ url, headers }) => headers["idempotency-key"] ?? new URL(url, base).searchParams.get("idempotency_key"));
      assert.equal(keys[0], keys[1]);
      assert.equal(requests.length, 2);
      await until(() => requests[0].gone);
    });
  }

  test(`${transport}: when the network is back, a stream without ids that has begun is not started again`, async (t) => {
    mockTime(t);
    const window = browser(t);
    let connection;
    const { base, requests } = await serve(t, (res) => { connection = res; opening('data: {"chunk":"a"}\n\n')(res); });
    const stream = openStream(`${base}/simple`, {}, { transport });
    const texts = stream[Symbol.asyncIterator]();
    assert.equal((await texts.next()).value, "a");
    window.dispatchEvent(new Event("online"));
    connection.write('data: {"chunk":"b"}\n\n');
    assert.equal((await texts.next()).value, "b");
    await texts.return();
    await calm();
    assert.equal(requests.length, 1);
  });
}

test("when the network is back, a start that is being stopped is not repeated: its id is on the way", async (t) => {
  mockTime(t);
  const window = browser(t);
  let reader;
  const { base, requests } = await serve(t, (res) => { reader = res; }, (res) => { res.writeHead(204).end(); reader.end(done(0, { finish: "stopped" })); });
  const { stream, outcome } = observe(t, (options) => openStream(`${base}/simple`, {}, options));
  await until(() => reader);
  const stopped = stream.stop();
  window.dispatchEvent(new Event("online"));
  opening(PREAMBLE)(reader);
  await stopped;
  assert.deepEqual((await outcome).result, { finish: "stopped" });
  assert.deepEqual(requests.map(({ method }) => method), ["POST", "DELETE"]);
});

test("a network that comes and goes while a start hangs doesn't repeat it more often", async (t) => {
  mockTime(t);
  const window = browser(t);
  const { base, requests } = await serve(t, ...Array(9).fill(() => {}));
  const { stream, outcome, delays, skip } = observe(t, (options) => openStream(`${base}/simple`, {}, options));
  for (let i = 1; i <= 4; i++) {
    await until(() => requests.length === i);
    window.dispatchEvent(new Event("online"));
    if (i < 4) await skip(i);
  }
  assert.equal((await outcome).error.type, "network");
  assert.equal(stream.state, "failed");
  assert.deepEqual(delays, [0, 0, 0]);
  assert.equal(requests.length, 4);
});

test("an ended stream listens to nothing any more", async (t) => {
  impatient(t);
  const window = browser(t);
  const { base, requests } = await serve(t, whole(PREAMBLE, done(0)));
  await read(resumeStream(`${base}/streams/${ID}`));
  window.dispatchEvent(new Event("online"));
  await calm();
  assert.equal(requests.length, 1);
});
