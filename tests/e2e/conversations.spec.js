// Chats at the edge: who may, what crosses in both directions, and what the edge says by itself, in its own shape and in
// OpenAI's. An edge for each test, under `workerd serve`, before origins that say what the test wants.

import { randomBytes } from "node:crypto";
import { request as requestOf } from "node:http";
import { expect, test as base } from "./fixtures.js";
import { KEY, OTHER_KEY, SECRET, digest, fakeOrigin, spawnEdge } from "./servers.js";
import { ask, problem, raw } from "./streams.js";
import { spawnWorkerd } from "./workerd.js";

const LIMIT_BYTES = 1024 * 1024;
const CALLER = digest(KEY).slice(0, 16);
const KEYED = { EDGE_KEYS: `${digest(OTHER_KEY)}, ${digest(KEY)}` };
const OPEN = { CHAT: "open" };
const APP = "https://app.example";
const ID = "a-0123456789ABCDEFabcdef";
const COMPLETIONS = "/v1/chat/completions";

const STREAM = 'data: {"choices":[]}\n\ndata: [DONE]\n\n';
const stream = (response) => response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8" }).end(STREAM);
const json = (document, status = 200, headers = {}) => (response) =>
  response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(document));
/** A problem as an origin tells it to OpenAI's clients. */
const told = (status, kind, headers = {}) => json({ error: { message: "told", type: "t", param: "p", code: kind } }, status, {
  "headwater-problem": kind, "x-should-retry": "false", ...headers,
});
/** What any path is answered with by an origin that has both shapes. */
const either = (response, { url }) => url === COMPLETIONS ? stream(response) : response.writeHead(200, { "content-type": "text/event-stream" }).end('data: {"chunk":"fine"}\n\n');

const conversation = { messages: [{ role: "user", content: "Name a river." }] };
const post = (body = conversation, headers = {}) => ({
  method: "POST", headers: { "content-type": "application/json", ...headers }, body: typeof body === "string" ? body : JSON.stringify(body),
});

const test = base.extend({
  /** An edge before one origin, or two. */
  behind: async ({ start }, use) => {
    await use((vars, ...origins) => start(spawnWorkerd({
      origins: Object.fromEntries(origins.map(({ url }, index) => ["ab"[index], url])), vars,
    })));
  },
});

/** @param {{ status: number, headers: Headers | Record<string, string>, document: any }} answer */
function expectOpenAiError({ status, headers, document }, expected, kind, { code = null, retry = "false", type = "invalid_request_error" } = {}) {
  const header = (name) => headers instanceof Headers ? headers.get(name) : headers[name] ?? null;
  expect([status, header("headwater-problem"), header("x-should-retry")]).toEqual([expected, kind, retry]);
  expect(header("content-type")).toBe("application/json");
  expect(header("cache-control")).toBe("no-store");
  expect(document).toEqual({ error: { message: expect.stringMatching(/\w{3}/), type, param: null, code } });
}

function expectOwnProblem({ status, headers, document }, expected, kind, instance = "/chat") {
  expect(status).toBe(expected);
  expect(document).toMatchObject({ type: `/problems/${kind}`, status: expected, instance });
  expect((headers.get?.("content-type") ?? headers["content-type"])).toBe("application/problem+json");
}

