import assert from "node:assert/strict";
import { test } from "node:test";

import { openStream, resumeStream } from "../../public/stream.js";
import {
  broken, calm, chunks, done, event, fixtures, hangUp, HEARTBEAT, ID, ID_ONLY, impatient, noContent, numbered, opened, opening, page, PREAMBLE, read, refuse, serve, until, whole,
} from "./helpers.js";

const OTHER = "b-0123456789ABCDEFabcdef";

test("a broken stream is resumed from its last event, at its own address, without a second start", async (t) => {
  impatient(t);
  const { base, requests } = await serve(t, broken(PREAMBLE, chunks(["a", "b"])), whole(PREAMBLE, chunks(["c"], 2), done(3)));
  const changes = [];
  const { texts } = await read(openStream(`${base}/simple`, {}, { onState: (change) => changes.push(change) }));
  assert.deepEqual(texts, ["a", "b", "c"]);
  assert.equal(requests[1].method, "GET");
  assert.equal(requests[1].url, `/streams/${ID}`);
  assert.equal(requests[1].headers["last-event-id"], `${ID}.1`);
  assert.equal(requests[1].headers.accept, "text/event-stream");
  assert.equal(requests.length, 2);
  assert.deepEqual(changes.map(({ state }) => state), ["streaming", "reconnecting", "streaming", "done"]);
  assert.equal(changes[1].error.type, "truncated");
  assert.equal(changes[1].delay, 0);
});

for (const name of ["framed", "crlf", "cr"]) {
  test(`fault 3, 5: ${name}, ended or broken off at every byte and resumed: each chunk once, in order`, async (t) => {
    impatient(t);
    const [{ bytes, chunks: expected, events, result }] = fixtures(name);
    /** What a server sends behind a cursor. */
    const behind = (last) => numbered(events).slice(last + 1)
      .map(({ event, id, data }) => `event: ${event}\nid: ${id}\ndata: ${data}\n\n`).join("");
    for (let cut = 0; cut < bytes.length; cut++) {
      const resume = (res, { method, headers }) => method === "POST" // broken off before its id, it is started again, with its key
        ? whole(bytes)(res)
        : whole(PREAMBLE + behind(Number(headers["last-event-id"].split(".")[1] ?? -1)))(res);
      const first = [whole, broken][cut % 2];
      const { base } = await serve(t, first(bytes.subarray(0, cut)), resume);
      const stream = openStream(`${base}/simple`);
      const outcome = await read(stream);
      if (stream.id) {
        assert.deepEqual(outcome, { texts: expected, result }, `cut at ${cut}`);
      } else { // ended, and had no event at all
        assert.ok(first === whole && cut < bytes.indexOf(`${ID}.0`), `cut at ${cut}`);
        assert.equal(outcome.error.type, "malformed");
      }
    }
  });
}

test("fault 5: what a server repeats is dropped", async (t) => {
  impatient(t);
  const { base } = await serve(t, broken(PREAMBLE, chunks(["a", "b"])), whole(PREAMBLE, chunks(["a", "b", "c"]), done(3)));
  assert.deepEqual((await read(openStream(`${base}/simple`))).texts, ["a", "b", "c"]);
});

test("a gap breaks the connection, and the stream is resumed from the last event before it", async (t) => {
  impatient(t);
  const { base, requests } = await serve(t, opening(PREAMBLE, chunks(["a"]), chunks(["c"], 2)), whole(PREAMBLE, chunks(["b", "c"], 1), done(3)));
  const { texts } = await read(openStream(`${base}/simple`));
  assert.deepEqual(texts, ["a", "b", "c"]);
  assert.equal(requests[1].headers["last-event-id"], `${ID}.0`);
  await until(() => requests[0].gone);
});

test("a gap before the terminal event is a gap too", async (t) => {
  impatient(t);
  const { base } = await serve(t, whole(PREAMBLE, chunks(["a"]), done(2)), whole(PREAMBLE, chunks(["b"], 1), done(2)));
  assert.deepEqual((await read(openStream(`${base}/simple`))).texts, ["a", "b"]);
});

test("an event of another stream is never delivered", async (t) => {
  impatient(t);
  const { base } = await serve(t,
    broken(PREAMBLE, chunks(["a"])),
    whole(`id: ${OTHER}.1\ndata: {"chunk":"x"}\n\n`),
    whole(chunks(["b"], 1), done(2)));
  assert.deepEqual((await read(openStream(`${base}/simple`))).texts, ["a", "b"]);
});

