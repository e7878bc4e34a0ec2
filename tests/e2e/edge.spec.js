// What the edge decides by itself: settings, hosts, pages, foreign servers, keys, health. Under `workerd serve`, an edge for each.

import { expect, test } from "./fixtures.js";
import { SECRET, fakeOrigin, sleep, spawnOrigin, until } from "./servers.js";
import { ask, open, post, posted, problem, raw, script, simple, whole } from "./streams.js";
import { spawnWorkerd } from "./workerd.js";

const FINE = 'data: {"chunk":"fine"}\n\n';
const EVENT_STREAM = { "content-type": "text/event-stream" };
const stream = (response) => response.writeHead(200, EVENT_STREAM).end(FINE);
const html = (status) => (response) => response.writeHead(status, { "content-type": "text/html" }).end("<html>");

test.describe("a foreign server", () => {
  test("is asked when the own origin is away, and gets neither the secret nor the visitor's address", async ({ start }) => {
    const own = await start(fakeOrigin(html(522)));
    const foreign = await start(fakeOrigin(stream));
    const edge = await start(spawnWorkerd({ origins: { a: own.url, x: `${foreign.url}/v1/chat?v=2` } }));
    const headers = { "cf-connecting-ip": "203.0.113.9", "x-forwarded-for": "203.0.113.9", authorization: "Bearer mine" };
    const answer = await whole(`${edge.url}/simple`, post({ topic: "cat" }, headers));
    expect([answer.status, answer.text]).toEqual([200, "fine"]);
    expect(own.requests[0].headers.authorization).toBe(`Bearer ${SECRET}`);
    const [{ method, url, headers: sent, rawHeaders, body }] = foreign.requests;
    expect([method, url, body]).toEqual(["POST", "/v1/chat?v=2", '{"topic":"cat"}']);
    expect(Object.keys(sent).toSorted()).toEqual([
      "accept", "accept-encoding", "cache-control", "content-length", "content-type", "host", "pragma",
    ]);
    expect(JSON.stringify(rawHeaders)).not.toMatch(/203\.0\.113|mine|end-to-end/);
  });

  test("has ids of its own, and its bytes pass through unchanged", async ({ start }) => {
    const bytes = Buffer.from('\ufeffid: 42\r\ndata: x\r\n\r\n: \u2028\0\rid: 43\ndata: y\n\n');
    const foreign = await start(fakeOrigin((response) => response.writeHead(200, EVENT_STREAM).end(bytes)));
    const edge = await start(spawnWorkerd({ origins: { x: `${foreign.url}/v1/chat` }, vars: { EDGE_SECRET: "" } }));
    const answer = await fetch(simple(edge, "cat"), { headers: { "last-event-id": "42" } });
    expect(Buffer.from(await answer.arrayBuffer()).equals(bytes)).toBe(true);
    expect(foreign.requests[0].headers["last-event-id"]).toBe("42");
    const lost = "/streams/a-0123456789ABCDEFabcdef";
    expect((await problem(edge.url + lost)).status, "its streams have no address here").toBe(404);
    expect((await problem(`${edge.url}/healthz`)).document).toEqual({ status: "ok", origins: {} });
  });
});

test.describe("two origins without a shared journal", () => {
  test("a start that is repeated with its key finds its stream, though the other origin has room again", async ({ start }) => {
    const flags = ["--generations", "1", "--queue", "0"];
    const origins = {};
    for (const name of ["a", "b"]) origins[name] = await start(spawnOrigin({ name, flags }));
    const edge = await start(spawnWorkerd({ origins: { a: origins.a.url, b: origins.b.url } }));
    const seen = new Set();
    for (let n = 0; n < 12; n++) {
      const init = post({ topic: script("x") }, { "idempotency-key": `a-key-of-the-tests-${n}` });
      const first = await whole(`${edge.url}/simple`, init);
      const name = first.place.split("/").pop().split("-")[0];
      seen.add(name);
      const again = await whole(`${edge.url}/simple`, init);
      expect(again.place).toBe(first.place);
      // The one that isn't asked first was full meanwhile: it makes no difference.
      const other = origins[name === "a" ? "b" : "a"];
      const headers = { authorization: `Bearer ${SECRET}`, accept: "text/event-stream", "content-type": "application/json" };
      const held = await open(`${other.url}/prompts/simple`, { method: "POST", headers, body: JSON.stringify({ topic: script("held", 60_000) }) });
      await held.reach(1);
      expect((await whole(`${edge.url}/simple`, init)).place).toBe(first.place);
      await fetch(other.url + held.place, { method: "DELETE", headers });
      await other.idle();
    }
    expect([...seen].toSorted(), "starts spread").toEqual(["a", "b"]);
    const started = await Promise.all(Object.values(origins).map(async (origin) => (await origin.streams()).started));
    expect(started[0] + started[1]).toBe(12 + 12);
  });
});

