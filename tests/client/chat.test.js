// Conversations, reasoning, and events of types that this client doesn't know.

import assert from "node:assert/strict";
import { test } from "node:test";

import { openStream, resumeStream } from "../../public/stream.js";
import { broken, calm, chunks, done, event, hangUp, ID, impatient, noContent, opening, PREAMBLE, read, refuse, serve, until, whole } from "./helpers.js";

const ANSWER = whole(PREAMBLE, chunks(["Hi", " you"]), done(2));
const messages = [{ role: "system", content: "Be brief." }, { role: "user", content: "Hello 🐈" }];
const thought = (text, n) => event("reasoning", n, { chunk: text });
/** Reads a stream to its end; `told` is what comes, one after the other: texts, and (reasonings). */
async function readAll(open) {
  const told = [];
  const stream = open({ onReasoning: (text) => told.push(`(${text})`) });
  const texts = [];
  for await (const text of stream) {
    texts.push(text);
    told.push(text);
  }
  return { told, texts, result: await stream.result };
}

test("a conversation is the body of its start, as it is", async (t) => {
  const { base, requests } = await serve(t, ANSWER);
  const conversation = { messages, model: "default", max_tokens: 100, temperature: 0.7, stop: ["END", "\n\n"] };
  assert.deepEqual(await read(openStream(`${base}/chat`, conversation)), { texts: ["Hi", " you"], result: { finish: "stop" } });
  const [{ method, url, headers, body }] = requests;
  assert.deepEqual([method, url, headers.accept, headers["content-type"]], ["POST", "/chat", "text/event-stream", "application/json"]);
  assert.match(headers["idempotency-key"], /^[\x21-\x7e]{16,128}$/);
  assert.deepEqual(JSON.parse(body), conversation);
});

test("half of a surrogate pair in a message becomes U+FFFD, a whole one stays", async (t) => {
  const { base, requests } = await serve(t, ANSWER);
  await read(openStream(`${base}/chat`, { messages: [{ role: "user", content: "a\ud83db\udc08c🐈" }], stop: ["\ud800"] }));
  assert.deepEqual(JSON.parse(requests[0].body), { messages: [{ role: "user", content: "a\ufffdb\ufffdc🐈" }], stop: ["\ufffd"] });
});

test("a start is repeated with the conversation that it began with, however that has grown", async (t) => {
  impatient(t);
  const { base, requests } = await serve(t, hangUp, ANSWER);
  const growing = [...messages];
  const stream = openStream(`${base}/chat`, { messages: growing });
  growing.push({ role: "assistant", content: "…" });
  growing[0] = { role: "system", content: "Be long." };
  await read(stream);
  assert.equal(requests.length, 2);
  assert.equal(requests[0].headers["idempotency-key"], requests[1].headers["idempotency-key"]);
  for (const { body } of requests) assert.deepEqual(JSON.parse(body), { messages });
});

for (const [prefix, address] of [["", "/chat"], ["/ai", "/ai/chat"], ["/ai", "/ai/chat/"]]) {
  test(`started at ${address}, a conversation is resumed and stopped at ${prefix}/streams/ID`, async (t) => {
    impatient(t);
    let reader;
    const { base, requests } = await serve(t,
      broken(PREAMBLE, chunks(["a"])),
      (res) => { reader = res; opening(chunks(["b"], 1))(res); },
      (res) => { noContent(res); reader.end(done(2, { finish: "stopped" })); });
    const stream = openStream(base + address, { messages });
    const outcome = read(stream);
    await until(() => stream.cursor === `${ID}.1`);
    await stream.stop();
    assert.deepEqual(await outcome, { texts: ["a", "b"], result: { finish: "stopped" } });
    assert.deepEqual(requests.map(({ method, url }) => `${method} ${url}`), [`POST ${address}`, `GET ${prefix}/streams/${ID}`, `DELETE ${prefix}/streams/${ID}`]);
  });
}

test("a prompt that is named chat is no conversation: EventSource starts it", async (t) => {
  const { base, requests } = await serve(t, ANSWER);
  await read(openStream(`${base}/prompts/chat`, { topic: "cat" }, { transport: "eventsource" }));
  assert.equal(requests[0].method, "GET");
});

test("EventSource: a conversation is started by fetch, and resumed by EventSource", async (t) => {
  impatient(t);
  const { base, requests } = await serve(t, broken(PREAMBLE, chunks(["a"])), broken(chunks(["b"], 1)), whole(chunks(["c"], 2), done(3)));
  const { texts, result } = await read(openStream(`${base}/chat`, { messages }, { transport: "eventsource" }));
  assert.deepEqual([texts, result], [["a", "b", "c"], { finish: "stop" }]);
  assert.deepEqual(requests.map(({ method, url }) => `${method} ${url}`), [
    "POST /chat", `GET /streams/${ID}?last_event_id=${ID}.0`, `GET /streams/${ID}?last_event_id=${ID}.1`,
  ]);
  assert.deepEqual(JSON.parse(requests[0].body), { messages });
});

test("EventSource: a conversation that is refused is asked for once", async (t) => {
  impatient(t);
  const { base, requests } = await serve(t, refuse(401, { type: "/problems/unauthorised" }));
  const { error } = await read(openStream(`${base}/chat`, { messages }, { transport: "eventsource" }));
  assert.deepEqual([error.type, error.status], ["/problems/unauthorised", 401]);
  await calm();
  assert.equal(requests.length, 1);
});

