// Every problem that a client can be answered with, through the edge. The file is long because it is the whole list.

import { writeFileSync } from "node:fs";
import { test as base, expect } from "./fixtures.js";
import { SECRET, spawnOrigin, until } from "./servers.js";
import { ask, open, post, posted, problem, script, simple, whole } from "./streams.js";

const JSON_TYPE = { "content-type": "application/json" };
const LIMIT_BYTES = 16 * 1024;
const KEY = "a-key-of-the-tests-1";

base.use({ runtime: "workerd" });

const test = base.extend({
  /** Asks the edge, expects this problem, and that no stream was started. */
  refused: async ({ edge, origin }, use) => {
    await use(async (path, init, status, name) => {
      const answer = await problem(edge.url + path, init);
      expectProblem(answer, status, name, path);
      expect((await origin.streams()).started).toBe(0);
      return answer;
    });
  },
});

/** RFC 9457, with our `retryable`. @param {string} path of the request */
function expectProblem({ status, headers, document }, expected, name, path) {
  expect(status).toBe(expected);
  expect(document).toMatchObject({
    type: `/problems/${name}`, title: expect.any(String), status: expected, detail: expect.any(String),
    instance: path.split("?")[0],
    retryable: [429, 500, 502, 503, 504].includes(expected) && name !== "model-refused",
  });
  const header = (field) => headers.get?.(field) ?? headers[field];
  expect(header("content-type")).toBe("application/problem+json");
  expect(header("cache-control")).toBe("no-store");
}

test.describe("bad requests", () => {
  for (const [what, method, path, allow] of [
    ["PUT on a start", "PUT", "/simple", "GET, POST"],
    ["DELETE on a start", "DELETE", "/prompts/simple", "GET, POST"],
    ["POST on a stream", "POST", "/streams/a-0123456789ABCDEFabcdef", "GET, DELETE"],
    ["POST on healthz", "POST", "/healthz", "GET, HEAD"],
  ]) {
    test(`fault 24: ${what} is a 405 that names the methods`, async ({ refused }) => {
      const { headers, document } = await refused(path, { method }, 405, "invalid-method");
      expect(headers.get("allow")).toBe(allow);
      expect(document.title).toBe("Invalid Method");
    });
  }

  for (const [what, body] of Object.entries({
    "no JSON": "{topic}",
    "nothing": "",
    "half of an object": '{"topic":"cat',
    "an array": '["cat"]',
    "a string": '"cat"',
    "a number for a topic": '{"topic":7}',
    "null for a topic": '{"topic":null}',
    "an object for a topic": '{"topic":{"name":"cat"}}',
    // A parser that recurses as deep as it is told to runs out of stack.
    "deep nesting": "[".repeat(LIMIT_BYTES - 1),
    "a deeply nested topic": `{"topic":${"[".repeat(8000)}${"]".repeat(8000)}}`,
    "bytes that are not UTF-8": new Uint8Array([...'{"topic":"'].map((c) => c.charCodeAt(0)).concat(0xff, 0xfe, 0x22, 0x7d)),
    "an unknown variable": '{"topic":"cat","style":"haiku"}',
    "a topic of 2,001 bytes": JSON.stringify({ topic: "x".repeat(2_001) }),
  })) {
    test(`fault 24: a body with ${what} is a 400`, async ({ refused }) => {
      await refused("/simple", { method: "POST", headers: JSON_TYPE, body }, 400, "bad-request");
    });
  }

  test("a topic of 2,000 bytes is not too long", async ({ edge, origin }) => {
    expect((await whole(`${edge.url}/simple`, post({ topic: "x".repeat(2_000) }))).terminal.event).toBe("done");
    expect((await origin.streams()).started).toBe(1);
  });

  for (const type of ["text/plain", "application/x-www-form-urlencoded", "application/jsonx"]) {
    test(`fault 24: a body of ${type} is a 415`, async ({ refused }) => {
      await refused("/simple", { method: "POST", headers: { "content-type": type }, body: '{"topic":"cat"}' }, 415, "not-json");
    });
  }

  test("fault 24: a body of no type is a 415", async ({ refused }) => {
    const body = new TextEncoder().encode('{"topic":"cat"}'); // bytes: of text fetch tells a type
    await refused("/simple", { method: "POST", body }, 415, "not-json");
  });

  test("JSON with a charset is JSON", async ({ edge, origin }) => {
    const headers = { "content-type": "Application/JSON; charset=utf-8" };
    expect((await whole(`${edge.url}/simple`, { method: "POST", headers, body: '{"topic":"cat"}' })).status).toBe(200);
    expect((await origin.streams()).started).toBe(1);
  });

  test("an unknown prompt is a 404", async ({ refused }) => {
    await refused("/prompts/nonsense", undefined, 404, "not-found");
  });

  for (const path of ["/nothing/here", "/", "//simple", "/simple/", "/%73imple", "/prompts/a%2Fb", "/streams"]) {
    test(`${path} is no path of the edge's, which is a 404`, async ({ refused }) => {
      await refused(path, undefined, 404, "not-found");
    });
  }

  for (const [what, key] of Object.entries({ short: "short", long: "k".repeat(129), spaced: "a key with some spaces" })) {
    test(`a ${what} idempotency key is a 400`, async ({ refused }) => {
      await refused("/simple", { headers: { "idempotency-key": key } }, 400, "bad-request");
      await refused(`/simple?${new URLSearchParams({ idempotency_key: key })}`, undefined, 400, "bad-request");
    });
  }
});

