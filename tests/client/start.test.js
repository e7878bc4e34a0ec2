import assert from "node:assert/strict";
import { test } from "node:test";

import { openStream, resumeStream, StreamError } from "../../public/stream.js";
import { broken, calm, chunks, done, event, hangUp, HEARTBEAT, ID, impatient, noContent, opening, page, PREAMBLE, read, refuse, serve, until, whole } from "./helpers.js";

const POEM = whole(PREAMBLE, chunks(["Hi", " you"]), done(2));

test("a start is a POST of JSON that asks for frames and has a key of its own", async (t) => {
  const { base, requests } = await serve(t, POEM, POEM);
  await read(openStream(`${base}/simple`, { topic: "cat 🐈" }));
  await read(openStream(new URL(`${base}/prompts/other`)));
  const [one, two] = requests;
  assert.equal(one.method, "POST");
  assert.equal(one.url, "/simple");
  assert.equal(one.body, '{"topic":"cat 🐈"}');
  assert.equal(one.headers["content-type"], "application/json");
  assert.equal(one.headers.accept, "text/event-stream");
  assert.match(one.headers["idempotency-key"], /^[\x21-\x7e]{16,128}$/);
  assert.notEqual(one.headers["idempotency-key"], two.headers["idempotency-key"]);
  assert.equal(two.body, "{}");
});

test("a query in the address is variables too; those given beside it come first", async (t) => {
  const { base, requests } = await serve(t, POEM, POEM, POEM);
  await read(openStream(`${base}/simple?topic=cat&style=why?#top`));
  await read(openStream(`${base}/simple?topic=cat&style=odd`, { topic: "a dog" }));
  await read(openStream(`${base}/simple#top?topic=cat`));
  assert.deepEqual(requests.map(({ url }) => url), ["/simple", "/simple", "/simple"]);
  assert.deepEqual(requests.map(({ body }) => JSON.parse(body)), [{ topic: "cat", style: "why?" }, { topic: "a dog", style: "odd" }, {}]);
});

test("it asks at once, before anybody iterates, and tells its id", async (t) => {
  const { base, requests } = await serve(t, opening(PREAMBLE));
  const states = [];
  const leaving = new AbortController();
  const stream = openStream(`${base}/simple`, {}, { signal: leaving.signal, onState: ({ state }) => states.push(state) });
  assert.equal(stream.state, "connecting");
  assert.equal(stream.id, undefined);
  await until(() => stream.id);
  assert.equal(requests.length, 1);
  assert.equal(stream.id, ID);
  assert.equal(stream.url, `${base}/streams/${ID}`);
  assert.equal(stream.cursor, ID);
  assert.deepEqual(states, ["streaming"]);
  leaving.abort();
});

test("fault 6: after `done` no request follows", async (t) => {
  impatient(t);
  const { base, requests } = await serve(t, POEM);
  const states = [];
  const { texts, result } = await read(openStream(`${base}/simple`, {}, { onState: ({ state }) => states.push(state) }));
  await calm();
  assert.deepEqual(texts, ["Hi", " you"]);
  assert.deepEqual(result, { finish: "stop" });
  assert.deepEqual(states, ["streaming", "done"]);
  assert.equal(requests.length, 1);
});

test("nothing behind the terminal event is delivered, and its connection needs no end", async (t) => {
  const { base } = await serve(t, opening(PREAMBLE, chunks(["Hi"]), done(1), chunks(["no"], 2)));
  assert.deepEqual(await read(openStream(`${base}/simple`)), { texts: ["Hi"], result: { finish: "stop" } });
});

for (const [fault, answer] of [
  ["a network error", hangUp],
  ["a stream that breaks before it says its id", broken()],
  ...[429, 502, 503, 504].map((status) => [`a ${status}`, refuse(status, { retryable: true })]),
  ["a 502 in HTML", (res) => res.writeHead(502, { "content-type": "text/html" }).end("<h1>Bad gateway</h1>")],
]) {
  test(`fault 13: after ${fault} the start is repeated, with the same key and variables`, async (t) => {
    impatient(t);
    const { base, requests } = await serve(t, answer, answer, POEM);
    const { texts } = await read(openStream(`${base}/simple`, { topic: "cat" }));
    assert.deepEqual(texts, ["Hi", " you"]);
    assert.equal(requests.length, 3);
    for (const member of ["method", "url", "body"]) assert.equal(new Set(requests.map((r) => r[member])).size, 1);
    assert.equal(new Set(requests.map((r) => r.headers["idempotency-key"])).size, 1);
  });
}

for (const [what, answer] of [
  ["a page that is no stream", page],
  ["nothing", noContent],
  ["a stream that ends before it began", whole()],
  ["a stream of nothing but comments", whole(HEARTBEAT)],
]) {
  test(`a start that is answered with ${what} is an error at once, and not repeated`, async (t) => {
    impatient(t);
    const { base, requests } = await serve(t, answer);
    const { texts, error } = await read(openStream(`${base}/simple`));
    assert.deepEqual(texts, []);
    assert.ok(error instanceof StreamError);
    assert.equal(error.type, "malformed");
    assert.equal(error.message, "Not an event stream");
    assert.equal(error.retryable, true, "what is in between may go away");
    await calm();
    assert.equal(requests.length, 1);
  });
}