for (const status of [504, 524]) {
  test(`a ${status} of a proxy is a timeout: the start may have been taken, and no other origin is asked`, async ({ start }) => {
    const [first, second] = [await start(fakeOrigin(html(status))), await start(fakeOrigin(stream))];
    const edge = await start(spawnWorkerd({ origins: { a: first.url, b: second.url } }));
    const answer = await problem(`${edge.url}/simple`, { headers: {} });
    expect([answer.status, answer.document.type]).toEqual([504, "/problems/origin-timeout"]);
    expect(second.requests).toEqual([]);
  });
}

for (const coding of ["none", "Identity", "identity, NONE"]) {
  test(`R16: Content-Encoding: ${coding} is no encoding`, async ({ start }) => {
    const origin = await start(fakeOrigin((response) => response.writeHead(200, { ...EVENT_STREAM, "content-encoding": coding }).end(FINE)));
    const edge = await start(spawnWorkerd({ origins: { a: origin.url } }));
    const answer = await whole(simple(edge, "cat"));
    expect([answer.status, answer.text, answer.response.headers.get("content-encoding")]).toEqual([200, "fine", null]);
  });
}

test("R4: a problem names the path that was asked for, whoever tells it, and crosses by its listed members", async ({ start }) => {
  const told = { type: "/problems/x", title: "X", status: 400, detail: "d", instance: "/prompts/simple", retryable: false };
  const origin = await start(fakeOrigin((response) =>
    response.writeHead(400, { "content-type": "application/problem+json" }).end(JSON.stringify({ ...told, debug: "SELECT" }))));
  const edge = await start(spawnWorkerd({ origins: { a: origin.url } }));
  for (const path of ["/simple", "/prompts/simple", "/streams/a-0123456789ABCDEFabcdef"]) {
    const { status, document, headers } = await problem(`${edge.url}${path}?topic=cat`);
    expect([status, document]).toEqual([400, { ...told, instance: path }]);
    expect(headers.get("content-type")).toBe("application/problem+json");
  }
});

test("a problem that is none, or breaks off, is a 502, and the next origin is asked", async ({ start }) => {
  const head = { "content-type": "application/problem+json" };
  for (const broken of [
    (response) => response.writeHead(400, head).end("nope"),
    (response) => response.writeHead(400, head).end(`{"type":"${"x".repeat(20_000)}"}`),
    (response) => response.writeHead(400, { ...head, "content-length": 100 }).write("{", () => response.destroy()),
  ]) {
    const [first, second] = [await start(fakeOrigin(broken)), await start(fakeOrigin(stream))];
    const one = await start(spawnWorkerd({ origins: { a: first.url } }));
    expect((await problem(`${one.url}/simple`)).document.type).toBe("/problems/origin-unreachable");
    const two = await start(spawnWorkerd({ origins: { a: first.url, b: second.url } }));
    expect((await whole(`${two.url}/simple`)).text).toBe("fine");
  }
});

test("R8: lastEventId is a name of the cursor, and no variable", async ({ start }) => {
  const origin = await start(spawnOrigin());
  const edge = await start(spawnWorkerd({ origins: { a: origin.url } }));
  const first = await whole(`${edge.url}/simple`, posted("a", "b", "c"));
  const [id] = first.ids;
  expect((await whole(`${edge.url}/simple?topic=cat&lastEventId=${id}.0`)).text).toBe("bc");
  expect((await whole(`${edge.url}${first.place}?lastEventId=${id}.1`)).text).toBe("c");
  expect((await origin.streams()).started).toBe(1);
});