test.describe("a deployment that says nothing", () => {
  test("holds no chats: a 401 in each shape says what to set, and nothing reaches an origin", async ({ start, behind }) => {
    const origin = await start(fakeOrigin(either));
    const edge = await behind({}, origin);
    for (const headers of [{}, { authorization: `Bearer ${KEY}` }, { "x-api-key": KEY }, { authorization: `Bearer ${SECRET}` }]) {
      for (const [path, init] of [[COMPLETIONS, post(conversation, headers)], ["/v1/models", { headers }], ["/v1/models/x", { headers }], ["/v1/nonsense", { headers }]]) {
        const answer = await problem(edge.url + path, init);
        expectOpenAiError(answer, 401, "unauthorised", { code: "invalid_api_key" });
        expect(answer.document.error.message).toMatch(/CHAT = "open".*EDGE_KEYS/);
        expect(answer.headers.get("www-authenticate")).toBe("Bearer");
      }
      for (const init of [post(conversation, headers), { headers: { ...headers, "last-event-id": `${ID}.0` } }]) {
        const answer = await problem(`${edge.url}/chat`, init);
        expectOwnProblem(answer, 401, "unauthorised");
        expect(answer.document.detail).toMatch(/CHAT = "open".*EDGE_KEYS/);
        expect(answer.headers.get("www-authenticate")).toBe("Bearer");
      }
    }
    expect(origin.requests).toEqual([]);
    expect((await fetch(`${edge.url}/simple`)).status, "prompts are the owner's own").toBe(200);
    expect((await problem(`${edge.url}/healthz`)).document).toEqual({ status: "ok", origins: { a: "ok" } });
  });

  for (const [setting, value] of [["CHAT", "yes"], ["EDGE_KEYS", KEY]]) {
    test(`is one whose ${setting} is wrong: that is named, its value is not`, async ({ start, behind }) => {
      const origin = await start(fakeOrigin(either));
      const edge = await behind({ [setting]: value }, origin);
      const answer = await problem(edge.url + COMPLETIONS, post(conversation, { authorization: `Bearer ${KEY}` }));
      expect(answer.status).toBe(401);
      const health = await problem(`${edge.url}/healthz`);
      expect([health.status, health.document.wrong_settings]).toEqual([200, [setting]]);
      await expect.poll(edge.output).toContain(`settings: ${setting} `);
      if (setting === "EDGE_KEYS") expect(edge.output() + health.text + answer.text).not.toContain(value);
      expect(origin.requests).toEqual([]);
    });
  }
});

test.describe("an open edge", () => {
  test("passes a conversation on by its listed headers, and neither a credential nor a word of its own for the client's", async ({ start, behind }) => {
    const origin = await start(fakeOrigin(either));
    const edge = await behind(OPEN, origin);
    const headers = {
      authorization: `Bearer ${KEY}`, "x-api-key": KEY, cookie: "a=b", "openai-organization": "o", "x-stainless-os": "Linux",
      "x-headwater-caller": "0000000000000000", "x-headwater-attempt": "0123456789abcdef", "x-headwater-x": "1",
      "idempotency-key": "a-key-of-the-tests-1", traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
      accept: "application/json", "content-type": "application/json; charset=utf-8", "last-event-id": "",
    };
    for (const path of [COMPLETIONS, "/chat"]) {
      const answer = await fetch(edge.url + path, { ...post(), headers });
      expect(answer.status).toBe(200);
      const { method, url, headers: sent, rawHeaders, body } = origin.requests.at(-1);
      expect([method, url, body]).toEqual(["POST", path, JSON.stringify(conversation)]);
      expect(sent).toMatchObject({
        accept: "application/json", "content-type": "application/json; charset=utf-8", "idempotency-key": "a-key-of-the-tests-1",
        traceparent: headers.traceparent, authorization: `Bearer ${SECRET}`, "accept-encoding": "identity",
        "content-length": String(JSON.stringify(conversation).length),
      });
      expect(Object.keys(sent).filter((name) => /^x-|cookie|openai|last-event/.test(name))).toEqual([]);
      expect(rawHeaders.join()).not.toContain(KEY);
    }
  });

  test("doesn't judge what a body is: the origin does", async ({ start, behind }) => {
    const origin = await start(fakeOrigin(told(415, "not-json")));
    const edge = await behind(OPEN, origin);
    const answer = await problem(edge.url + COMPLETIONS, { method: "POST", headers: { "content-type": "text/plain" }, body: "hello" });
    expect([answer.status, answer.document.error.message]).toEqual([415, "told"]);
    const none = await problem(edge.url + COMPLETIONS, { method: "POST" });
    expect(none.status).toBe(415);
    expect(origin.requests.map(({ headers, body }) => [headers["content-type"], body])).toEqual([["text/plain", "hello"], [undefined, ""]]);
  });

  test("passes on what an origin says of an answer, and nothing else", async ({ start, behind }) => {
    const listed = {
      "x-request-id": ID, "content-location": `/streams/${ID}`, "headwater-ignored": "seed, presence_penalty", "cache-control": "no-cache, no-transform",
      "x-should-retry": "false", "retry-after": "7",
    };
    const origin = await start(fakeOrigin((response) => response.writeHead(200, { "content-type": "text/event-stream", ...listed, "set-cookie": "a=b", "x-headwater-caller": "x" }).end(STREAM)));
    const edge = await behind(OPEN, origin);
    const answer = await fetch(edge.url + COMPLETIONS, post());
    expect(await answer.text()).toBe(STREAM);
    expect(Object.fromEntries(answer.headers)).toMatchObject({ ...listed, "server-timing": 'origin;desc="a"' });
    for (const name of ["set-cookie", "x-headwater-caller"]) expect(answer.headers.get(name)).toBeNull();
  });

  test("resumes at /chat as at /streams/ID, by GET and by POST, whatever the rest of the request says", async ({ start, behind }) => {
    const origin = await start(fakeOrigin((response) => response.writeHead(200, { "content-type": "text/event-stream" }).end("id: x\n\n")));
    const edge = await behind(OPEN, origin);
    const cursor = `${ID}.3`;
    for (const [path, init] of [
      ["/chat", { headers: { "last-event-id": cursor } }],
      [`/chat?last_event_id=${cursor}`, {}],
      ["/chat", post("x".repeat(100_000), { "last-event-id": cursor, "content-type": "text/plain" })],
    ]) {
      expect((await fetch(edge.url + path, init)).status).toBe(200);
      const { method, url, headers, body } = origin.requests.at(-1);
      expect([method, url, headers["last-event-id"], body]).toEqual(["GET", `/streams/${ID}`, cursor, ""]);
    }
  });

  test("a problem at /chat is retold as everywhere, one at /v1 is piped as it is", async ({ start, behind }) => {
    const own = { type: "/problems/too-long", title: "Too Long", status: 400, detail: "d", instance: "/chat", retryable: false };
    const origin = await start(fakeOrigin((response, { url }) => url === "/chat"
      ? response.writeHead(400, { "content-type": "application/problem+json", "headwater-problem": "too-long" }).end(JSON.stringify({ ...own, debug: 1 }))
      : told(429, "rate-limited", { "retry-after": "7" })(response)));
    const edge = await behind(OPEN, origin);
    expect((await problem(`${edge.url}/chat`, post())).document).toEqual(own);
    for (const [path, init] of [[COMPLETIONS, post()], ["/v1/models/x"]]) {
      const answer = await problem(edge.url + path, init);
      expect([answer.status, answer.document]).toEqual([429, { error: { message: "told", type: "t", param: "p", code: "rate-limited" } }]);
      expect(["headwater-problem", "x-should-retry", "retry-after"].map((name) => answer.headers.get(name))).toEqual(["rate-limited", "false", "7"]);
    }
  });
});