test("EventSource: where fetch gives no body, it still reads the conversation that fetch has started", async (t) => {
  const { base, requests } = await serve(t,
    (res) => { res.setHeader("content-location", `/streams/${ID}`); opening(PREAMBLE)(res); },
    whole(PREAMBLE, chunks(["a"]), done(1)));
  const { fetch } = globalThis;
  t.mock.method(globalThis, "fetch", async (...request) => {
    const response = await fetch(...request);
    return Object.defineProperty(response, "body", { value: undefined });
  });
  assert.deepEqual(await read(openStream(`${base}/chat`, { messages }, { transport: "eventsource" })), { texts: ["a"], result: { finish: "stop" } });
  assert.deepEqual(requests.map(({ method, url }) => `${method} ${url}`), ["POST /chat", `GET /streams/${ID}?last_event_id=${ID}`]);
});

for (const transport of /** @type {const} */ (["fetch", "eventsource"])) {
  const frames = [thought("hm", 0), thought("so", 1), chunks(["a"], 2), thought("wait", 3), chunks(["b"], 4), done(5)];
  const told = ["(hm)", "(so)", "a", "(wait)", "b"];

  test(`${transport}: reasoning is told once and in order with the texts, which are the answer's alone`, async (t) => {
    const { base, requests } = await serve(t, whole(PREAMBLE, ...frames));
    const outcome = await readAll((options) => resumeStream(`${base}/streams/${ID}`, { transport, ...options }));
    assert.deepEqual(outcome, { told, texts: ["a", "b"], result: { finish: "stop" } });
    assert.equal(requests.length, 1);
  });

  test(`${transport}: who doesn't ask for reasoning gets the texts, in one request`, async (t) => {
    const { base, requests } = await serve(t, whole(PREAMBLE, ...frames));
    assert.deepEqual(await read(openStream(`${base}/simple`, {}, { transport })), { texts: ["a", "b"], result: { finish: "stop" } });
    assert.equal(requests.length, 1);
  });

  test(`fault 5: ${transport}: cut behind each event, reasoning and texts are told once and in order`, async (t) => {
    impatient(t);
    for (let cut = 0; cut < frames.length; cut++) {
      const { base, requests } = await serve(t, broken(PREAMBLE, ...frames.slice(0, cut)), whole(...frames.slice(cut)));
      const outcome = await readAll((options) => resumeStream(`${base}/streams/${ID}`, { transport, ...options }));
      assert.deepEqual(outcome, { told, texts: ["a", "b"], result: { finish: "stop" } }, `cut behind ${cut}`);
      assert.equal(requests.length, 2);
    }
  });

  test(`${transport}: a type that this client doesn't know is counted, and no text`, async (t) => {
    impatient(t);
    const call = event("tool-call", 1, { index: 0, name: "weather", arguments: "{" });
    const rest = [chunks(["b"], 2), done(3)];
    const { base, requests } = await serve(t, whole(PREAMBLE, chunks(["a"]), call, ...rest), whole(call, ...rest));
    const outcome = await readAll((options) => resumeStream(`${base}/streams/${ID}`, { transport, ...options }));
    assert.deepEqual(outcome, { told: ["a", "b"], texts: ["a", "b"], result: { finish: "stop" } });
    assert.equal(requests.length, transport === "fetch" ? 1 : 2, "EventSource doesn't show it: fetch goes on");
  });
}

test("the cursor is behind the reasoning that was told, and none is told twice by who resumes there", async (t) => {
  const { base, requests } = await serve(t, opening(PREAMBLE, thought("hm", 0), thought("so", 1)), whole(chunks(["a"], 2), done(3)));
  const leaving = new AbortController();
  const told = [];
  const stream = openStream(`${base}/chat`, { messages }, { signal: leaving.signal, onReasoning: (text) => told.push(text) });
  const outcome = read(stream);
  await until(() => told.length === 2);
  assert.equal(stream.cursor, `${ID}.1`);
  leaving.abort();
  await outcome;
  assert.deepEqual((await read(resumeStream(`${base}/streams/${ID}`, { cursor: stream.cursor, onReasoning: (text) => told.push(text) }))).texts, ["a"]);
  assert.deepEqual(told, ["hm", "so"]);
  assert.equal(requests[1].headers["last-event-id"], `${ID}.1`);
});

test("reasoning that `result` has read is kept for who iterates later", async (t) => {
  const { base } = await serve(t, whole(PREAMBLE, thought("hm", 0), chunks(["a"], 1), thought("so", 2), chunks(["b"], 3), done(4)));
  const told = [];
  const stream = openStream(`${base}/chat`, { messages }, { onReasoning: (text) => told.push(`(${text})`) });
  await stream.result;
  assert.deepEqual([told, stream.cursor], [[], ID]);
  for await (const text of stream) told.push(text);
  assert.deepEqual(told, ["(hm)", "a", "(so)", "b"]);
});

test("reasoning without text is an error, not a silent gap", async (t) => {
  const { base } = await serve(t, whole(PREAMBLE, event("reasoning", 0, { text: "hm" }), done(1)));
  assert.equal((await read(openStream(`${base}/chat`, { messages }))).error.type, "malformed");
});