test("R12: half a surrogate pair is U+FFFD, by POST and by query", async ({ start }) => {
  const origin = await start(fakeOrigin(stream));
  const edge = await start(spawnWorkerd({ origins: { a: origin.url } }));
  const topic = `${"\u{1f989}".slice(0, 1)} \u{1f989} ${"\u{1f989}".slice(1)}`;
  await whole(`${edge.url}/simple`, post({ topic }));
  await whole(simple(edge, topic));
  expect(origin.requests.map(({ body }) => JSON.parse(body))).toEqual([0, 1].map(() => ({ topic: "\ufffd \u{1f989} \ufffd" })));
});

test.describe("pages", () => {
  test("R3: what a sibling subdomain's page starts without an Origin is a 403", async ({ start }) => {
    const origin = await start(fakeOrigin(stream));
    const edge = await start(spawnWorkerd({ origins: { a: origin.url } }));
    for (const site of ["same-site", "cross-site"]) {
      const { status, document } = await problem(simple(edge, "x"), { headers: { "sec-fetch-site": site } });
      expect([status, document.type]).toEqual([403, "/problems/cross-site"]);
    }
    // A sandboxed frame's, whoever made it.
    expect((await problem(simple(edge, "x"), { headers: { origin: "null" } })).status).toBe(403);
    expect(origin.requests).toEqual([]);
    for (const site of ["none", "same-origin"]) {
      expect((await whole(simple(edge, "x"), { headers: { "sec-fetch-site": site } })).text).toBe("fine");
    }
  });

  const APPS = ["tauri://localhost", "capacitor://localhost", "chrome-extension://abcdefghijklmnop", "moz-extension://0f1e2d3c-4b5a", "file://", "http://localhost:3000"];

  test("R13, R14: an app's or extension's page on the list may start and read, with credentials too", async ({ start }) => {
    const origin = await start(fakeOrigin(stream));
    const edge = await start(spawnWorkerd({ origins: { a: origin.url }, vars: { ALLOWED_ORIGINS: APPS.join(", ") } }));
    for (const page of APPS) {
      const { response, text } = await whole(simple(edge, "x"), { headers: { origin: page, "sec-fetch-site": "cross-site" } });
      expect(text).toBe("fine");
      expect(response.headers.get("access-control-allow-origin")).toBe(page);
      expect(response.headers.get("access-control-allow-credentials")).toBe("true");
    }
    expect((await problem(simple(edge, "x"), { headers: { origin: "tauri://localhost.evil" } })).status).toBe(403);
  });

  test("a page whose name points to this machine starts nothing where HOSTS names others (DNS rebinding)", async ({ start }) => {
    const origin = await start(fakeOrigin(stream));
    const edge = await start(spawnWorkerd({ origins: { a: origin.url }, vars: { HOSTS: "localhost, 127.0.0.1" } }));
    const rebound = { host: `evil.example:${edge.port}`, origin: `http://evil.example:${edge.port}`, "sec-fetch-site": "same-origin" };
    const answer = await ask(simple(edge, "x"), { headers: rebound });
    expect([answer.status, answer.document.type]).toEqual([403, "/problems/cross-site"]);
    expect(answer.document.detail).toContain("HOSTS");
    expect(origin.requests).toEqual([]);
    expect((await ask(simple(edge, "x"), { headers: { host: `localhost:${edge.port}` } })).status).toBe(200);
  });
});

