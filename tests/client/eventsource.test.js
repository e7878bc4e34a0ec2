import assert from "node:assert/strict";
import { test } from "node:test";

import { openStream, resumeStream } from "../../public/stream.js";
import { broken, calm, chunks, done, event, fixtures, hangUp, ID, ID_ONLY, impatient, mockTime, noContent, numbered, opened, opening, PREAMBLE, read, refuse, serve, until, whole } from "./helpers.js";

const options = { transport: "eventsource" };
const query = (request) => Object.fromEntries(new URL(request.url, "http://localhost").searchParams);

test("EventSource: a start is a GET with variables and key in the query, and one request is all", async (t) => {
  impatient(t);
  const { base, requests } = await serve(t, whole(PREAMBLE, chunks(["a", "b"]), done(2)));
  const states = [];
  const outcome = await read(openStream(`${base}/simple?x=1`, { topic: "a cat & a dog" }, { ...options, onState: ({ state }) => states.push(state) }));
  assert.deepEqual(outcome, { texts: ["a", "b"], result: { finish: "stop" } });
  assert.deepEqual(states, ["streaming", "done"]);
  const { idempotency_key: key, ...variables } = query(requests[0]);
  assert.deepEqual(variables, { x: "1", topic: "a cat & a dog" });
  assert.match(key, /^[\x21-\x7e]{16,128}$/);
  await calm();
  assert.equal(requests.length, 1);
});

test("EventSource: a fragment in the address doesn't swallow variables and key", async (t) => {
  const { base, requests } = await serve(t, whole(PREAMBLE, done(0)), whole(PREAMBLE, done(0)));
  for (const address of ["/simple#top", "/simple?style=odd#top?"]) await read(openStream(base + address, { topic: "cat" }, options));
  for (const [n, variables] of [{ topic: "cat" }, { style: "odd", topic: "cat" }].entries()) {
    const { idempotency_key: key, ...asked } = query(requests[n]);
    assert.deepEqual(asked, variables);
    assert.match(key, /^.{16,}$/);
  }
});

test("EventSource: a broken stream is resumed with the cursor in the query", async (t) => {
  impatient(t);
  const { base, requests } = await serve(t, broken(PREAMBLE, chunks(["a"])), hangUp, whole(PREAMBLE, chunks(["b"], 1), done(2)));
  const { texts } = await read(openStream(`${base}/simple`, {}, options));
  assert.deepEqual(texts, ["a", "b"]);
  assert.deepEqual(requests.map(({ method }) => method), ["GET", "GET", "GET"]);
  assert.equal(requests[2].url, `/streams/${ID}?last_event_id=${ID}.0`);
});

test("EventSource: the opening event tells the id before the first token; broken there, the stream is resumed", async (t) => {
  impatient(t);
  const { base, requests } = await serve(t, broken(PREAMBLE), whole(opened(ID, 0), chunks(["a"]), done(1)));
  const stream = openStream(`${base}/simple`, {}, options);
  const known = until(() => stream.id && stream.state === "streaming");
  assert.deepEqual((await read(stream)).texts, ["a"]);
  await known;
  assert.deepEqual(requests.map(({ method }) => method), ["GET", "GET"]);
  assert.equal(requests[1].url, `/streams/${ID}?last_event_id=${ID}`);
});

test("EventSource: broken before the id is known, the start is repeated with its key", async (t) => {
  impatient(t);
  const { base, requests } = await serve(t, broken(ID_ONLY), whole(PREAMBLE, chunks(["a"]), done(1)));
  assert.deepEqual((await read(openStream(`${base}/simple`, {}, options))).texts, ["a"]);
  assert.equal(query(requests[0]).idempotency_key, query(requests[1]).idempotency_key);
});

// Those of them that Node's EventSource reads as browsers do, and that tell their end.
for (const name of ["hostile", "framed", "crlf", "cr", "failed", "long"]) {
  const [fixture] = fixtures(name);
  test(`EventSource: fault 1-4: ${name}: ${fixture.about}`, async (t) => {
    const { base } = await serve(t, whole(fixture.bytes));
    const { texts, result, error } = await read(openStream(`${base}/simple`, {}, options));
    assert.deepEqual(texts, fixture.chunks);
    assert.deepEqual(result, fixture.result);
    assert.equal(error?.type, fixture.problem?.type);
  });
}

test("EventSource: fault 1, 5: hostile, broken off at every byte and resumed: each chunk once, in order", async (t) => {
  impatient(t);
  const [{ bytes, chunks: expected, events, result }] = fixtures("hostile");
  const behind = (last) => numbered(events).slice(last + 1).map(({ event, id, data }) => `event: ${event}\nid: ${id}\ndata: ${data}\n\n`).join("");
  for (let cut = 0; cut < bytes.length; cut++) {
    const { base, requests } = await serve(t, broken(bytes.subarray(0, cut)), (res, { url }) => {
      const { last_event_id: cursor } = query({ url });
      whole(cursor ? behind(Number(cursor.split(".")[1])) : bytes)(res);
    });
    assert.deepEqual(await read(openStream(`${base}/simple`, {}, options)), { texts: expected, result }, `cut at ${cut}`);
    assert.equal(requests.length, 2);
  }
});

test("EventSource: events of a type that it doesn't listen to are no gap: fetch reads on", async (t) => {
  impatient(t);
  const usage = event("usage", 1, { tokens: 1 });
  const { base, requests } = await serve(t, whole(PREAMBLE, chunks(["a"]), usage, chunks(["b"], 2), done(3)), whole(usage, chunks(["b"], 2), done(3)));
  assert.deepEqual(await read(openStream(`${base}/simple`, {}, options)), { texts: ["a", "b"], result: { finish: "stop" } });
  assert.equal(requests.length, 2);
  assert.equal(requests[1].headers["last-event-id"], `${ID}.0`);
});