// A body that is read to its end before it is refused is memory and time for whoever sends it.
test.describe("fault 24: a body over 16 KiB", () => {
  test("is a 413 by its Content-Length, unread", async ({ edge, origin }) => {
    const answer = await ask(`${edge.url}/simple`, {
      method: "POST",
      headers: { ...JSON_TYPE, "content-length": LIMIT_BYTES + 1 },
      write: (request) => request.write("{"), // and no more, ever
    });
    expectProblem(answer, 413, "too-large", "/simple");
    expect((await origin.streams()).started).toBe(0);
  });

  test("is a 413 by its chunks, the rest unread", async ({ edge, origin }) => {
    let sent = 0;
    const answer = await ask(`${edge.url}/simple`, {
      method: "POST",
      headers: { ...JSON_TYPE, "transfer-encoding": "chunked" },
      write(request) {
        const more = () => {
          if (request.destroyed) return;
          request.write(" ".repeat(1024));
          sent += 1024;
          setTimeout(more, 10); // without end
        };
        more();
      },
    });
    expectProblem(answer, 413, "too-large", "/simple");
    expect(sent).toBeGreaterThan(LIMIT_BYTES);
    expect((await origin.streams()).started).toBe(0);
  });

  test("is refused, 16 KiB are read", async ({ edge, origin, refused }) => {
    const body = (bytes) => '{"topic":"cat"}'.padEnd(bytes);
    const init = (bytes) => ({ method: "POST", headers: JSON_TYPE, body: body(bytes) });
    await refused("/simple", init(LIMIT_BYTES + 1), 413, "too-large");
    expect((await whole(`${edge.url}/simple`, init(LIMIT_BYTES))).status).toBe(200);
    expect((await origin.streams()).started).toBe(1);
  });
});

// Both are sent by machines, not by somebody who waits for an answer, and an answer costs.
test.describe("fault 23: what nobody asked for starts nothing", () => {
  test("HEAD is a 405", async ({ edge, origin }) => {
    const answer = await fetch(`${edge.url}/simple?topic=cat`, { method: "HEAD" });
    expect(answer.status).toBe(405);
    expect(answer.headers.get("allow")).toBe("GET, POST");
    expect((await origin.streams()).started).toBe(0);
  });

  for (const purpose of ["prefetch", "prefetch;prerender"]) {
    test(`${purpose} is a 503`, async ({ refused }) => {
      const { headers } = await refused("/simple?topic=cat", { headers: { "sec-purpose": purpose } }, 503, "overloaded");
      expect(headers.get("retry-after")).toMatch(/^\d+$/);
    });
  }
});

