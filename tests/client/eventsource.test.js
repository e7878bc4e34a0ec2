import assert from "node:assert/strict";
import { test } from "node:test";

import { openStream, resumeStream } from "../../public/stream.js";
import { broken, calm, chunks, done, event, hangUp, ID, impatient, noContent, opening, PREAMBLE, read, refuse, serve, until, whole } from "./helpers.js";

const options = { transport: "eventsource" };
const skip = typeof EventSource === "undefined" && "needs node --experimental-eventsource";
const query = (request) => Object.fromEntries(new URL(request.url, "http://localhost").searchParams);

test("EventSource: a start is a GET with variables and key in the query, and one request is all", { skip }, async (t) => {
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

test("EventSource: a broken stream is resumed with the cursor in the query", { skip }, async (t) => {
  impatient(t);
  const { base, requests } = await serve(t, broken(PREAMBLE, chunks(["a"])), hangUp, whole(PREAMBLE, chunks(["b"], 1), done(2)));
  const { texts } = await read(openStream(`${base}/simple`, {}, options));
  assert.deepEqual(texts, ["a", "b"]);
  assert.deepEqual(requests.map(({ method }) => method), ["GET", "GET", "GET"]);
  assert.equal(requests[2].url, `/streams/${ID}?last_event_id=${ID}.0`);
});

test("EventSource: broken before the first token, the start is repeated with its key", { skip }, async (t) => {
  impatient(t);
  const { base, requests } = await serve(t, broken(PREAMBLE), whole(PREAMBLE, chunks(["a"]), done(1)));
  assert.deepEqual((await read(openStream(`${base}/simple`, {}, options))).texts, ["a"]);
  assert.equal(query(requests[0]).idempotency_key, query(requests[1]).idempotency_key);
});

test("EventSource: refused, it can't say why: fetch asks, with the same key", { skip }, async (t) => {
  impatient(t);
  const { base, requests } = await serve(t, refuse(422), refuse(422, { type: "/problems/key-reused" }));
  const { error } = await read(openStream(`${base}/simple`, { topic: "cat" }, options));
  assert.equal(error.type, "/problems/key-reused");
  assert.equal(requests[1].method, "POST");
  assert.equal(requests[1].headers["idempotency-key"], query(requests[0]).idempotency_key);
  assert.equal(requests[1].body, '{"topic":"cat"}');
});

test("EventSource: fault 7: resumed at its end, a stream is done", { skip }, async (t) => {
  impatient(t);
  const { base } = await serve(t, noContent, noContent);
  assert.deepEqual(await read(resumeStream(`${base}/streams/${ID}`, { ...options, cursor: `${ID}.3` })), { texts: [], result: {} });
});

test("EventSource: `failed` throws", { skip }, async (t) => {
  const { base } = await serve(t, whole(PREAMBLE, chunks(["a"]), event("failed", 1, { type: "/problems/idle-timeout" })));
  const { texts, error } = await read(openStream(`${base}/simple`, {}, options));
  assert.deepEqual(texts, ["a"]);
  assert.equal(error.type, "/problems/idle-timeout");
});

test("EventSource: a stream without ids ends at its end, and is not asked for again", { skip }, async (t) => {
  const { base, requests } = await serve(t, whole('data: {"chunk":"a"}\n\n'));
  assert.deepEqual(await read(openStream(`${base}/simple`, {}, options)), { texts: ["a"], result: {} });
  await calm();
  assert.equal(requests.length, 1);
});

test("EventSource: leaving closes it", { skip }, async (t) => {
  const { base, requests } = await serve(t, opening(PREAMBLE, chunks(["a"])));
  for await (const _ of openStream(`${base}/simple`, {}, options)) break;
  await until(() => requests[0].gone);
  assert.equal(requests.length, 1);
});
