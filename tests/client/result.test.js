import assert from "node:assert/strict";
import { test } from "node:test";

import { openStream } from "../../public/stream.js";
import { broken, calm, chunks, done, ID, impatient, opening, PREAMBLE, read, refuse, serve, until, whole } from "./helpers.js";

const letters = Array.from("abcdefgh");
const POEM = whole(PREAMBLE, chunks(letters), done(letters.length));

test("`result` reads on by itself where nobody iterates", async (t) => {
  impatient(t);
  const { base, requests } = await serve(t, broken(PREAMBLE, chunks(letters.slice(0, 3))), whole(chunks(letters.slice(3), 3), done(8)));
  assert.deepEqual(await openStream(`${base}/simple`).result, { finish: "stop" });
  assert.equal(requests.length, 2);
});

test("`result` rejects with what ended the stream, though nobody iterates", async (t) => {
  const { base } = await serve(t, refuse(422));
  await assert.rejects(openStream(`${base}/simple`).result, { status: 422 });
});

test("what `result` has read is delivered to who iterates later, each text once and in order, with its cursor", async (t) => {
  const { base } = await serve(t, POEM);
  const stream = openStream(`${base}/simple`);
  await stream.result;
  assert.equal(stream.cursor, ID, "nothing is delivered yet");
  const cursors = [];
  for await (const text of stream) cursors.push([text, stream.cursor]);
  assert.deepEqual(cursors, letters.map((letter, n) => [letter, `${ID}.${n}`]));
});

test("asked for before the iteration, `result` takes no text from it, wherever the iteration begins", async (t) => {
  for (let late = 0; late < 8; late++) {
    const { base } = await serve(t, POEM);
    const stream = openStream(`${base}/simple`);
    const result = stream.result;
    for (let i = 0; i < late; i++) await new Promise((resolve) => { setImmediate(resolve); });
    assert.deepEqual(await read(stream), { texts: letters, result: { finish: "stop" } });
    assert.deepEqual(await result, { finish: "stop" });
  }
});

test("once somebody iterates, `result` reads nothing ahead: backpressure holds", async (t) => {
  let sent = 0;
  const { base } = await serve(t, (res) => {
    opening(PREAMBLE)(res);
    let n = 0;
    const more = () => {
      while (res.writable) {
        sent += 1 << 16;
        if (!res.write(chunks(["x".repeat(1 << 16)], n++))) break;
      }
    };
    res.on("drain", more);
    more();
  });
  const stream = openStream(`${base}/simple`);
  stream.result.catch(() => {});
  const texts = stream[Symbol.asyncIterator]();
  await texts.next();
  stream.result.catch(() => {});
  let before;
  do {
    before = sent;
    await calm();
  } while (sent > before);
  assert.ok(sent < 32 << 20, `${sent} bytes`);
  await texts.return();
});

test("after leaving, `result` rejects, and what it had read is not delivered", async (t) => {
  const { base, requests } = await serve(t, opening(PREAMBLE, chunks(["a", "b"])));
  const leaving = new AbortController();
  const stream = openStream(`${base}/simple`, {}, { signal: leaving.signal });
  const { result } = stream;
  await until(() => stream.state === "streaming");
  await calm();
  leaving.abort();
  await assert.rejects(result, { name: "AbortError" });
  assert.deepEqual((await read(stream)).texts, []);
  await until(() => requests[0].gone);
});