test("a key can be given, to start again what another page's life has started", async (t) => {
  const { base, requests } = await serve(t, POEM);
  await read(openStream(`${base}/simple`, {}, { key: "0123456789abcdef" }));
  assert.equal(requests[0].headers["idempotency-key"], "0123456789abcdef");
});

for (const [status, problem] of [
  [400, {}], [403, {}], [404, {}], [405, {}], [413, {}], [415, {}], [422, {}], [500, { retryable: true }],
  [502, { type: "/problems/model-refused", retryable: false }],
]) {
  test(`a start that is answered with ${status} ${problem.type ?? ""} is final, and the problem is thrown`, async (t) => {
    impatient(t);
    const { base, requests } = await serve(t, refuse(status, { detail: "Because.", ...problem }));
    const states = [];
    const stream = openStream(`${base}/simple`, {}, { onState: ({ state }) => states.push(state) });
    const { error } = await read(stream);
    assert.ok(error instanceof StreamError);
    assert.equal(error.status, status);
    assert.equal(error.type, problem.type ?? "/problems/test");
    assert.equal(error.title, "Test");
    assert.equal(error.message, "Because.");
    assert.equal(error.retryable, problem.retryable ?? status >= 500);
    await assert.rejects(stream.result, error);
    assert.equal(stream.state, "failed");
    assert.deepEqual(states, ["failed"]);
    await calm();
    assert.equal(requests.length, 1);
  });
}

test("a server that stays away is an error in the end, with its cause", async (t) => {
  impatient(t);
  const { base, requests } = await serve(t, hangUp, hangUp, hangUp, hangUp);
  const { error } = await read(openStream(`${base}/simple`));
  assert.equal(requests.length, 4);
  assert.equal(error.type, "network");
  assert.equal(error.retryable, true);
  assert.ok(error.cause instanceof TypeError);
  await calm();
  assert.equal(requests.length, 4);
});

test("`failed` throws its problem, even a retryable one, and never starts again", async (t) => {
  impatient(t);
  const problem = { type: "/problems/idle-timeout", title: "Idle timeout", detail: "Silence.", retryable: true };
  const { base, requests } = await serve(t, whole(PREAMBLE, chunks(["Hi"]), `event: failed\nid: ${ID}.1\ndata: ${JSON.stringify(problem)}\n\n`));
  const { texts, error } = await read(openStream(`${base}/simple`));
  assert.deepEqual(texts, ["Hi"]);
  assert.equal(error.type, "/problems/idle-timeout");
  assert.equal(error.retryable, true);
  await calm();
  assert.equal(requests.length, 1);
});

test("iterated again, a failed stream fails again: it never looks like an empty answer", async (t) => {
  const { base, requests } = await serve(t, refuse(422));
  const stream = openStream(`${base}/simple`);
  const { error } = await read(stream);
  for (let i = 0; i < 2; i++) await assert.rejects(async () => { for await (const _ of stream); }, error);
  assert.equal(requests.length, 1);
});

test("another server's problem, of members that mean something else, is an error of the usual kind", async (t) => {
  const foreign = { type: null, title: 7, detail: [{}], status: "bad", retryable: "no", retryAfter: {} };
  const { base } = await serve(t, refuse(422, foreign), whole(event("failed", 0, foreign)));
  for (const status of [422, undefined]) {
    const { error } = await read(openStream(`${base}/simple`));
    assert.ok(error instanceof StreamError);
    assert.equal(error.status, status);
    for (const [member, value] of Object.entries({ type: "about:blank", title: "Failed", detail: undefined, message: "Failed", retryable: false, retryAfter: undefined })) {
      assert.equal(error[member], value, member);
    }
  }
});

test("a stream without ids ends at its end", async (t) => {
  impatient(t);
  const { base, requests } = await serve(t, whole('data: {"chunk":"a"}\n\ndata: {"chunk":"b"}\n\n'));
  const stream = openStream(`${base}/simple`);
  assert.deepEqual(await read(stream), { texts: ["a", "b"], result: {} });
  assert.equal(stream.id, undefined);
  assert.equal(stream.cursor, undefined);
  await calm();
  assert.equal(requests.length, 1);
});

test("a stream without ids that breaks off throws, and is not started a second time", async (t) => {
  impatient(t);
  const { base, requests } = await serve(t, broken('data: {"chunk":"a"}\n\n'));
  const { error } = await read(openStream(`${base}/simple`));
  assert.equal(error.type, "truncated");
  await calm();
  assert.equal(requests.length, 1);
});

test("`resumeStream` takes nothing but a stream", () => {
  for (const url of ["/simple", "/streams/", "", "/streams/a-short", `/streams/${ID}x`]) {
    assert.throws(() => resumeStream(url), { type: "not-found" });
  }
  assert.throws(() => resumeStream(`/streams/${ID}`, { cursor: "nonsense" }), { type: "not-found" });
});
