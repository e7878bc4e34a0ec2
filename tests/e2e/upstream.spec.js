// What an origin can do to an edge, and what an edge may tell an origin. One scenario per test, so the file is long.

import { readFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { ALLOWED, expect, seen, test } from "./fixtures.js";
import { ROOT, SECRET, fakeOrigin, spawnOrigin, until } from "./servers.js";
import { ask, open, post, posted, problem, simple, whole } from "./streams.js";

test.use({ runtime: "workerd" });

const SECRETIVE = "<html>upstream connect error, secret 4711</html>";
const STREAM = 'data: {"chunk":"fine"}\n\n';
const KEY = "a-key-of-the-tests-1";

const answer = (status, headers = {}, body = SECRETIVE) => (response) => response.writeHead(status, headers).end(body);
const stream = answer(200, { "content-type": "text/event-stream" }, STREAM);
const html = { "content-type": "text/html" };

/** Answers that are none, and what the edge makes of them. */
const FAULTS = {
  "500 with HTML": answer(500, html),
  "502 with HTML": answer(502, html),
  "503 with HTML": answer(503, html),
  // What production gives in place of an exception when no connection is made.
  "522 with HTML": answer(522, html),
  "530 without a body": answer(530, {}, ""),
  "404 with HTML": answer(404, html),
  "200 with HTML": answer(200, html),
  "200 with JSON": answer(200, { "content-type": "application/json" }, '{"secret":4711}'),
  "200 without a type": answer(200),
  "a stream in gzip": answer(200, { "content-type": "text/event-stream", "content-encoding": "gzip" }, gzipSync(STREAM)),
  "a problem in gzip": answer(400, { "content-type": "application/problem+json", "content-encoding": "gzip" }, gzipSync('{"secret":4711}')),
  "no answer at all": (response) => response.destroy(),
};

function expectProblem({ status, headers, document }, expected, name, retryable = true) {
  expect(status).toBe(expected);
  expect(headers.get("content-type")).toBe("application/problem+json");
  expect(document).toMatchObject({ type: `/problems/${name}`, status: expected, instance: expect.any(String), retryable });
}

for (const [what, fault] of Object.entries(FAULTS)) {
  // A 2xx may be a generation that has begun: to ask another origin, or to start again, would be to pay twice.
  const isFinal = /^200|stream/.test(what);
  test(`fault 16: ${what} is a 502, and nothing of it is shown`, async ({ edge, fake }) => {
    const { requests } = await fake(fault);
    const result = await problem(`${edge.url}/simple`, posted("a"));
    expectProblem(result, 502, "origin-unreachable", !isFinal);
    expect(result.text).not.toContain("4711");
    expect(result.headers.get("content-encoding")).toBeNull();
    expect(requests, "one attempt").toHaveLength(1);
  });

  test(`fault 16: after ${what} the next origin is ${isFinal ? "not asked" : "asked, with the same key"}`, async ({ pair, fake }) => {
    const first = await fake(fault, { behind: pair, name: "a" });
    const second = await fake(stream, { behind: pair, name: "b" });
    const result = await whole(`${pair.url}/simple`, post({ topic: "cat" }));
    const attempts = [...first.requests, ...second.requests];
    const [key] = attempts.map(({ headers }) => headers["idempotency-key"]);
    expect(key).toMatch(/^[!-~]{16,128}$/);
    if (isFinal) {
      expect(result.status).toBe(502);
      expect(second.requests).toEqual([]);
    } else {
      expect(result.text).toBe("fine");
      expect(result.response.headers.get("server-timing")).toContain('origin;desc="b"');
      expect(attempts.map(({ body }) => body)).toEqual(['{"topic":"cat"}', '{"topic":"cat"}']);
      expect(attempts[1].headers["idempotency-key"]).toBe(key);
    }
  });
}

test("fault 16: an origin that is down is a 502", async ({ edge }) => {
  expectProblem(await problem(`${edge.url}/simple`, posted("a")), 502, "origin-unreachable");
  // What it knows may be a second old.
  const health = await until(async () => {
    const answer = await problem(`${edge.url}/healthz`);
    return answer.status === 503 && answer;
  }, "healthz tells");
  expect(health.document).toEqual({ status: "down", origins: { a: "down" } });
});

test("fault 16: when one origin is down the other answers", async ({ pair }) => {
  const origin = await spawnOrigin({ port: pair.ports.b, name: "b" });
  try {
    await seen(pair, "b");
    const start = posted("a", 500, "b");
    const result = await whole(`${pair.url}/simple`, start);
    expect(result.text).toBe("ab");
    expect(result.place).toMatch(/^\/streams\/b-/);
    expect((await whole(pair.url + result.place)).text, "its stream is asked of it").toBe("ab");
  } finally {
    await origin.end();
  }
});

test("fault 16: an origin that is overloaded is passed over for one that is not", async ({ pair }) => {
  const full = await spawnOrigin({ port: pair.ports.a, name: "a", flags: ["--generations", "1", "--queue", "0"] });
  const free = await spawnOrigin({ port: pair.ports.b, name: "b", flags: ["--generations", "1", "--queue", "0"] });
  try {
    await Promise.all([seen(pair, "a"), seen(pair, "b")]);
    const first = await open(`${pair.url}/simple`, posted("a", 60_000));
    const second = await open(`${pair.url}/simple`, posted("b", 60_000));
    expect([first.place, second.place]).toEqual([expect.stringMatching(/a-/), expect.stringMatching(/b-/)]);
    const expectFull = async () => {
      const third = await problem(`${pair.url}/simple`, posted("c"));
      expectProblem(third, 503, "overloaded");
      expect(third.headers.get("retry-after")).toBe("1");
    };
    await expectFull();
    await free.end();
    // Its key decides whom a start asks first.
    for (let n = 0; n < 8; n++) await expectFull();
    await fetch(pair.url + first.place, { method: "DELETE" });
  } finally {
    await Promise.all([full.end(), free.end()]);
  }
});

test("fault 16: a model's refusal is final, and no other origin is asked", async ({ pair, fake }) => {
  const refusal = JSON.stringify({ type: "/problems/model-refused", status: 502, retryable: false });
  await fake(answer(502, { "content-type": "application/problem+json" }, refusal), { behind: pair, name: "a" });
  const other = await fake(stream, { behind: pair, name: "b" });
  expect((await problem(`${pair.url}/simple`, posted("a"))).document.type).toBe("/problems/model-refused");
  expect(other.requests).toEqual([]);
});

test.describe("fault 16: an origin that hangs", () => {
  const hangs = () => {};
  /** From a request to its answer: the 10 s that an origin has for its headers, and what a busy machine adds. */
  const expectPatience = (since) => {
    const waited = performance.now() - since;
    expect(waited).toBeGreaterThanOrEqual(9_900);
    expect(waited).toBeLessThan(18_000);
  };

  test("is a 504 after 10 s, and the next is not asked", async ({ edge, pair, fake }) => {
    await fake(hangs);
    await fake(hangs, { behind: pair, name: "a" });
    const other = await fake(stream, { behind: pair, name: "b" });
    const start = performance.now();
    const results = await Promise.all([edge, pair].map(({ url }) => problem(`${url}/simple`, posted("a"))));
    expectPatience(start);
    for (const result of results) expectProblem(result, 504, "origin-timeout");
    // It may have begun: to ask another would be to pay twice.
    expect(other.requests).toEqual([]);
  });

  test("is passed over after 10 s where the journal is shared, with the same key", async ({ shared, fake }) => {
    const first = await fake(hangs, { behind: shared, name: "a" });
    const second = await fake(stream, { behind: shared, name: "b" });
    const id = "a-0123456789ABCDEFabcdef";
    const start = performance.now();
    const results = await Promise.all([whole(`${shared.url}/simple`, post({ topic: "cat" })), whole(`${shared.url}/streams/${id}`)]);
    expectPatience(start);
    for (const result of results) {
      expect([result.status, result.text]).toEqual([200, "fine"]);
      expect(result.response.headers.get("server-timing")).toContain('origin;desc="b"');
    }
    const asked = ({ requests }) => requests.map(({ method, url, headers, body }) => [method, url, headers["idempotency-key"], body]).toSorted();
    expect(asked(first)).toEqual([["GET", `/streams/${id}`, undefined, ""], ["POST", "/prompts/simple", expect.any(String), '{"topic":"cat"}']]);
    expect(asked(second)).toEqual(asked(first));
  });
});

for (const status of [301, 302, 307, 308]) {
  test(`fault 16: a ${status} to another host is a 502, and the other host sees nothing`, async ({ edge, fake }) => {
    const other = await fakeOrigin(stream);
    const { requests } = await fake(answer(status, { location: `${other.url}/prompts/simple` }));
    const result = await problem(`${edge.url}/simple`, posted("a"));
    expectProblem(result, 502, "origin-unreachable");
    expect(result.headers.get("location")).toBeNull();
    expect(requests).toHaveLength(1);
    expect(other.requests).toEqual([]);
    await other.end();
  });

  test(`fault 16: after a ${status} to another host the next origin is asked, with the same key`, async ({ pair, fake }) => {
    const other = await fakeOrigin(stream);
    const first = await fake(answer(status, { location: `${other.url}/prompts/simple` }), { behind: pair, name: "a" });
    const second = await fake(stream, { behind: pair, name: "b" });
    expect((await whole(`${pair.url}/simple`, post({ topic: "cat" }))).text).toBe("fine");
    const keys = [first, second].map(({ requests }) => requests.map(({ headers }) => headers["idempotency-key"]));
    expect(keys).toEqual([[expect.any(String)], keys[0]]);
    expect(other.requests).toEqual([]);
    await other.end();
  });
}

test("fault 17: a stream whose origin is away is a 503 to come back to, never another origin's 404", async ({ pair, fake }) => {
  const other = await fake(answer(404, { "content-type": "application/problem+json" }, "{}"), { behind: pair, name: "b" });
  const id = "a-0123456789ABCDEFabcdef";
  for (const [path, init] of [
    [`/streams/${id}`], ["/simple", { headers: { "last-event-id": `${id}.3` } }], [`/streams/${id}`, { method: "DELETE" }],
  ]) {
    const result = await problem(pair.url + path, init);
    expectProblem(result, 503, "origin-unreachable");
    expect(result.headers.get("retry-after")).toBe("1");
  }
  expect(other.requests).toEqual([]);
});

test("an origin that breaks off in mid-stream breaks the client's stream off", async ({ edge, fake }) => {
  await fake((response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write(STREAM);
    setTimeout(() => response.destroy(), 200);
  });
  const broken = await open(simple(edge, "cat"));
  expect(await broken.end).toBe("broken");
  expect(broken.text).toBe("fine");
});

for (const fixture of ["framed", "hostile", "crlf"]) {
  test(`fault 3: ${fixture}.sse is the same events, a byte at a time or all at once`, async ({ edge, fake }) => {
    const [bytes, { events }] = await Promise.all(["sse", "json"].map((type) => readFile(`${ROOT}tests/fixtures/${fixture}.${type}`)))
      .then(([bytes, expected]) => [bytes, JSON.parse(expected)]);
    const head = { "content-type": "text/event-stream" };
    const byByte = async (response) => {
      response.writeHead(200, head).socket.setNoDelay(true);
      for (const byte of bytes) await new Promise((written) => { response.write(Uint8Array.of(byte), () => setImmediate(written)); });
      response.end();
    };
    for (const write of [byByte, answer(200, head, bytes)]) {
      const server = await fake(write);
      const stream = await whole(simple(edge, "cat"));
      expect(await stream.end).toBe("ended");
      expect(stream.raw).toBe(new TextDecoder().decode(bytes));
      expect([...stream.openings, ...stream.events].map(({ event = "message", id = "", data }) => ({ event, id, data })))
        .toEqual(events.map(({ event, id, data }) => ({ event, id, data: JSON.parse(data) })));
      await server.end();
    }
  });
}

// Line ends, a byte order mark, comments and fields that nobody knows: all of it is the client's to read.
test("fault 4: another server's bytes pass through unchanged", async ({ edge, fake }) => {
  const foreign = Buffer.from('\ufeff: hello\r\nretry: 5\rid: 42\ndata:{"chunk":"a"}\r\nunknown: x\r\n\r\ndata: \u2028\0\r\r', "utf8");
  await fake((response) => {
    response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8" });
    // Split where a character is.
    response.write(foreign.subarray(0, 2), () => setTimeout(() => response.end(foreign.subarray(2)), 50));
  });
  const result = await fetch(simple(edge, "cat"));
  expect(Buffer.from(await result.arrayBuffer()).equals(foreign)).toBe(true);
  expect(result.headers.get("content-type")).toBe("text/event-stream; charset=utf-8");
});

test("fault 26: an origin gets the edge's own headers and the client's listed ones, no others", async ({ edge, fake }) => {
  const { requests } = await fake(stream);
  await ask(`${edge.url}/simple?topic=cat`, {
    headers: {
      host: "evil.example",
      connection: "authorization, close",
      authorization: "Bearer stolen",
      cookie: "id=1",
      "x-forwarded-for": "192.0.2.1",
      "x-forwarded-host": "evil.example",
      "x-real-ip": "192.0.2.1",
      "x-headwater-client": "192.0.2.1",
      "cf-connecting-ip": "203.0.113.9",
      "accept-encoding": "gzip",
      "user-agent": "evil",
      referer: "https://evil.example/",
      "x-http-method-override": "DELETE",
      accept: "text/event-stream",
      traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
      "idempotency-key": KEY,
    },
  });
  const [{ method, url, headers, rawHeaders, body }] = requests;
  expect([method, url, body]).toEqual(["POST", "/prompts/simple", '{"topic":"cat"}']);
  expect(own(headers)).toEqual({
    accept: "text/event-stream",
    "accept-encoding": "identity",
    authorization: `Bearer ${SECRET}`,
    // The runtime's, for `cache: "no-store"`.
    "cache-control": "no-cache",
    pragma: "no-cache",
    "content-type": "application/json",
    "idempotency-key": KEY,
    traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
  });
  expect(headers.host).toBe(`127.0.0.1:${edge.ports.a}`);
  expect(JSON.stringify(rawHeaders)).not.toMatch(/evil|stolen|192\.0\.2|203\.0\.113/);
});

test("fault 26: following and stopping send no more than that either", async ({ edge, fake }) => {
  const { requests } = await fake(stream);
  const id = "a-0123456789ABCDEFabcdef";
  const headers = { authorization: "Bearer stolen", cookie: "a=1", "last-event-id": `${id}.4`, "idempotency-key": KEY };
  await fetch(`${edge.url}/streams/${id}`, { headers });
  await fetch(`${edge.url}/streams/${id}`, { headers, method: "DELETE" });
  expect(requests.map(({ method, url }) => `${method} ${url}`)).toEqual([`GET /streams/${id}`, `DELETE /streams/${id}`]);
  for (const { headers } of requests) {
    expect(headers.authorization).toBe(`Bearer ${SECRET}`);
    expect(Object.keys(own(headers))).not.toContain("cookie");
  }
  expect(requests[0].headers["last-event-id"]).toBe(`${id}.4`);
});

test("fault 26: a client gets an origin's listed headers, no others", async ({ edge, fake }) => {
  const listed = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache, no-transform",
    "content-location": "/streams/a-0123456789ABCDEFabcdef",
    "retry-after": "3",
    allow: "GET",
    "x-accel-buffering": "no",
  };
  await fake(answer(200, {
    ...listed,
    vary: "Accept",
    "server-timing": "first-token;dur=1",
    "set-cookie": "id=1",
    server: "secret/1.0",
    "x-powered-by": "secret",
    "access-control-allow-origin": "*",
    "strict-transport-security": "max-age=1",
    authorization: `Bearer ${SECRET}`,
    location: "https://evil.example/",
    link: "<x>; rel=preload",
  }, STREAM));
  const { headers } = await fetch(simple(edge, "cat"));
  const got = Object.fromEntries(headers);
  for (const hop of ["transfer-encoding", "connection", "keep-alive", "date"]) delete got[hop];
  expect(got).toEqual({ ...listed, vary: "Accept, Origin", "server-timing": 'first-token;dur=1, origin;desc="a"' });
});

