import assert from "node:assert/strict";
import { test } from "node:test";

import { openStream, StreamError } from "../../public/stream.js";
import { createParser } from "../../public/vendor/eventsource-parser/index.js";
import { calm, fixtures, ID, impatient, read, refuse, serve, whole } from "./helpers.js";

/** Every piece arrives as a read of its own, which no socket promises. */
function stubFetch(t, pieces) {
  let asked = 0;
  t.mock.method(globalThis, "fetch", async () => {
    if (asked++) return new Response(null, { status: 404 });
    const left = [...pieces];
    const body = new ReadableStream({
      pull(controller) {
        const piece = left.shift();
        if (piece) controller.enqueue(piece);
        else controller.close();
      },
    });
    const response = new Response(body, { headers: { "content-type": "text/event-stream" } });
    return Object.defineProperty(response, "url", { value: "http://localhost/simple" });
  });
}

function check(fixture, { texts, result, error }) {
  assert.deepEqual(texts, fixture.chunks);
  if (fixture.end === "failed") {
    assert.ok(error instanceof StreamError);
    for (const member of ["type", "title", "detail", "retryable"]) assert.equal(error[member], fixture.problem[member]);
  } else if (fixture.end === "truncated") {
    assert.equal(error.status, 404, "resumed, in vain");
  } else {
    assert.equal(error, undefined);
    assert.deepEqual(result, fixture.result);
  }
}

for (const fixture of fixtures()) {
  test(`${fixture.name}: its \`events\` are what the parser dispatches`, () => {
    const events = [];
    let id = "";
    const parser = createParser({ onId: (at) => { id = at; }, onEvent: ({ event = "message", data }) => events.push({ event, id, data }) });
    parser.feed(fixture.bytes.toString());
    assert.deepEqual(events, fixture.events);
  });

  test(`fault 1-4: ${fixture.name}, through a socket: ${fixture.about}`, async (t) => {
    impatient(t);
    const { base } = await serve(t, whole(fixture.bytes), refuse(404));
    check(fixture, await read(openStream(`${base}/simple`)));
  });

  const step = fixture.bytes.length > 10_000 ? 997 : 1; // a prime: no period of the text hides behind it

  test(`fault 3: ${fixture.name}, ${step} byte(s) per read`, async (t) => {
    impatient(t);
    const pieces = [];
    for (let i = 0; i < fixture.bytes.length; i += step) pieces.push(fixture.bytes.subarray(i, i + step));
    stubFetch(t, pieces);
    check(fixture, await read(openStream("/simple")));
  });

  test(`fault 3: ${fixture.name}, in two reads, cut at every ${step}. byte`, async (t) => {
    impatient(t);
    for (let cut = 1; cut < fixture.bytes.length; cut += step) {
      stubFetch(t, [fixture.bytes.subarray(0, cut), fixture.bytes.subarray(cut)]);
      check(fixture, await read(openStream("/simple")));
      t.mock.restoreAll();
      impatient(t);
    }
  });
}

test("a BOM that belongs to the text stays in it", async (t) => {
  const { base } = await serve(t, whole("\uFEFFdata: \uFEFF{}\n\n"));
  const { error } = await read(openStream(`${base}/simple`));
  assert.equal(error.type, "malformed", "JSON doesn't begin with a BOM");
});

for (const [what, data] of [["no JSON", "oops"], ["no text", '{"text":1}'], ["text that is no string", '{"chunk":1}'], ["null", "null"]]) {
  test(`an event with ${what} is an error, not a silent gap`, async (t) => {
    impatient(t);
    const { base, requests } = await serve(t, whole(`data: {"chunk":"a"}\n\ndata: ${data}\n\n`));
    const { texts, error } = await read(openStream(`${base}/simple`));
    assert.deepEqual(texts, ["a"]);
    assert.equal(error.type, "malformed");
    assert.equal(error.retryable, false);
    await calm();
    assert.equal(requests.length, 1);
  });
}

test("an event without a number, in a stream with ids, might be an old one: an error", async (t) => {
  const { base } = await serve(t, whole(`id: ${ID}\n\ndata: {"chunk":"a"}\n\n`));
  const { texts, error } = await read(openStream(`${base}/simple`));
  assert.deepEqual(texts, []);
  assert.equal(error.type, "malformed");
});

test("an endless event is an error, not an endless buffer", async (t) => {
  const { base } = await serve(t, (res) => {
    res.writeHead(200, { "content-type": "text/event-stream" });
    res.write("data: ");
    const more = () => { while (res.writable && res.write("x".repeat(1 << 16))); };
    res.on("drain", more);
    more();
  });
  const { error } = await read(openStream(`${base}/simple`));
  assert.equal(error.type, "malformed");
});