for (const [what, preamble] of [["the opening event's id", PREAMBLE], ["an id without data", ID_ONLY]]) {
  test(`fault 13: ${what} is a cursor before the first token`, async (t) => {
    impatient(t);
    const { base, requests } = await serve(t, broken(preamble), whole(preamble, chunks(["a"]), done(1)));
    assert.deepEqual((await read(openStream(`${base}/simple`))).texts, ["a"]);
    assert.equal(requests[1].method, "GET");
    assert.equal(requests[1].headers["last-event-id"], ID);
  });
}

test("a resumed response opens with the cursor, which is no event of the stream", async (t) => {
  impatient(t);
  const { base, requests } = await serve(t,
    broken(PREAMBLE, chunks(["a"])),
    broken(opened(`${ID}.0`, 1)),
    whole(opened(`${ID}.0`, 1), chunks(["b"], 1), HEARTBEAT, done(2)));
  assert.deepEqual(await read(openStream(`${base}/simple`)), { texts: ["a", "b"], result: { finish: "stop" } });
  assert.deepEqual(requests.slice(1).map(({ headers }) => headers["last-event-id"]), [`${ID}.0`, `${ID}.0`]);
});

test("an opening event of another stream breaks the connection", async (t) => {
  impatient(t);
  const { base } = await serve(t,
    broken(PREAMBLE, chunks(["a"])),
    whole(opened(OTHER), `data: {"chunk":"x"}\n\n`),
    whole(chunks(["b"], 1), done(2)));
  assert.deepEqual((await read(openStream(`${base}/simple`))).texts, ["a", "b"]);
});

test("another server's event of type `stream` is not text", async (t) => {
  const { base } = await serve(t, whole('event: stream\ndata: hello\n\ndata: {"chunk":"a"}\n\n'));
  assert.deepEqual(await read(openStream(`${base}/simple`)), { texts: ["a"], result: {} });
});

test("the header Content-Location is one too", async (t) => {
  impatient(t);
  const headersOnly = (res) => {
    res.writeHead(200, { "content-type": "text/event-stream", "content-location": `/streams/${ID}` });
    res.end();
  };
  const { base, requests } = await serve(t, headersOnly, whole(PREAMBLE, chunks(["a"]), done(1)));
  assert.deepEqual((await read(openStream(`${base}/simple`))).texts, ["a"]);
  assert.equal(requests[1].url, `/streams/${ID}`);
});

for (const status of [429, 500, 502, 503, 504, 522]) {
  test(`a resume that is answered with ${status} is tried again`, async (t) => {
    impatient(t);
    const { base, requests } = await serve(t, broken(PREAMBLE, chunks(["a"])), hangUp, ...Array(9).fill(refuse(status)), whole(chunks(["b"], 1), done(2)));
    assert.deepEqual((await read(openStream(`${base}/simple`))).texts, ["a", "b"]);
    assert.equal(requests.length, 12);
    assert.equal(requests[11].headers["last-event-id"], `${ID}.0`);
  });
}

for (const [what, answer] of [["a page that is no stream", page], ["a stream that ends at once", whole()]]) {
  test(`a resume that is answered with ${what} is tried again`, async (t) => {
    impatient(t);
    const { base, requests } = await serve(t, broken(PREAMBLE, chunks(["a"])), answer, answer, whole(chunks(["b"], 1), done(2)));
    assert.deepEqual((await read(openStream(`${base}/simple`))).texts, ["a", "b"]);
    assert.deepEqual(requests.map(({ method }) => method), ["POST", "GET", "GET", "GET"]);
  });
}

for (const [status, name] of [[400, "bad-cursor"], [404, "expired"], [404, "not-found"]]) {
  test(`fault 7: a resume that is answered with ${status} ${name} is final, and throws: what is there is not the whole`, async (t) => {
    impatient(t);
    const { base, requests } = await serve(t, broken(PREAMBLE, chunks(["a"])), refuse(status, { type: `/problems/${name}` }));
    const { texts, error } = await read(openStream(`${base}/simple`));
    assert.deepEqual(texts, ["a"]);
    assert.equal(error.type, `/problems/${name}`);
    await calm();
    assert.equal(requests.length, 2);
  });
}