test.describe("cursors", () => {
  const NOT_THERE = "a-0123456789ABCDEFabcdef";

  for (const [what, cursor] of Object.entries({
    "malformed": "nonsense!",
    "10 KB long": "x".repeat(10_000),
    "with a number that is none": `${NOT_THERE}.x`,
  })) {
    test(`fault 7: a cursor ${what} is a 400`, async ({ refused }) => {
      const headers = { "last-event-id": cursor };
      await refused("/simple", { headers }, 400, "bad-cursor");
      await refused(`/streams/${NOT_THERE}`, { headers }, 400, "bad-cursor");
      await refused(`/simple?${new URLSearchParams({ last_event_id: cursor })}`, undefined, 400, "bad-cursor");
    });
  }

  test("fault 7: a cursor of non-ASCII characters is a 400", async ({ edge, origin, refused }) => {
    await refused("/simple?last_event_id=%C3%A4-%F0%9F%90%88", undefined, 400, "bad-cursor");
    const answer = await ask(`${edge.url}/simple`, { headers: { "last-event-id": "\u00e4-\u00ff" } });
    expectProblem(answer, 400, "bad-cursor", "/simple");
    expect((await origin.streams()).started).toBe(0);
  });

  test("fault 7: an unknown stream is a 404, and starts nothing", async ({ refused }) => {
    await refused(`/streams/${NOT_THERE}`, undefined, 404, "not-found");
    await refused("/streams/nonsense", undefined, 404, "not-found");
    await refused("/simple?topic=cat", { headers: { "last-event-id": `${NOT_THERE}.3` } }, 404, "not-found");
    await refused(`/streams/${NOT_THERE}`, { method: "DELETE" }, 404, "not-found");
  });

  test("fault 7: another stream's cursor is a 404", async ({ edge, origin }) => {
    const [one, other] = [await whole(simple(edge, script("a"))), await whole(simple(edge, script("b")))];
    const answer = await problem(edge.url + one.place, { headers: { "last-event-id": `${other.ids[0]}.0` } });
    expectProblem(answer, 404, "not-found", one.place);
    expect((await origin.streams()).started).toBe(2);
  });

  test("fault 7: past the end of an ended stream is a 400, at its end a 204", async ({ edge, origin }) => {
    const stream = await whole(simple(edge, script("a", "b")));
    const from = (event) => problem(edge.url + stream.place, { headers: { "last-event-id": `${stream.ids[0]}.${event}` } });
    expectProblem(await from(3), 400, "bad-cursor", stream.place);
    expect(await from(2)).toMatchObject({ status: 204, text: "" });
    expect((await origin.streams()).started).toBe(1);
  });
});

