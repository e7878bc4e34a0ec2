// Chats at the edge: what crosses in both directions, which origin is asked, and what the edge says by itself, in its own shape
// and in OpenAI's.

import { randomBytes } from "node:crypto";
import { COMPLETIONS, ID, KEYED, OPEN, STREAM, conversation, either, expect, expectOpenAiError, expectOwnProblem, inParts, json, post, stream, test, told } from "./chats.js";
import { KEY, SECRET, fakeOrigin } from "./servers.js";
import { ask, problem, raw } from "./streams.js";
import { spawnWorkerd } from "./workerd.js";

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

// 404 and 405 are above, 401, 403 and 429 in access.spec.js, 413 in bodies.spec.js.
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
