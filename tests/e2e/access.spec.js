// Who may chat at the edge: nobody unless it is set, everybody, who has a key, pages of other sites; and how often.

import { APP, CALLER, COMPLETIONS, ID, KEYED, LIMIT_BYTES, OPEN, conversation, either, expect, expectOpenAiError, expectOwnProblem, post, test } from "./chats.js";
import { KEY, OTHER_KEY, SECRET, digest, fakeOrigin, spawnEdge } from "./servers.js";
import { ask, problem } from "./streams.js";

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
      "access-control-allow-origin": APP, "access-control-allow-headers": asked.replaceAll(",", ", "), "access-control-allow-methods": expect.stringContaining("POST"),
      vary: "Origin, Access-Control-Request-Headers",
    });
    expect((await preflight(APP, "x_a,*")).headers.get("access-control-allow-headers"), "no wildcard").toBe("x_a");
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
  const unsent = { "content-type": "application/json", "content-length": 1_000, "x-api-key": KEY };
  expect((await ask(edge.url + COMPLETIONS, { method: "POST", headers: unsent, write: (request) => request.flushHeaders() })).status, "its body isn't awaited").toBe(429);
  expectOwnProblem(await chat("/chat", { "x-api-key": KEY }), 429, "rate-limited");
  expect(origin.requests.length).toBeGreaterThanOrEqual(30);
  for (const headers of [{ "x-api-key": OTHER_KEY }, {}]) expect((await chat(COMPLETIONS, headers)).status, "others have room").toBe(200);
  const { length } = origin.requests;
  const key = { headers: { "x-api-key": KEY } };
  expect((await problem(`${edge.url}/v1/models`, key)).status, "it reaches the origin, which has no models").toBe(502);
  expect((await fetch(`${edge.url}/chat?last_event_id=${ID}.0`, key)).status).toBe(200);
  expect(origin.requests).toHaveLength(length + 2);
});
