// Bodies of chats at the edge: what a request's may be and how it crosses, and an answer's in one piece.

import { randomBytes } from "node:crypto";
import { request as requestOf } from "node:http";
import { COMPLETIONS, ID, LIMIT_BYTES, OPEN, conversation, either, expect, expectOpenAiError, expectOwnProblem, inParts, post, test } from "./chats.js";
import { fakeOrigin } from "./servers.js";
import { ask } from "./streams.js";
import { spawnWorkerd } from "./workerd.js";

test.describe("a body", () => {
  for (const path of [COMPLETIONS, "/chat"]) {
    test(`of 1 MiB at ${path} crosses byte for byte, with and without a declared length`, async ({ start, behind }) => {
      const origin = await start(fakeOrigin(either));
      const edge = await behind(OPEN, origin);
      const bytes = randomBytes(LIMIT_BYTES);
      for (const headers of [{ "content-length": LIMIT_BYTES }, { "transfer-encoding": "chunked" }]) {
        const answer = await ask(edge.url + path, { method: "POST", headers: { "content-type": "application/json", ...headers }, write: (request) => inParts(request, bytes) });
        expect(answer.status).toBe(200);
        const { bytes: got, headers: sent } = origin.requests.at(-1);
        expect(got.equals(bytes)).toBe(true);
        expect([sent["content-length"], sent["content-type"]]).toEqual([String(LIMIT_BYTES), "application/json"]);
      }
    });

    test(`over 1 MiB at ${path} is a 413: by its declared length at once, by its bytes as soon as there is one too many`, async ({ start, behind }) => {
      const origin = await start(fakeOrigin(either));
      const edge = await behind(OPEN, origin);
      const expect413 = (answer) => path === "/chat"
        ? expectOwnProblem(answer, 413, "too-large")
        : expectOpenAiError(answer, 413, "too-large", { code: "request_too_large" });
      const declared = await ask(edge.url + path, {
        method: "POST", headers: { "content-length": LIMIT_BYTES + 1 }, write: (request) => request.write("{"), // and no more, ever
      });
      expect413(declared);
      expect(JSON.stringify(declared.document)).toContain("1024 KiB");
      let sent = 0;
      expect413(await ask(edge.url + path, {
        method: "POST",
        headers: { "transfer-encoding": "chunked" },
        write(request) {
          const more = () => {
            if (request.destroyed) return;
            request.write(Buffer.alloc(16 * 1024, " "));
            sent += 16 * 1024;
            setTimeout(more, 2); // without end
          };
          more();
        },
      }));
      expect(sent).toBeGreaterThan(LIMIT_BYTES);
      expect(origin.requests).toEqual([]);
    });
  }

  test("that doesn't come is a 400 after 30 s, in each shape", async ({ start, behind }) => {
    const origin = await start(fakeOrigin(either));
    const edge = await behind(OPEN, origin);
    const since = performance.now();
    const drip = (request) => {
      const timer = setInterval(() => request.destroyed ? clearInterval(timer) : request.write(" "), 200);
    };
    const slow = (path) => ask(edge.url + path, { method: "POST", headers: { "content-type": "application/json", "transfer-encoding": "chunked" }, write: drip });
    const [openai, own] = await Promise.all([slow(COMPLETIONS), slow("/chat")]);
    expectOpenAiError(openai, 400, "bad-request");
    expectOwnProblem(own, 400, "bad-request");
    expect(performance.now() - since).toBeGreaterThanOrEqual(29_900);
    expect(origin.requests).toEqual([]);
  });

  test("that its client breaks off reaches no origin", async ({ start, behind }) => {
    const origin = await start(fakeOrigin(either));
    const edge = await behind(OPEN, origin);
    for (const headers of [{ "content-length": 1_000 }, { "transfer-encoding": "chunked" }]) {
      await new Promise((resolve) => {
        const request = requestOf(edge.url + COMPLETIONS, { method: "POST", agent: false, headers });
        request.once("error", resolve).once("close", resolve);
        request.write('{"messages":', () => setTimeout(() => request.destroy(), 100));
      });
    }
    expect((await fetch(edge.url + COMPLETIONS, post())).status).toBe(200);
    expect(origin.requests.map(({ body }) => body)).toEqual([JSON.stringify(conversation)]);
  });

  // The memory of wasm never shrinks: whatever had been copied into it would show.
  test("stays out of wasm's memory, however long", async ({ start }) => {
    const origin = await start(fakeOrigin(either));
    const around = `
      const { Instance } = WebAssembly;
      let memory;
      WebAssembly.Instance = function (...parts) {
        const instance = new Instance(...parts);
        memory = instance.exports.memory;
        return instance;
      };
      const { default: Edge } = await import("./index.js");
      export default {
        fetch: (request, env, context) => new URL(request.url).pathname === "/memory"
          ? new Response(String(memory.buffer.byteLength))
          : new Edge(context, env).fetch(request),
      };`;
    const edge = await start(spawnWorkerd({ origins: { a: origin.url }, vars: OPEN, around }));
    const memory = async () => Number(await (await fetch(`${edge.url}/memory`)).text());
    const send = (body) => fetch(edge.url + COMPLETIONS, post(body));
    await Promise.all(Array.from({ length: 20 }, () => send("{}")));
    const before = await memory();
    expect(before).toBeGreaterThan(0);
    const long = "x".repeat(LIMIT_BYTES);
    await Promise.all(Array.from({ length: 20 }, () => send(long)));
    expect(origin.requests.filter(({ body }) => body.length === LIMIT_BYTES)).toHaveLength(20);
    expect(await memory()).toBe(before);
  });
});

test("a JSON answer is piped as it comes: the spaces before it are its signs of life", async ({ start, behind }) => {
  const head = { "content-type": "application/json", "x-request-id": ID, "cache-control": "no-cache, no-transform" };
  const { promise: beginning, resolve: begin } = Promise.withResolvers();
  const edge = await behind(OPEN, await start(fakeOrigin((response) => begin(response.writeHead(200, head)))));
  const answering = fetch(edge.url + COMPLETIONS, post({ ...conversation, stream: false }));
  const response = await beginning;
  response.write(" ");
  const answer = await answering;
  expect([answer.status, answer.headers.get("x-request-id")]).toEqual([200, ID]);
  const parts = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  const completion = '{"object":"chat.completion"}';
  // Each part is written when the one before it has been read.
  for (const next of [" ", " ", completion]) {
    expect(await parts.read()).toEqual({ done: false, value: " " });
    response.write(next);
  }
  expect(await parts.read()).toEqual({ done: false, value: completion });
  response.end();
  expect(await parts.read()).toEqual({ done: true });
});

test("a JSON answer that its origin breaks off is broken off", async ({ start, behind }) => {
  const origin = await start(fakeOrigin((response) => {
    response.writeHead(200, { "content-type": "application/json" }).write(" ", () => setTimeout(() => response.destroy(), 100));
  }));
  const edge = await behind(OPEN, origin);
  const answer = await fetch(edge.url + COMPLETIONS, post());
  await expect(answer.text()).rejects.toThrow();
});