test.describe("fault 27: pages of other sites", () => {
  const EVIL = "https://evil.example";
  const from = (origin, headers = {}) => ({ headers: { origin, "sec-fetch-site": "cross-site", ...headers } });

  test("a page that is not allowed gets no CORS header, on errors neither", async ({ edge, fake }) => {
    await fake(stream);
    for (const [path, status] of [
      ["/healthz", 200], ["/streams/nonsense", 404], ["/simple?topic=a", 403], ["/streams/a-0123456789ABCDEFabcdef", 200],
    ]) {
      const { headers, ...answer } = await problem(edge.url + path, { headers: { origin: EVIL } });
      expect(answer.status).toBe(status);
      expect([...headers.keys()].filter((name) => name.startsWith("access-control"))).toEqual([]);
      expect(headers.get("vary")).toContain("Origin");
    }
  });

  test("a page that is allowed may read answers and errors", async ({ edge, fake }) => {
    await fake(stream);
    for (const [path, status] of [["/simple?topic=a", 200], ["/simple?last_event_id=!", 400], ["/healthz", 200]]) {
      const answer = await fetch(edge.url + path, from(ALLOWED));
      expect(answer.status).toBe(status);
      expect(answer.headers.get("access-control-allow-origin")).toBe(ALLOWED);
      expect(answer.headers.get("access-control-expose-headers")).toMatch(/^content-location, retry-after, server-timing, x-request-id, /);
      expect(answer.headers.get("vary")).toContain("Origin");
    }
  });

  test("a preflight is answered without the origin", async ({ edge, fake }) => {
    const { requests } = await fake(stream);
    const preflight = (origin) => fetch(`${edge.url}/simple`, {
      method: "OPTIONS",
      headers: { origin, "access-control-request-method": "POST", "access-control-request-headers": "idempotency-key" },
    });
    const allowed = await preflight(ALLOWED);
    expect(allowed.status).toBe(204);
    expect(Object.fromEntries(allowed.headers)).toMatchObject({
      "access-control-allow-origin": ALLOWED,
      "access-control-allow-methods": expect.stringMatching(/GET.*POST/),
      "access-control-allow-headers": "idempotency-key",
      "access-control-allow-credentials": "true",
    });
    const refused = await preflight(EVIL);
    expect(refused.status).toBe(204);
    expect([...refused.headers.keys()].filter((name) => name.startsWith("access-control"))).toEqual([]);
    expect(requests).toEqual([]);
  });

  test("a start from a page that is not allowed is a 403 and starts nothing", async ({ edge, fake }) => {
    const { requests } = await fake(stream);
    for (const init of [from(EVIL), { headers: { "sec-fetch-site": "cross-site" } }, from("null"), from(`${ALLOWED}.evil.example`)]) {
      const { status, document } = await problem(simple(edge, "a"), init);
      expect(status).toBe(403);
      expect(document).toMatchObject({ type: "/problems/cross-site", status: 403, retryable: false });
    }
    expect(requests).toEqual([]);
  });
});

/** Without what HTTP itself needs, or the runtime adds. */
function own(headers) {
  const runtimes = ["host", "content-length", "transfer-encoding", "cf-worker"];
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !runtimes.includes(name)));
}
