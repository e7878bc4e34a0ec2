// What browsers, runtimes and proxies do that the standard case does not show.

import assert from "node:assert/strict";
import { createServer, request as httpRequest } from "node:http";
import { test } from "node:test";

import { openStream, resumeStream, StreamError } from "../../public/stream.js";
import { broken, calm, chunks, done, ID, impatient, noContent, opening, PREAMBLE, read, serve, until, whole } from "./helpers.js";

const POEM = whole(PREAMBLE, chunks(["a"]), done(1));

/** A site that serves a server's `/…` as its own `/ai/…`, and knows nothing else. */
async function prefixed(t, base, prefix = "/ai") {
  const asked = [];
  const server = createServer((req, res) => {
    asked.push(`${req.method} ${req.url}`);
    if (!req.url.startsWith(`${prefix}/`)) return res.writeHead(404).end("not ours");
    const onward = httpRequest(base + req.url.slice(prefix.length), { method: req.method, headers: req.headers }, (answer) => {
      res.writeHead(answer.statusCode, answer.headers);
      answer.pipe(res);
      answer.on("aborted", () => res.destroy());
    });
    onward.on("error", () => res.destroy());
    req.pipe(onward);
  });
  await new Promise((resolve) => { server.listen(0, "127.0.0.1", () => resolve(undefined)); });
  t.after(() => { server.closeAllConnections(); server.close(); });
  return { site: `http://127.0.0.1:${server.address().port}`, asked };
}

for (const transport of ["fetch", "eventsource"]) {
  for (const path of ["/ai/simple", "/ai/simple/", "/ai/prompts/haiku", "/ai/simple?x=1#top"]) {
    test(`${transport}: behind a path prefix, ${path} is resumed and stopped under the prefix`, async (t) => {
      impatient(t);
      let reader;
      const { base } = await serve(t, broken(PREAMBLE, chunks(["a"])), (res) => { reader = res; opening(PREAMBLE)(res); },
        (res) => { noContent(res); reader.end(done(1, { finish: "stopped" })); });
      const { site, asked } = await prefixed(t, base);
      const stream = openStream(site + path, {}, { transport });
      const outcome = read(stream);
      await until(() => reader && stream.state === "streaming");
      assert.equal(stream.url, `${site}/ai/streams/${ID}`);
      await stream.stop();
      assert.deepEqual(await outcome, { texts: ["a"], result: { finish: "stopped" } });
      assert.deepEqual(asked.slice(1).map((line) => line.split("?")[0]), [`GET /ai/streams/${ID}`, `DELETE /ai/streams/${ID}`]);
    });
  }
}

for (const [path, options, expected] of [
  ["/api/poem", {}, "/streams/"],
  ["/api/poem", { base: "/ai" }, "/ai/streams/"],
  ["/api/poem", { base: "/ai/" }, "/ai/streams/"],
  ["/ai/simple", { base: "" }, "/streams/"],
  ["/simple/more", {}, "/streams/"],
  ["/prompts/simple", {}, "/streams/"],
  ["/prompts/a/simple", {}, "/prompts/a/streams/"],
]) {
  test(`a start at ${path}${options.base === undefined ? "" : ` with the base "${options.base}"`} is followed at ${expected}`, async (t) => {
    const { base } = await serve(t, POEM);
    const own = options.base === undefined ? {} : { base: options.base && base + options.base };
    const stream = openStream(base + path, {}, own);
    await read(stream);
    assert.equal(stream.url, (options.base === "" ? "" : base) + expected + ID);
  });
}

test("a stream is resumed under the address it was given, prefix and all", async (t) => {
  const { base, requests } = await serve(t, POEM, POEM);
  await read(resumeStream(`${base}/ai/streams/${ID}`));
  await read(resumeStream(`${base}/ai/streams/${ID}.0`));
  assert.deepEqual(requests.map(({ url }) => url), [`/ai/streams/${ID}`, `/ai/streams/${ID}`]);
  assert.equal(requests[1].headers["last-event-id"], `${ID}.0`);
});