test.describe("a keyed edge", () => {
  const CREDENTIALS = [{ authorization: `Bearer ${KEY}` }, { authorization: `bearer ${KEY}` }, { "x-api-key": KEY }];

  test("takes a key in either header, says whose it is, and keeps it", async ({ start, behind }) => {
    const origin = await start(fakeOrigin(either));
    const edge = await behind(KEYED, origin);
    for (const headers of CREDENTIALS) {
      for (const [path, init] of [[COMPLETIONS, post(conversation, headers)], ["/chat", post(conversation, headers)], ["/simple?topic=x", { headers }], [`/streams/${ID}`, { headers }], [`/streams/chatcmpl-${ID}`, { method: "DELETE", headers }]]) {
        await fetch(edge.url + path, init);
        const { headers: sent, rawHeaders } = origin.requests.at(-1);
        expect([sent["x-headwater-caller"], sent.authorization, sent["x-api-key"]], path).toEqual([CALLER, `Bearer ${SECRET}`, undefined]);
        expect(rawHeaders.join()).not.toContain(KEY);
      }
    }
    expect(origin.requests).toHaveLength(CREDENTIALS.length * 5);
    expect(origin.requests.at(-1).url).toBe(`/streams/${ID}`);
    await fetch(edge.url + COMPLETIONS, post(conversation, { "x-api-key": OTHER_KEY }));
    expect(origin.requests.at(-1).headers["x-headwater-caller"]).toBe(digest(OTHER_KEY).slice(0, 16));
    expect(edge.output()).not.toMatch(/sk-/);
  });

  test("answers no key and a wrong one with a 401 that asks for one", async ({ start, behind }) => {
    const origin = await start(fakeOrigin(either));
    const edge = await behind(KEYED, origin);
    for (const headers of [{}, { authorization: "Bearer sk-wrong" }, { authorization: `Basic ${KEY}` }, { authorization: KEY }, { "x-api-key": "sk-wrong" }, { "x-api-key": digest(KEY) }]) {
      const answer = await problem(edge.url + COMPLETIONS, post(conversation, headers));
      expectOpenAiError(answer, 401, "unauthorised", { code: "invalid_api_key" });
      expect(answer.document.error.message).toContain("key");
      expectOwnProblem(await problem(`${edge.url}/chat`, post(conversation, headers)), 401, "unauthorised");
      // Where no key is needed a wrong one is none.
      expect((await fetch(`${edge.url}/simple`, { headers })).status).toBe(200);
      expect(origin.requests.pop().headers["x-headwater-caller"]).toBeUndefined();
    }
    expect(origin.requests).toEqual([]);
    expect(edge.output()).not.toMatch(/sk-/);
  });

  test("that is open too takes everybody, and tells whose key it is", async ({ start, behind }) => {
    const origin = await start(fakeOrigin(either));
    const edge = await behind({ ...OPEN, ...KEYED }, origin);
    for (const [headers, caller] of [[{}, undefined], [{ "x-api-key": "unused" }, undefined], [{ "x-api-key": KEY }, CALLER]]) {
      expect((await fetch(edge.url + COMPLETIONS, post(conversation, headers))).status).toBe(200);
      expect(origin.requests.at(-1).headers["x-headwater-caller"]).toBe(caller);
    }
  });

  test("a digest that is none leaves the others in force", async ({ start, behind }) => {
    const origin = await start(fakeOrigin(either));
    const edge = await behind({ EDGE_KEYS: `${KEYED.EDGE_KEYS} abc` }, origin);
    expect((await fetch(edge.url + COMPLETIONS, post(conversation, { "x-api-key": KEY }))).status).toBe(200);
    expect((await problem(`${edge.url}/healthz`)).document.wrong_settings).toEqual(["EDGE_KEYS"]);
  });
});