test("fault 7: resumed at its end, a stream is answered with 204 and is done", async (t) => {
  const { base, requests } = await serve(t, noContent);
  const stream = resumeStream(`${base}/streams/${ID}`, { cursor: `${ID}.7` });
  assert.deepEqual(await read(stream), { texts: [], result: {} });
  assert.equal(stream.state, "done");
  assert.equal(requests[0].headers["last-event-id"], `${ID}.7`);
});

test("fault 9: another page follows a stream from its start, or from the middle", async (t) => {
  const all = whole(PREAMBLE, chunks(["a", "b"]), done(2));
  const rest = whole(PREAMBLE, chunks(["b"], 1), done(2));
  const { base, requests } = await serve(t, all, rest);
  assert.deepEqual((await read(resumeStream(`${base}/streams/${ID}`))).texts, ["a", "b"]);
  assert.deepEqual((await read(resumeStream(`${base}/streams/${ID}`, { cursor: `${ID}.0` }))).texts, ["b"]);
  assert.deepEqual(requests.map(({ method }) => method), ["GET", "GET"]);
  assert.deepEqual(requests.map(({ headers }) => headers["last-event-id"]), [ID, `${ID}.0`]);
});

test("the cursor is that of the last text the consumer got: one read ahead is not counted, nor are other events", async (t) => {
  const ping = `event: ping\nid: ${ID}.2\ndata\n\n`;
  const { base } = await serve(t, whole(PREAMBLE, chunks(["a", "b"]), ping, event("failed", 3, { type: "/problems/abandoned" })));
  const stream = openStream(`${base}/simple`);
  const texts = stream[Symbol.asyncIterator]();
  await until(() => stream.id);
  await calm();
  assert.equal(stream.cursor, ID);
  assert.deepEqual([(await texts.next()).value, stream.cursor], ["a", `${ID}.0`]);
  assert.deepEqual([(await texts.next()).value, stream.cursor], ["b", `${ID}.1`]);
  await assert.rejects(texts.next(), { type: "/problems/abandoned" });
  assert.equal(stream.cursor, `${ID}.1`);
});

test("asked for several texts at once, the cursor counts each", async (t) => {
  const { base } = await serve(t, whole(PREAMBLE, chunks(["a", "b", "c"]), done(3)));
  const stream = openStream(`${base}/simple`);
  const texts = stream[Symbol.asyncIterator]();
  const cursors = await Promise.all([1, 2, 3].map(() => texts.next().then(({ value }) => [value, stream.cursor])));
  assert.deepEqual(cursors, [["a", `${ID}.0`], ["b", `${ID}.1`], ["c", `${ID}.2`]]);
});

for (const transport of ["fetch", "eventsource"]) {
  test(`${transport}: resumed at its cursor, a failed stream fails again, and never looks done`, async (t) => {
    const failed = event("failed", 1, { type: "/problems/idle-timeout", retryable: true });
    const { base, requests } = await serve(t, whole(PREAMBLE, chunks(["a"]), failed), whole(failed));
    const stream = openStream(`${base}/simple`, {}, { transport });
    const first = await read(stream);
    const again = await read(resumeStream(stream.url, { cursor: stream.cursor, transport }));
    assert.deepEqual([first.texts, again.texts], [["a"], []]);
    for (const { error } of [first, again]) assert.equal(error.type, "/problems/idle-timeout");
    const { headers, url } = requests[1];
    assert.equal(headers["last-event-id"] ?? url.split("=")[1], `${ID}.0`);
  });
}

test("fault 17: the origin restarts without its journal: an error, never a finished answer", async (t) => {
  impatient(t);
  const { base } = await serve(t, broken(PREAMBLE, chunks(["a"])), refuse(503), refuse(404, { type: "/problems/not-found" }));
  const { texts, error } = await read(openStream(`${base}/simple`));
  assert.deepEqual(texts, ["a"]);
  assert.equal(error.status, 404);
});

test("fault 17: the generating origin died: `interrupted`, not a finished answer", async (t) => {
  impatient(t);
  const { base } = await serve(t, broken(PREAMBLE, chunks(["a"])), whole(event("failed", 1, { type: "/problems/interrupted", retryable: true })));
  const { error } = await read(openStream(`${base}/simple`));
  assert.equal(error.type, "/problems/interrupted");
});