test.describe("keys", () => {
  test.describe("of a start", () => {
    test.use({
      flags: async ({}, use, info) => {
        const config = info.outputPath("prompts.toml");
        writeFileSync(config, '[prompts.other]\ntemplate = "Of {topic}"\n\n[prompts.further]\ntemplate = "Of {thing}"\n');
        await use(["--config", config]);
      },
    });

    test("fault 10: a key with another topic, another prompt, or another prompt's variables, is a 422", async ({ edge, origin }) => {
      const headers = { "idempotency-key": KEY };
      const topic = script("a");
      const first = await whole(`${edge.url}/simple`, post({ topic }, headers));
      for (const [path, variables] of [["/simple", { topic: script("b") }], ["/prompts/other", { topic }], ["/prompts/further", { thing: topic }]]) {
        expectProblem(await problem(edge.url + path, post(variables, headers)), 422, "key-reused", path);
      }
      expect((await whole(`${edge.url}/simple`, post({ topic }, headers))).raw, "it is still the first one's").toBe(first.raw);
      // With a key of their own they are answered.
      expect((await whole(`${edge.url}/prompts/further`, post({ thing: topic }))).text).toBe("a");
      expect((await origin.streams()).started).toBe(2);
    });
  });

  test.describe("of a stream that is no longer kept", () => {
    test.use({ flags: ["--journal-size", "16KiB"] });

    test("fault 7: is a 404 that says expired, and starts nothing", async ({ edge, origin }) => {
      const first = post({ topic: script({ repeat: "x", times: 6_000 }) }, { "idempotency-key": KEY });
      const { place } = await whole(`${edge.url}/simple`, first);
      for (let n = 0; n < 4; n++) await whole(simple(edge, script({ repeat: "y", times: 6_000 })));
      const { started } = await origin.streams();
      expectProblem(await problem(`${edge.url}/simple`, first), 404, "expired", "/simple");
      expectProblem(await problem(edge.url + place), 404, "not-found", place);
      expect((await origin.streams()).started).toBe(started);
    });
  });

  test.describe("after the retention", () => {
    test.use({ flags: ["--retention", "300ms"] });

    test("fault 7: a stream is a 404, and its key free", async ({ edge, origin }) => {
      const start = post({ topic: script("a") }, { "idempotency-key": KEY });
      const { place } = await whole(`${edge.url}/simple`, start);
      await until(async () => (await fetch(edge.url + place)).status === 404, "the stream goes");
      await until(async () => (await whole(`${edge.url}/simple`, start)).status === 200, "the key is free");
      expect((await origin.streams()).started).toBe(2);
    });
  });
});

test.describe("a model that fails before its first token", () => {
  for (const [fail, status, name, after] of [
    ["refused", 424, "model-refused"],
    ["too-long", 400, "too-long"],
    ["broke-off", 502, "model-broke-off"],
    ["rate-limited", 429, "rate-limited", "7"],
    ["overloaded", 503, "overloaded", "1"],
    ["a panic", 500, "internal"],
  ]) {
    test(`fault 14: ${fail} is a ${status} at once, framed or bare`, async ({ edge, origin }) => {
      for (const init of [posted({ fail }), post({ topic: script({ fail }) }, { accept: "*/*" })]) {
        const answer = await problem(`${edge.url}/simple`, init);
        expectProblem(answer, status, name, "/simple");
        if (after) expect(answer.headers.get("retry-after")).toBe(after);
        expect(answer.text).not.toContain("by script");
      }
      await origin.idle();
    });
  }

  test("fault 14: its key is free for another try", async ({ edge, origin }) => {
    const start = post({ topic: script({ fail: "broke-off" }) }, { "idempotency-key": KEY });
    expect((await problem(`${edge.url}/simple`, start)).status).toBe(502);
    expect((await problem(`${edge.url}/simple`, start)).status).toBe(502);
    expect((await origin.streams()).started).toBe(2);
  });

  test.describe("but after the start window", () => {
    test.use({ flags: ["--start-window", "50ms"] });

    test("fault 14: is told in `failed`; bare it breaks off", async ({ edge, origin }) => {
      const topic = script(500, { fail: "refused" });
      const framed = await whole(simple(edge, topic));
      expect(framed.status).toBe(200);
      expect(framed.events).toHaveLength(1);
      expect(framed.terminal).toMatchObject({
        event: "failed", data: { type: "/problems/model-refused", title: "Model Refused", retryable: false },
      });
      const bare = await open(simple(edge, topic), { headers: {} });
      expect(bare.status).toBe(200);
      expect(await bare.end).toBe("broken");
      expect((await origin.streams()).started).toBe(2);
    });
  });

  test.describe("by its silence", () => {
    test.use({ flags: ["--first-token-timeout", "300ms"] });

    test("fault 15: is a 504 at the first token's deadline", async ({ edge, origin }) => {
      expectProblem(await problem(`${edge.url}/simple`, posted(60_000, "late")), 504, "first-token-timeout", "/simple");
      await origin.idle();
      expect((await origin.streams()).started).toBe(1);
    });

    test.describe("after the start window", () => {
      test.use({ flags: ["--start-window", "50ms", "--first-token-timeout", "500ms"] });

      test("fault 15: is told in `failed` at the first token's deadline; bare it breaks off", async ({ edge, origin }) => {
        const topic = script(60_000, "late");
        const framed = await whole(simple(edge, topic));
        expect(framed.status).toBe(200);
        expect(await framed.end).toBe("ended");
        expect(framed.events).toHaveLength(1);
        expect(framed.terminal).toMatchObject({ event: "failed", data: { type: "/problems/first-token-timeout", retryable: true } });
        const bare = await open(simple(edge, topic), { headers: {} });
        expect(bare.status).toBe(200);
        expect(await bare.end).toBe("broken");
        await origin.idle();
        expect((await origin.streams()).started).toBe(2);
      });
    });
  });
});