/** An answer without an address, as service workers and tests make them. */
function answers(t, body, headers = {}) {
  const asked = [];
  t.mock.method(globalThis, "fetch", async (url, { method = "GET" } = {}) => {
    asked.push(`${method} ${url}`);
    if (method === "DELETE") return new Response(null, { status: 204 });
    const response = new Response(typeof body === "string" ? body : "", { headers: { "content-type": "text/event-stream", ...headers } });
    if (typeof body === "string") return response;
    return body(response);
  });
  return asked;
}

test("an answer that has no address of its own is followed at the start's", async (t) => {
  impatient(t);
  const asked = answers(t, PREAMBLE + chunks(["a"]) + done(1));
  const stream = openStream("/ai/simple");
  assert.deepEqual((await read(stream)).texts, ["a"]);
  assert.equal(stream.url, `/ai/streams/${ID}`);
  assert.deepEqual(asked, ["POST /ai/simple"]);
});

for (const [what, spoil] of [
  ["no body (React Native)", (response) => Object.defineProperty(response, "body", { value: undefined })],
  ["a locked body (what wraps fetch reads it)", (response) => { response.body.getReader(); return response; }],
]) {
  test(`a fetch whose answer has ${what} is an error that says what to do, and nothing is left running`, async (t) => {
    const asked = answers(t, spoil, { "content-location": `/streams/${ID}` });
    const { error } = await read(openStream("/simple"));
    assert.ok(error instanceof StreamError);
    assert.equal(error.type, "unsupported");
    assert.match(error.message, /transport "eventsource"/);
    assert.equal(error.retryable, false);
    await calm();
    assert.deepEqual(asked, ["POST /simple", `DELETE /streams/${ID}`]);
  });
}

test("half of a surrogate pair is sent as U+FFFD, over both transports", async (t) => {
  const { base, requests } = await serve(t, POEM, POEM);
  const topic = `${"🦉".slice(0, 1)} and ${"🦉".slice(1)} and 🦉 and \\ud83e`;
  const sent = "\ufffd and \ufffd and 🦉 and \\ud83e";
  await read(openStream(`${base}/simple`, { topic }));
  await read(openStream(`${base}/simple`, { topic }, { transport: "eventsource" }));
  assert.deepEqual(JSON.parse(requests[0].body), { topic: sent });
  assert.equal(new URL(requests[1].url, base).searchParams.get("topic"), sent);
});

test("an ended stream doesn't keep Node running", async (t) => {
  const timers = t.mock.method(globalThis, "setTimeout").mock;
  const { base } = await serve(t, opening(PREAMBLE, chunks(["a"]), done(1)));
  await read(openStream(`${base}/simple`));
  const left = timers.calls.map(({ result }) => result).filter((timer) => timer.hasRef() && !timer._destroyed);
  assert.deepEqual(left, []);
});

test("an endless error body is not read to its end", async (t) => {
  let sent = 0;
  const { base, requests } = await serve(t, (res) => {
    res.writeHead(400, { "content-type": "application/problem+json" });
    const more = () => { while (res.writable && res.write(" ".repeat(1 << 16))) sent += 1 << 16; };
    res.on("drain", more);
    more();
  });
  const { error } = await read(openStream(`${base}/simple`));
  assert.equal(error.status, 400);
  assert.equal(error.title, "HTTP 400");
  await until(() => requests[0].gone);
  assert.ok(sent < 32 << 20, `${sent} bytes`);
});

test("fault 40: a proxy that ends a cut body cleanly doesn't make the answer look whole", async (t) => {
  impatient(t);
  const { base } = await serve(t, whole(PREAMBLE, chunks(["a"])), whole(chunks(["b"], 1)), whole(chunks(["c"], 2), done(3)));
  const states = [];
  const { texts } = await read(openStream(`${base}/simple`, {}, { onState: ({ state, error }) => states.push(error?.type ?? state) }));
  assert.deepEqual(texts, ["a", "b", "c"]);
  assert.deepEqual(states, ["streaming", "truncated", "streaming", "truncated", "streaming", "done"]);
});