test.describe("pages of other sites", () => {
  test("are refused before anything else is looked at, whatever they show", async ({ start, behind }) => {
    const origin = await start(fakeOrigin(either));
    for (const vars of [{}, OPEN, KEYED]) {
      const edge = await behind({ ...vars, ALLOWED_ORIGINS: APP }, origin);
      for (const page of [{ "sec-fetch-site": "cross-site" }, { "sec-fetch-site": "same-site" }, { origin: "https://evil.example" }, { origin: "null" }]) {
        for (const more of [{}, { "x-api-key": KEY }, { "idempotency-key": "short", "content-length": String(LIMIT_BYTES + 1) }]) {
          const headers = { ...page, ...more, "content-type": "text/plain" };
          for (const path of [COMPLETIONS, "/v1/nonsense", "/v1/models"]) {
            const answer = await ask(edge.url + path, { method: "POST", headers, write: (request) => request.flushHeaders() });
            expectOpenAiError(answer, 403, "cross-site", { code: "cross_site", type: "permission_error" });
          }
          expectOwnProblem(await ask(`${edge.url}/chat`, { method: "PUT", headers, write: (request) => request.flushHeaders() }), 403, "cross-site");
        }
      }
      expect(origin.requests).toEqual([]);
    }
  });

  test("on the list may chat, with the headers of OpenAI's clients, and read what the answer says", async ({ start, behind }) => {
    const origin = await start(fakeOrigin(either));
    const edge = await behind({ ...KEYED, ALLOWED_ORIGINS: APP }, origin);
    const asked = "authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-os,x-stainless-retry-count,x-stainless-timeout,openai-organization";
    const preflight = (origin, headers = asked) => fetch(edge.url + COMPLETIONS, {
      method: "OPTIONS", headers: { origin, "access-control-request-method": "POST", "access-control-request-headers": headers, "sec-fetch-site": "cross-site" },
    });
    const allowed = await preflight(APP);
    expect([allowed.status, allowed.headers.get("allow")]).toEqual([204, "POST"]);
    expect(Object.fromEntries(allowed.headers)).toMatchObject({
      "access-control-allow-origin": APP, "access-control-allow-headers": asked, "access-control-allow-methods": expect.stringContaining("POST"),
      vary: "Origin, Access-Control-Request-Headers",
    });
    expect((await preflight(APP, "x-a, *")).headers.get("access-control-allow-headers"), "no wildcard").toBeNull();
    const refused = await preflight("https://evil.example");
    expect([...refused.headers.keys()].filter((name) => name.startsWith("access-control"))).toEqual([]);
    expect(refused.headers.get("vary")).toBe("Origin, Access-Control-Request-Headers");
    for (const [key, status] of [[KEY, 200], ["sk-wrong", 401]]) {
      const answer = await fetch(edge.url + COMPLETIONS, post(conversation, { origin: APP, "sec-fetch-site": "cross-site", authorization: `Bearer ${key}` }));
      expect([answer.status, answer.headers.get("access-control-allow-origin")]).toEqual([status, APP]);
      const exposed = answer.headers.get("access-control-expose-headers").split(", ");
      expect(exposed).toEqual(expect.arrayContaining(["content-location", "x-request-id", "x-should-retry", "headwater-ignored", "headwater-problem", "retry-after"]));
    }
    expect(origin.requests).toHaveLength(1);
  });

  test("by another host's name than HOSTS has get nothing (DNS rebinding)", async ({ start, behind }) => {
    const origin = await start(fakeOrigin(either));
    const edge = await behind({ ...OPEN, HOSTS: "localhost, 127.0.0.1" }, origin);
    const rebound = { host: `evil.example:${edge.port}`, origin: `http://evil.example:${edge.port}`, "sec-fetch-site": "same-origin" };
    expectOpenAiError(await ask(`${edge.url}/v1/models`, { headers: rebound }), 403, "cross-site", { code: "cross_site", type: "permission_error" });
    expect(origin.requests).toEqual([]);
  });
});

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

  test("that doesn't come is a 400 after 10 s, in each shape", async ({ start, behind }) => {
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
    expect(performance.now() - since).toBeGreaterThanOrEqual(9_900);
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

test.describe("two origins", () => {
  /** Answers that send the edge to the next origin. */
  const FAULTS = {
    "502 with HTML": (response) => response.writeHead(502, { "content-type": "text/html" }).end("<html>"),
    "503 with JSON that is no problem of an origin's": json({ error: "nope" }, 503),
    "400 with JSON that is no problem of an origin's": json({ error: { message: "4711" } }, 400),
    "404 with a problem, as an older origin has it": (response) => response.writeHead(404, { "content-type": "application/problem+json" }).end("{}"),
    "401, which is the edge's secret's": told(401, "unauthorised"),
    "522 with HTML": (response) => response.writeHead(522, { "content-type": "text/html" }).end("<html>"),
    "no answer at all": (response) => response.destroy(),
    "overloaded": told(503, "overloaded", { "retry-after": "1" }),
  };
  const bytes = Buffer.concat([Buffer.from('{"messages":['), randomBytes(300_000), Buffer.from("]}")]);

  for (const [what, fault] of Object.entries(FAULTS)) {
    test(`after ${what} the next one gets the same bytes, as the same attempt`, async ({ start, behind }) => {
      const [first, second] = [await start(fakeOrigin(fault)), await start(fakeOrigin(stream))];
      const edge = await behind(OPEN, first, second);
      const answer = await ask(edge.url + COMPLETIONS, {
        method: "POST", headers: { "content-type": "application/json", "content-length": bytes.length }, write: (request) => inParts(request, bytes),
      });
      expect([answer.status, answer.text]).toEqual([200, STREAM]);
      expect(answer.headers["server-timing"]).toContain('origin;desc="b"');
      const attempts = [...first.requests, ...second.requests];
      expect(attempts.map((request) => request.bytes.equals(bytes))).toEqual([true, true]);
      const [one, other] = attempts.map(({ headers }) => headers);
      expect(one["x-headwater-attempt"]).toMatch(/^[!-~]{16,128}$/);
      expect(other["x-headwater-attempt"]).toBe(one["x-headwater-attempt"]);
      expect([one["idempotency-key"], other["idempotency-key"]], "the client can't come back with it").toEqual([undefined, undefined]);
      for (const { headers } of attempts) expect(headers.authorization).toBe(`Bearer ${SECRET}`);
    });
  }

  test("a key of the client's goes to both as it is, and there is no attempt", async ({ start, behind }) => {
    const fault = FAULTS["502 with HTML"];
    const [first, second] = [await start(fakeOrigin(fault)), await start(fakeOrigin(fault))];
    const edge = await behind(OPEN, first, second);
    const answer = await problem(edge.url + COMPLETIONS, post(conversation, { "idempotency-key": "a-key-of-the-tests-1" }));
    expectOpenAiError(answer, 502, "origin-unreachable", { code: "origin-unreachable", type: "server_error", retry: "true" });
    const keys = [...first.requests, ...second.requests].map(({ headers }) => [headers["idempotency-key"], headers["x-headwater-attempt"]]);
    expect(keys).toEqual([["a-key-of-the-tests-1", undefined], ["a-key-of-the-tests-1", undefined]]);
  });

  test("that are both overloaded: the last one's own words are passed on", async ({ start, behind }) => {
    const full = told(503, "overloaded", { "retry-after": "3", "x-should-retry": "true" });
    const edge = await behind(OPEN, await start(fakeOrigin(full)), await start(fakeOrigin(full)));
    const answer = await problem(edge.url + COMPLETIONS, post());
    expect([answer.status, answer.document.error.message, answer.headers.get("retry-after"), answer.headers.get("x-should-retry")]).toEqual([503, "told", "3", "true"]);
  });

  for (const [what, answered] of Object.entries({
    "a refusal of the model": told(424, "model-refused"), "a model that broke off": told(502, "model-broke-off"), "an unknown model": told(404, "no-such-model"),
  })) {
    test(`${what} is final, and no other origin is asked`, async ({ start, behind }) => {
      const [first, second] = [await start(fakeOrigin(answered)), await start(fakeOrigin(stream))];
      const edge = await behind(OPEN, first, second);
      const answer = await problem(edge.url + COMPLETIONS, post());
      expect(answer.document.error.message).toBe("told");
      expect(second.requests).toEqual([]);
    });
  }

  // A 2xx may be a generation that has begun.
  for (const [what, answered, status] of [
    ["200 with HTML", (response) => response.writeHead(200, { "content-type": "text/html" }).end("4711"), 502],
    ["204", (response) => response.writeHead(204).end(), 502],
    ["a 504 of a proxy", (response) => response.writeHead(504, { "content-type": "text/html" }).end("4711"), 504],
  ]) {
    test(`after ${what} a conversation is not asked of the next one, the models are`, async ({ start, behind }) => {
      const [first, second] = [await start(fakeOrigin(answered)), await start(fakeOrigin(json({ object: "list", data: [] })))];
      const edge = await behind(OPEN, first, second);
      const answer = await problem(edge.url + COMPLETIONS, post());
      expect(answer.status).toBe(status);
      expect(answer.text).not.toContain("4711");
      expect(second.requests).toEqual([]);
      expect((await problem(`${edge.url}/v1/models`)).document).toEqual({ object: "list", data: [] });
    });
  }

  test("a foreign server among them is never asked for chats", async ({ start }) => {
    const [foreign, own] = [await start(fakeOrigin(stream)), await start(fakeOrigin((response) => response.destroy()))];
    const edge = await start(spawnWorkerd({ origins: { x: `${foreign.url}/v1/chat/completions`, a: own.url }, vars: { ...OPEN, ...KEYED } }));
    const headers = { "x-api-key": KEY };
    expect((await problem(edge.url + COMPLETIONS, post(conversation, headers))).status).toBe(502);
    expect((await problem(`${edge.url}/v1/models`)).status).toBe(502);
    expect(foreign.requests).toEqual([]);
    expect((await fetch(`${edge.url}/simple`, { headers })).status).toBe(200);
    expect(foreign.requests[0].headers["x-headwater-caller"], "nor told who asks").toBeUndefined();
    const alone = await start(spawnWorkerd({ origins: { x: `${foreign.url}/v1/chat/completions` }, vars: OPEN }));
    const answer = await problem(alone.url + COMPLETIONS, post());
    expectOpenAiError(answer, 404, "not-found");
    expect(answer.document.error.message).toContain("ORIGINS");
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

test.describe("models", () => {
  const names = [
    ["/v1/models", "/v1/models"],
    ["/v1/models/openai:gpt-4o", "/v1/models/openai:gpt-4o"],
    ["/v1/models/openai%3Agpt-4o", "/v1/models/openai%3Agpt-4o"],
    ["/v1/models/meta/llama%2Fx", "/v1/models/meta%2Fllama%2Fx"],
  ];
  for (const [asked, got] of names) {
    test(`${asked} is asked of an origin as ${got}`, async ({ start, behind }) => {
      const origin = await start(fakeOrigin(json({ object: "list" })));
      const edge = await behind(OPEN, origin);
      const answer = await problem(edge.url + asked);
      expect([answer.status, answer.document]).toEqual([200, { object: "list" }]);
      expect(origin.requests.map(({ method, url, body }) => [method, url, body])).toEqual([["GET", got, ""]]);
    });
  }

  test("are no way to an origin's other paths", async ({ start, behind }) => {
    const origin = await start(fakeOrigin(json({ object: "list" })));
    const edge = await behind(OPEN, origin);
    for (const path of ["/v1/models/../../streams/x", "/v1/models/%2e%2e/%2E./streams/x", "/v1/models/..\\..\\streams\\x", "/v1/models/..", "/v1/models/%2e%2E", "/v1/models/.\t./x", "/v1/models//streams"]) {
      await raw(edge.port, `GET ${path} HTTP/1.1\r\nHost: e`);
    }
    for (const { url } of origin.requests) expect(url).toMatch(/^\/v1\/models\/[^/]+$/);
  });
});

test.describe("what a path doesn't take", () => {
  for (const [method, path, allow] of [
    ["GET", COMPLETIONS, "POST"], ["DELETE", COMPLETIONS, "POST"], ["POST", "/v1/models", "GET"], ["DELETE", "/v1/models/x", "GET"],
  ]) {
    test(`${method} ${path} is a 405 in OpenAI's shape`, async ({ start, behind }) => {
      const edge = await behind(OPEN, await start(fakeOrigin(either)));
      const answer = await problem(edge.url + path, { method });
      expectOpenAiError(answer, 405, "invalid-method");
      expect(answer.headers.get("allow")).toBe(allow);
      const options = await fetch(edge.url + path, { method: "OPTIONS" });
      expect([options.status, options.headers.get("allow")]).toEqual([204, allow]);
    });
  }

  test("HEAD starts and asks nothing", async ({ start, behind }) => {
    const origin = await start(fakeOrigin(either));
    const edge = await behind(OPEN, origin);
    for (const path of [COMPLETIONS, "/v1/models", "/chat"]) expect((await fetch(edge.url + path, { method: "HEAD" })).status).toBe(405);
    expect(origin.requests).toEqual([]);
  });

  test("GET /chat without a cursor is a 405, PUT too", async ({ start, behind }) => {
    const edge = await behind(OPEN, await start(fakeOrigin(either)));
    for (const [method, allow] of [["GET", "POST"], ["PUT", "GET, POST"]]) {
      const answer = await problem(`${edge.url}/chat`, { method });
      expectOwnProblem(answer, 405, "invalid-method");
      expect(answer.headers.get("allow")).toBe(allow);
    }
    expect((await fetch(`${edge.url}/chat`, { method: "OPTIONS" })).headers.get("allow")).toBe("GET, POST");
  });

  for (const path of ["/v1/", "/v1/completions", "/v1/embeddings", "/v1/chat/completions/x", "/v1/responses"]) {
    test(`${path} is a 404 in OpenAI's shape`, async ({ start, behind }) => {
      const edge = await behind(OPEN, await start(fakeOrigin(either)));
      for (const method of ["GET", "POST"]) expectOpenAiError(await problem(edge.url + path, { method }), 404, "not-found");
    });
  }
});

// 401, 403, 404, 405 and 413 are above, 429 below.
test.describe("the edge's own refusals in each shape", () => {
  const down = (response) => response.destroy();
  const server = { type: "server_error" };
  for (const [what, vars, headers, answer, status, kind, openai] of [
    ["a key that is none", {}, { "idempotency-key": "short" }, either, 400, "bad-request", {}],
    ["a setting that is wrong", { ORIGINS: "a" }, {}, either, 500, "internal", { ...server, code: "internal" }],
    ["an origin that is away", {}, {}, down, 502, "origin-unreachable", { ...server, code: "origin-unreachable", retry: "true" }],
    ["an answer that is none", {}, {}, json({}, 404), 502, "origin-unreachable", { ...server, code: "origin-unreachable", retry: "true" }],
    ["a secret that isn't the origin's", {}, {}, told(401, "unauthorised"), 502, "origin-unreachable", { ...server, code: "origin-unreachable", retry: "true" }],
    ["a prefetch", {}, { "sec-purpose": "prefetch" }, either, 503, "overloaded", { ...server, code: "overloaded", retry: "true", after: "1" }],
    ["a rate limit that isn't there", { RATE_LIMIT: "on" }, {}, either, 503, "internal", { ...server, code: "internal" }],
    ["a proxy's timeout", {}, {}, (response) => response.writeHead(504).end(), 504, "origin-timeout", { ...server, code: "origin-timeout", retry: "true" }],
  ]) {
    test(`${what} is a ${status}`, async ({ start, behind }) => {
      const edge = await behind({ ...OPEN, ...vars }, await start(fakeOrigin(answer)));
      const { after, ...expected } = openai;
      const theirs = await problem(edge.url + COMPLETIONS, post(conversation, headers));
      expectOpenAiError(theirs, status, kind, expected);
      expect(theirs.headers.get("retry-after")).toBe(after ?? null);
      const own = await problem(`${edge.url}/chat`, post(conversation, headers));
      expectOwnProblem(own, status, kind);
      expect([own.document.retryable, own.headers.get("retry-after")]).toEqual([expected.retry === "true", after ?? null]);
    });
  }
});

test("over HTTP/1.0 a bare chat is a 400, and a completion, which has an end of its own, is answered", async ({ start }) => {
  const origin = await start(fakeOrigin(either));
  const edge = await start(spawnWorkerd({ origins: { a: origin.url }, vars: OPEN, http: 'cfBlobHeader = "CF-Blob"' }));
  const over = (path, accept) => fetch(edge.url + path, post(conversation, { accept, "cf-blob": JSON.stringify({ httpProtocol: "HTTP/1.0" }) }));
  expect([(await over("/chat", "*/*")).status, (await over("/chat", "text/event-stream")).status, (await over(COMPLETIONS, "*/*")).status]).toEqual([400, 200, 200]);
  expect(origin.requests).toHaveLength(2);
});

// By default wrangler serves /chat.html at /chat, and redirects to it.
test("the pages have the names of their files, and /chat is none of them", async ({ edge }) => {
  for (const path of ["/", "/?key=1", "/index.html"]) {
    const page = await fetch(edge.url + path, { redirect: "manual" });
    expect([page.status, page.headers.get("content-type")]).toEqual([200, "text/html; charset=utf-8"]);
    expect(page.headers.get("content-security-policy")).toContain("default-src 'self'");
  }
  expect((await problem(`${edge.url}/chat`, { headers: { accept: "text/html" } })).status).toBe(401);
});

// wrangler has the limiter.
test("starts of chats are counted, by the key where there is one; what starts nothing is not", async ({ start }) => {
  const origin = await start(fakeOrigin(either));
  const edge = await start(spawnEdge({ origins: { a: origin.url }, vars: { ...OPEN, ...KEYED, RATE_LIMIT: "on" } }));
  const chat = (path, headers) => problem(edge.url + path, post(conversation, { "cf-connecting-ip": "192.0.2.7", ...headers }));
  let refused;
  // 30 in 60 s; a period may end in between.
  for (let n = 0; n <= 60 && refused?.status !== 429; n++) refused = await chat(n % 2 ? COMPLETIONS : "/chat", { "x-api-key": KEY, "cf-connecting-ip": `192.0.2.${n}` });
  expect(refused.status, "one key from many addresses").toBe(429);
  const openai = await chat(COMPLETIONS, { "x-api-key": KEY });
  expectOpenAiError(openai, 429, "rate-limited", { code: "rate_limit_exceeded", type: "rate_limit_error", retry: "true" });
  expect(openai.headers.get("retry-after")).toBe("60");
  expectOwnProblem(await chat("/chat", { "x-api-key": KEY }), 429, "rate-limited");
  expect(origin.requests.length).toBeGreaterThanOrEqual(30);
  for (const headers of [{ "x-api-key": OTHER_KEY }, {}]) expect((await chat(COMPLETIONS, headers)).status, "others have room").toBe(200);
  const { length } = origin.requests;
  const key = { headers: { "x-api-key": KEY } };
  expect((await problem(`${edge.url}/v1/models`, key)).status, "it reaches the origin, which has no models").toBe(502);
  expect((await fetch(`${edge.url}/chat?last_event_id=${ID}.0`, key)).status).toBe(200);
  expect(origin.requests).toHaveLength(length + 2);
});

/** Sends bytes in parts of unequal lengths. */
function inParts(request, bytes) {
  for (let at = 0, size = 1; at < bytes.length; at += size, size = (size * 7) % 65_521 + 1) {
    request.write(bytes.subarray(at, at + size));
  }
  request.end();
}