test.describe("a model that fails in mid-stream", () => {
  for (const [fail, name, retryable] of [
    ["refused", "model-refused", false],
    ["broke-off", "model-broke-off", true],
    ["a panic", "internal", true],
  ]) {
    test(`fault 14: ${fail} is told in \`failed\`; bare it breaks off`, async ({ edge, origin }) => {
      const topic = script("half ", "a ", 50, { fail });
      const framed = await whole(simple(edge, topic));
      expect(framed.text).toBe("half a ");
      expect(await framed.end).toBe("ended");
      expect(framed.events.at(-1)).toMatchObject({ event: "failed", data: { type: `/problems/${name}`, retryable } });
      expect(framed.raw).not.toContain("by script");

      const bare = await open(simple(edge, topic), { headers: {} });
      expect(await bare.end).toBe("broken");
      expect(bare.text).toBe("half a ");
      expect(bare.raw).not.toContain("failed");
      expect((await origin.streams()).started).toBe(2);
    });
  }

  test.describe("by its silence", () => {
    test.use({ flags: ["--idle-timeout", "300ms"] });

    test("fault 15: is told in `failed` at the idle timeout", async ({ edge, origin }) => {
      const stream = await whole(simple(edge, script("half", 60_000, "late")));
      expect(stream.terminal).toMatchObject({ event: "failed", data: { type: "/problems/idle-timeout", retryable: true } });
      await origin.idle();
    });
  });
});

test.describe("fault 23: over the cap of generations", () => {
  test.use({ flags: ["--generations", "1", "--queue", "0"] });

  test("a start is a 503 with Retry-After at once, until one ends", async ({ edge, origin }) => {
    const running = await open(`${edge.url}/simple`, posted("a", 60_000));
    const answer = await problem(`${edge.url}/simple`, posted("b"));
    expectProblem(answer, 503, "overloaded", "/simple");
    expect(answer.headers.get("retry-after")).toBe("1");
    expect((await fetch(edge.url + running.place, { method: "DELETE" })).status).toBe(204);
    await origin.idle();
    expect((await whole(`${edge.url}/simple`, posted("c"))).text).toBe("c");
    expect((await origin.streams()).started).toBe(2);
  });
});

test.describe("fault 23: over the cap of connections", () => {
  const CONNECTIONS = 8;
  test.use({ flags: ["--connections", String(CONNECTIONS), "--heartbeat", "300ms", "--linger", "300ms"] });

  test("a start is a 503 with Retry-After at once, until one is free", async ({ edge, origin }) => {
    const streams = [];
    const refused = [];
    // Others hold connections too: the probes of this test.
    while (refused.length < 3 * CONNECTIONS) {
      const stream = await open(`${edge.url}/simple`, posted("a", 600_000));
      if (stream.status === 200) streams.push(stream);
      else refused.push(stream);
    }
    expect(streams.length).toBeGreaterThan(0);
    expect(streams.length).toBeLessThanOrEqual(CONNECTIONS);
    for (const { status, response } of refused) {
      expect([status, response.headers.get("retry-after"), response.headers.get("content-type")]).toEqual([503, "1", "application/problem+json"]);
    }
    await Promise.all(streams.map((stream) => stream.leave()));
    // The edge gives the place up at the next write to a reader that has left: a heartbeat.
    await until(async () => (await whole(`${edge.url}/simple`, posted("b"))).text === "b", "a place is free");
  });
});