test.describe("R13: a slip in a setting is named, and takes down what depends on it", () => {
  for (const [setting, value, status, type] of [
    ["ALLOWED_ORIGINS", "https://app.example/", 200],
    ["SHARED_JOURNAL", "maybe", 200],
    ["HOSTS", "http://127.0.0.1", 403, "cross-site"],
    ["RATE_LIMIT", "0", 503, "internal"],
    ["RATE_LIMIT", "on", 503, "internal"], // workerd alone has no limiter
    ["ORIGINS", "a=http://origin.example:9000", 500, "internal"],
    ["ORIGINS", "", 500, "internal"],
    ["EDGE_SECRET", "short", 500, "internal"],
    ["EDGE_SECRET", "", 500, "internal"],
  ]) {
    test(`${setting}="${value}"`, async ({ start }) => {
      const origin = await start(fakeOrigin(stream));
      const edge = await start(spawnWorkerd({ origins: { a: origin.url }, vars: { [setting]: value } }));
      const answer = await problem(simple(edge, "x"));
      expect(answer.status).toBe(status);
      if (type) expect(answer.document).toMatchObject({ type: `/problems/${type}`, retryable: false });
      expect((await problem(simple(edge, "x"), { headers: { origin: "https://app.example" } })).status).not.toBe(200);
      const health = await problem(`${edge.url}/healthz`);
      expect(health.document.wrong_settings).toEqual([setting]);
      expect(health.status).toBe(["ORIGINS", "EDGE_SECRET", "RATE_LIMIT"].includes(setting) ? 503 : 200);
      await until(() => edge.output().includes(`settings: ${setting} `), "the log names it");
      const lines = edge.output().split("\n").filter((line) => line.includes("settings:"));
      expect(lines).toHaveLength(1);
      if (value.length > 3) expect(edge.output() + health.text + answer.text).not.toContain(value);
    });
  }

  test("R19: plain http to a host that ALLOW_PLAIN_HTTP names", async ({ start }) => {
    const origin = await start(fakeOrigin(stream));
    const port = new URL(origin.url).port;
    const edge = await start(spawnWorkerd({ origins: { a: `http://localhost.localdomain:${port}` }, vars: { ALLOW_PLAIN_HTTP: "" } }));
    await problem(simple(edge, "x"));
    await until(() => edge.output().includes("ALLOW_PLAIN_HTTP"), "the refusal names the switch");
    const allowed = await start(spawnWorkerd({ origins: { a: `http://origin.invalid:${port}` }, vars: { ALLOW_PLAIN_HTTP: "origin.invalid" } }));
    expect((await problem(simple(allowed, "x"))).status, "it is asked, and there is none").toBe(502);
  });
});

test("/healthz puts one question at a time to a hanging origin, however many look", async ({ start }) => {
  let questions = 0;
  const server = await start(hanging(() => { questions += 1; }));
  const edge = await start(spawnWorkerd({ origins: { a: server.url } }));
  for (let round = 1; round <= 2; round++) {
    const looks = await Promise.all(Array.from({ length: 100 }, () => problem(`${edge.url}/healthz`)));
    for (const { status, document } of looks) expect([status, document]).toEqual([503, { status: "down", origins: { a: "down" } }]);
    expect(questions).toBe(round);
    await sleep(1_100); // a report is told again for a second
  }
});

test("who looks at /healthz and leaves doesn't keep others from an answer", async ({ start }) => {
  const server = await start(hanging(() => {}));
  const edge = await start(spawnWorkerd({ origins: { a: server.url } }));
  const left = new AbortController();
  const first = expect(fetch(`${edge.url}/healthz`, { signal: left.signal })).rejects.toThrow();
  await sleep(200);
  left.abort();
  await first;
  expect((await problem(`${edge.url}/healthz`)).document.status).toBe("down");
});

test("fault 24: a body that doesn't come is a 400 after 10 s", async ({ start }) => {
  const origin = await start(fakeOrigin(stream));
  const edge = await start(spawnWorkerd({ origins: { a: origin.url } }));
  const since = performance.now();
  const drip = (request) => {
    const timer = setInterval(() => request.destroyed ? clearInterval(timer) : request.write(" "), 200);
  };
  const answer = await ask(`${edge.url}/simple`, { method: "POST", headers: { "content-type": "application/json", "transfer-encoding": "chunked" }, write: drip });
  expect([answer.status, answer.document.type]).toEqual([400, "/problems/bad-request"]);
  expect(performance.now() - since).toBeGreaterThanOrEqual(9_900);
  expect(origin.requests).toEqual([]);
});