test("EventSource: refused, it can't say why: fetch asks, with the same key", async (t) => {
  impatient(t);
  const { base, requests } = await serve(t, refuse(422), refuse(422, { type: "/problems/key-reused" }));
  const { error } = await read(openStream(`${base}/simple`, { topic: "cat" }, options));
  assert.equal(error.type, "/problems/key-reused");
  assert.equal(requests[1].method, "POST");
  assert.equal(requests[1].headers["idempotency-key"], query(requests[0]).idempotency_key);
  assert.equal(requests[1].body, '{"topic":"cat"}');
});

test("EventSource: fault 7: resumed at its end, a stream is done", async (t) => {
  impatient(t);
  const { base } = await serve(t, noContent, noContent);
  assert.deepEqual(await read(resumeStream(`${base}/streams/${ID}`, { ...options, cursor: `${ID}.3` })), { texts: [], result: {} });
});

test("EventSource: `failed` throws", async (t) => {
  const { base } = await serve(t, whole(PREAMBLE, chunks(["a"]), event("failed", 1, { type: "/problems/idle-timeout" })));
  const { texts, error } = await read(openStream(`${base}/simple`, {}, options));
  assert.deepEqual(texts, ["a"]);
  assert.equal(error.type, "/problems/idle-timeout");
});

test("EventSource: whether a stream without ids was whole can't be seen: it throws, and is not asked for again", async (t) => {
  impatient(t);
  for (const end of [whole, broken]) {
    const { base, requests } = await serve(t, end('data: {"chunk":"a"}\n\n'));
    const { texts, error } = await read(openStream(`${base}/simple`, {}, options));
    assert.deepEqual(texts, ["a"]);
    assert.equal(error.type, "truncated");
    await calm();
    assert.equal(requests.length, 1);
  }
});

test("EventSource: a stream without ids that ends with `done` was whole", async (t) => {
  const { base } = await serve(t, whole('data: {"chunk":"a"}\n\nevent: done\ndata: {"finish":"stop"}\n\n'));
  assert.deepEqual(await read(openStream(`${base}/simple`, {}, options)), { texts: ["a"], result: { finish: "stop" } });
});

for (const [what, cut] of [["an answer that was cut before it told its id", broken(ID_ONLY)], ["no answer", hangUp], ["a refusal", refuse(503)]]) {
  test(`EventSource: stopped in the pause after ${what}, it is not started again`, async (t) => {
    mockTime(t);
    const { base, requests } = await serve(t, cut, refuse(503, { retryable: true }));
    const stream = openStream(`${base}/simple`, { topic: "cat" }, options);
    const outcome = read(stream);
    await until(() => stream.state === "reconnecting");
    const asked = requests.length;
    await stream.stop();
    assert.deepEqual(await outcome, { texts: [], result: { finish: "stopped" } });
    await calm();
    assert.equal(requests.length, asked);
  });
}

for (const [when, silence, state] of [["before any answer", () => {}, "connecting"], ["before the opening event", opening(), "streaming"]]) {
  test(`EventSource: stopped ${when}, the generation is stopped as soon as the id is known`, async (t) => {
    let reader;
    const { base, requests } = await serve(t,
      (res) => { reader = res; silence(res); },
      (res) => { noContent(res); reader.end(done(0, { finish: "stopped" })); });
    const stream = openStream(`${base}/simple`, { topic: "cat" }, options);
    const outcome = read(stream);
    await until(() => reader && stream.state === state);
    const stopped = stream.stop();
    await calm();
    if (!reader.headersSent) opening()(reader);
    reader.write(PREAMBLE);
    await stopped;
    assert.deepEqual(await outcome, { texts: [], result: { finish: "stopped" } });
    assert.deepEqual(requests.map(({ method }) => method), ["GET", "DELETE"]);
    assert.equal(requests[1].url, `/streams/${ID}`);
  });
}

test("EventSource: where there is none, fetch reads", async (t) => {
  const { EventSource } = globalThis;
  t.after(() => Object.assign(globalThis, { EventSource }));
  Reflect.deleteProperty(globalThis, "EventSource");
  const { base, requests } = await serve(t, whole(PREAMBLE, chunks(["a"]), done(1)));
  assert.deepEqual((await read(openStream(`${base}/simple`, { topic: "cat" }, options))).texts, ["a"]);
  assert.equal(requests[0].method, "POST");
});

test("EventSource: a stream without ids is stopped by leaving", async (t) => {
  impatient(t);
  const { base, requests } = await serve(t, opening('data: {"chunk":"a"}\n\n'));
  const stream = openStream(`${base}/simple`, {}, options);
  const texts = [];
  for await (const text of stream) {
    texts.push(text);
    void stream.stop();
  }
  assert.deepEqual([texts, await stream.result], [["a"], { finish: "stopped" }]);
  await until(() => requests[0].gone);
  await calm();
  assert.equal(requests.length, 1);
});

test("EventSource: stopped at once, it is not even started", async (t) => {
  const { base, requests } = await serve(t);
  const stream = openStream(`${base}/simple`, {}, options);
  await stream.stop();
  assert.deepEqual(await read(stream), { texts: [], result: { finish: "stopped" } });
  await calm();
  assert.equal(requests.length, 0);
});

test("EventSource: leaving closes it", async (t) => {
  impatient(t);
  const { base, requests } = await serve(t, opening(PREAMBLE, chunks(["a"])));
  for await (const _ of openStream(`${base}/simple`, {}, options)) break;
  await until(() => requests[0].gone);
  await calm();
  assert.equal(requests.length, 1);
});