test.describe("fault 19: an answer over the limit of one stream", () => {
  test.use({ flags: ["--stream-size", "2KiB"] });

  test("ends with finish `length`, and with what fits", async ({ edge, origin }) => {
    const stream = await whole(simple(edge, script({ tokens: 500 })));
    expect(stream.terminal).toMatchObject({ event: "done", data: { finish: "length" } });
    expect(stream.chunks.length).toBeGreaterThan(10);
    expect(stream.chunks).toEqual(stream.chunks.map((_, number) => `${number} `));
    expect(stream.raw.length).toBeLessThan(3 * 1024);
    await origin.idle();
  });
});

test.describe("fault 19: over the journal's budget", () => {
  test.use({ flags: ["--journal-size", "16KiB"] });

  test("the oldest finished stream goes, a running one and the newest stay", async ({ edge, origin }) => {
    const running = await open(`${edge.url}/simple`, posted("older than all, ", 600_000));
    await running.reach(1);
    const long = () => whole(simple(edge, script({ repeat: "x", times: 6_000 })));
    const [oldest, , newest] = [await long(), await long(), await long()];
    expectProblem(await problem(edge.url + oldest.place), 404, "not-found", oldest.place);
    expect((await whole(edge.url + newest.place)).raw).toBe(newest.raw);

    const again = await open(edge.url + running.place);
    expect(again.status).toBe(200);
    await again.reach(1);
    expect((await fetch(edge.url + running.place, { method: "DELETE" })).status).toBe(204);
    for (const reader of [running, again]) {
      expect(await reader.end).toBe("ended");
      expect([reader.chunks, reader.terminal.data.finish]).toEqual([["older than all, "], "stopped"]);
    }
    expect((await origin.streams()).started).toBe(4);
  });
});

test.describe("fault 25: who calls the origin", () => {
  test("without the secret, or with a wrong one, is a 401 and starts nothing", async ({ origin }) => {
    for (const headers of [{}, { authorization: "Bearer wrong-wrong-wrong-wrong" }, { authorization: "Basic ZW5kOnRv" }]) {
      const answer = await problem(`${origin.url}/prompts/simple`, { headers });
      expectProblem(answer, 401, "unauthorised", "/prompts/simple");
    }
    expect((await origin.streams()).started).toBe(0);
  });

  test("without the secret, or with a wrong one, can neither follow nor stop a stream", async ({ edge, origin }) => {
    const stream = await open(`${edge.url}/simple`, posted("a", 600_000));
    await stream.reach(1);
    for (const headers of [{}, { authorization: "Bearer wrong-wrong-wrong-wrong" }, { authorization: `Bearer ${SECRET}x` }]) {
      for (const method of ["GET", "DELETE"]) {
        const answer = await problem(origin.url + stream.place, { method, headers });
        expectProblem(answer, 401, "unauthorised", stream.place);
        expect(answer.text).not.toContain("chunk");
      }
    }
    expect((await origin.streams()).running, "nobody stopped it").toBe(1);
    // The edge can.
    expect((await fetch(edge.url + stream.place, { method: "DELETE" })).status).toBe(204);
    await stream.end;
    expect(stream.terminal.data.finish).toBe("stopped");
  });

  test("an edge whose secret the origin does not accept answers 502", async ({ edge }) => {
    const origin = await spawnOrigin({ port: edge.ports.a, secret: "another-secret-entirely" });
    try {
      const answer = await until(async () => {
        const answer = await problem(`${edge.url}/simple`, posted("a"));
        return answer.text.includes("accept") && answer;
      }, "the origin is reached");
      expectProblem(answer, 502, "origin-unreachable", "/simple");
      expect((await origin.streams()).started).toBe(0);
    } finally {
      await origin.end();
    }
  });
});