test.describe("as the wire has it", () => {
  const FORMS = {
    "an absolute-form target": ["GET http://edge.example/simple?topic=x HTTP/1.1\r\nHost: edge.example", 200],
    "an upper-case percent escape of a letter": ["GET /%53imple HTTP/1.1\r\nHost: e", 404],
    "two slashes": ["GET //simple HTTP/1.1\r\nHost: e", 404],
    "dot segments": ["GET /x/../simple?topic=x HTTP/1.1\r\nHost: e", 404],
    "a repeated Origin": ["GET /simple?topic=x HTTP/1.1\r\nHost: e\r\nOrigin: http://e\r\nOrigin: http://evil.example", 403],
    "a repeated key": ["GET /simple?topic=x HTTP/1.1\r\nHost: e\r\nIdempotency-Key: 0123456789abcdef\r\nIdempotency-Key: 0123456789abcdef", 400],
    "a body on a GET": ["GET /simple?topic=x HTTP/1.1\r\nHost: e\r\nContent-Length: 2\r\n\r\n{}", 200],
    "Expect: 100-continue": ['POST /simple HTTP/1.1\r\nHost: e\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}', 200],
    "an escaped slash in a prompt's name": ["GET /prompts/a%2Fb HTTP/1.1\r\nHost: e", 404],
    "the server as a whole": ["OPTIONS * HTTP/1.1\r\nHost: e", 404],
    "two cursors": ["GET /simple HTTP/1.1\r\nHost: e\r\nLast-Event-ID: a\r\nLast-Event-ID: b", 400],
    "TRACE": ["TRACE /simple HTTP/1.1\r\nHost: e", 405],
  };

  for (const [what, [request, status]] of Object.entries(FORMS)) {
    test(`${what} is a ${status}`, async ({ start }) => {
      const origin = await start(fakeOrigin(stream));
      const edge = await start(spawnWorkerd({ origins: { a: origin.url } }));
      expect(await raw(edge.port, request)).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
      expect(origin.requests).toHaveLength(status === 200 ? 1 : 0);
    });
  }
});

// Under `no-store` a browser would ask again, and that is another generation.
test("a browser that goes back to a start's address shows what it has, and starts nothing", async ({ start, page }) => {
  const origin = await start(spawnOrigin());
  const edge = await start(spawnWorkerd({ origins: { a: origin.url } }));
  await page.goto(simple(edge, script("fine")));
  await page.goto("data:text/html,elsewhere");
  await page.goBack();
  expect(await page.textContent("body")).toContain("fine");
  expect((await origin.streams()).started).toBe(1);
});

// Its body ends where the connection does: what was broken off looks whole.
test("over HTTP/1.0, as production tells it, a bare start is a 400 and a framed one is answered", async ({ start }) => {
  const origin = await start(fakeOrigin(stream));
  const edge = await start(spawnWorkerd({ origins: { a: origin.url }, http: 'cfBlobHeader = "CF-Blob"' }));
  const over = (protocol, accept) => fetch(simple(edge, "x"), { headers: { accept, "cf-blob": JSON.stringify({ httpProtocol: protocol }) } });
  const refused = await over("HTTP/1.0", "*/*");
  expect([refused.status, (await refused.json()).detail]).toEqual([400, expect.stringContaining("proxy_http_version 1.1")]);
  expect(origin.requests).toEqual([]);
  for (const [protocol, accept] of [["HTTP/1.0", "text/event-stream"], ["HTTP/1.1", "*/*"], ["HTTP/2", "*/*"]]) {
    expect((await over(protocol, accept)).status).toBe(200);
  }
});

/** A server that takes requests and says nothing. */
async function hanging(onRequest) {
  const { createServer } = await import("node:http");
  const server = createServer(onRequest);
  await new Promise((resolve) => { server.listen(0, "127.0.0.1", resolve); });
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    end: () => new Promise((resolve) => {
      server.close(resolve);
      server.closeAllConnections();
    }),
  };
}
