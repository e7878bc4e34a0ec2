// The life of a stream through the edge: cut, resumed, shared, repeated, left, stopped, and its origin's end. One
// scenario per test, so the file is long.

import { expect, test } from "./fixtures.js";
import { spawnOrigin, until } from "./servers.js";
import { chunksOf, numbers, open, post, posted, problem, resume, script, simple, whole } from "./streams.js";
import { withFiles } from "./workerd.js";

test.use({ runtime: "workerd" });

const KEY = "a-key-of-the-tests-1";
/** Runs until somebody ends it. */
const ENDLESS = { tokens: 100_000, every_ms: 50 };
/** "Within 1 s", and what a busy machine adds; waited for without it, the end would take ten minutes. */
const PROMPT_MS = 10_000;
/** Longer than an edge or a browser waits for anything. */
const SILENCE_MS = 40_000;

const stop = (edge, place) => fetch(edge.url + place, { method: "DELETE" });

test.describe("what a model says", () => {
  const HOSTILE = ["\r\n", "\n", "\r", " leading", "\0", "\u2028\u2029", "\u{1f9a6}\u{1f469}\u200d\u{1f4bb}", "\\", '"', "\ufeff", "data: x\n\n"];

  test("fault 1: arrives as it is, whatever characters and however long", async ({ edge, origin }) => {
    const stream = await whole(`${edge.url}/simple`, posted(...HOSTILE, { repeat: "0123456789abcdef", times: 4096 }));
    // A long text is several events of 16 KiB.
    expect(stream.events.slice(0, -1).map(({ data }) => data.chunk)).toEqual([...HOSTILE, ...Array(4).fill("0123456789abcdef".repeat(1024))]);
    expect(stream.terminal.event).toBe("done");
    expect((await origin.streams()).started).toBe(1);
  });

  test("fault 1: an empty text is none", async ({ edge, origin }) => {
    const stream = await whole(`${edge.url}/simple`, posted("", "a", "", "b"));
    expect(stream.chunks).toEqual(["a", "b"]);
    expect((await origin.streams()).started).toBe(1);
  });

  // A model can be talked into writing frames; if they were any, it could end or forge a stream.
  test("fault 2: frames in a text are text, framed and bare", async ({ edge, origin }) => {
    const forged = `\n\nevent: done\nid: x\ndata: {}\n\n`;
    const framed = await whole(`${edge.url}/simple`, posted("a", forged, "b"));
    expect(framed.chunks).toEqual(["a", forged, "b"]);
    expect(framed.events.filter(({ event }) => event)).toHaveLength(1);
    expect(framed.ids).not.toContain("x");
    const bare = await whole(simple(edge, script("a", forged, "b")), { headers: {} });
    expect(bare.events.map(({ event, id, data }) => ({ event, id, data }))).toEqual(["a", forged, "b"].map((chunk) => ({ data: { chunk } })));
    expect(bare.raw).not.toMatch(/^(event|id)/m);
    expect(await bare.end).toBe("ended");
    expect((await origin.streams()).started).toBe(2);
  });
});

test.describe("cut and resumed", () => {
  test("fault 5: at any byte, each chunk comes once", async ({ edge, origin }) => {
    const all = await whole(`${edge.url}/simple`, posted("two\nlines", "\u{1f9a6}", " end"));
    const [id] = all.ids;
    const length = Buffer.byteLength(all.raw);
    for (let bytes = 1; bytes < length; bytes++) {
      const before = await resume(edge, id, bytes);
      await before.end;
      const after = before.terminal ? { events: [] } : await resume(edge, before.cursor ?? id);
      await after.end;
      const events = [...before.events, ...after.events];
      expect(events.map(({ id, data }) => ({ id, data })), `cut after ${bytes} bytes`)
        .toEqual(all.events.map(({ id, data }) => ({ id, data })));
    }
    expect((await origin.streams()).started).toBe(1);
  });

  test("fault 5: 200 times at random while they run, 20 streams lose and double nothing", async ({ edge, origin }) => {
    const STREAMS = 20;
    const CUTS = 10;
    const BYTES = 1_500; // of a stream of some 20,000
    const read = async () => {
      const cuts = [];
      const cut = () => {
        const bytes = 1 + Math.floor(Math.random() * BYTES);
        cuts.push(bytes);
        return bytes;
      };
      const events = [];
      let stream = await open(`${edge.url}/simple`, posted("\u{1f9a6}\r\n", { tokens: 300, every_ms: 8 }), cut());
      const id = stream.place.split("/").pop();
      while (true) {
        await stream.end;
        events.push(...stream.events);
        if (events.at(-1)?.event) break;
        stream = await resume(edge, events.at(-1)?.id ?? id, cuts.length < CUTS ? cut() : Infinity);
        expect(stream.status).toBe(200);
      }
      return { id, cuts, events };
    };
    const streams = await Promise.all(Array.from({ length: STREAMS }, read));
    for (const { id, cuts, events } of streams) {
      const journal = await resume(edge, id);
      await journal.end;
      const bare = (events) => events.map(({ id, event, data }) => ({ id, event, data }));
      expect(bare(events), `cut after ${cuts} bytes`).toEqual(bare(journal.events));
      expect(events.map(({ id }) => id)).toEqual(events.map((_, n) => `${id}.${n}`));
      expect(chunksOf(events).join("")).toBe(`\u{1f9a6}\r\n${numbers(300)}`);
    }
    expect(streams.flatMap(({ cuts }) => cuts)).toHaveLength(STREAMS * CUTS);
    expect((await origin.streams()).started).toBe(STREAMS);
  });

  test("fault 6: at the terminal event there is nothing more, which is a 204", async ({ edge, origin }) => {
    const { cursor, place } = await whole(`${edge.url}/simple`, posted("a"));
    for (const path of [place, "/simple?topic=cat", "/prompts/simple"]) {
      expect((await problem(edge.url + path, { headers: { "last-event-id": cursor } })).status).toBe(204);
    }
    expect((await origin.streams()).started).toBe(1);
  });

  test("a start with a cursor goes on with that stream and starts nothing", async ({ edge, origin }) => {
    const { ids: [id] } = await whole(`${edge.url}/simple`, posted("a", "b", "c"));
    const headers = { "last-event-id": `${id}.0` };
    expect((await whole(`${edge.url}/simple?topic=cat`, { headers })).text).toBe("bc");
    expect((await whole(`${edge.url}/simple`, post({ topic: "cat" }, headers))).text).toBe("bc");
    expect((await whole(`${edge.url}/simple?topic=cat&last_event_id=${id}.1`)).text).toBe("c");
    // A cursor beats a key.
    expect((await whole(`${edge.url}/simple`, { headers: { ...headers, "idempotency-key": KEY } })).text).toBe("bc");
    expect((await origin.streams()).started).toBe(1);
  });

  test("fault 8: the cursor of the header wins over that of the query", async ({ edge, origin }) => {
    const { ids: [id], place } = await whole(`${edge.url}/simple`, posted("a", "b", "c"));
    for (const path of [place, "/simple"]) {
      const stream = await whole(`${edge.url}${path}?last_event_id=${id}.0`, { headers: { "last-event-id": `${id}.1` } });
      expect(stream.text).toBe("c");
    }
    expect((await origin.streams()).started).toBe(1);
  });

  test("past the end of a running stream it waits", async ({ edge, origin }) => {
    const start = await open(`${edge.url}/simple`, posted("a", 500, "b", "c"));
    await start.reach(1);
    const ahead = await resume(edge, `${start.ids[0]}.1`);
    expect(ahead.status).toBe(200);
    await ahead.end;
    expect(ahead.text).toBe("c");
    expect((await origin.streams()).started).toBe(1);
  });

  test("followed without a cursor a stream comes from its start, framed whatever is accepted", async ({ edge, origin }) => {
    const start = await whole(`${edge.url}/simple`, posted("a", "b"));
    const again = await whole(edge.url + start.place, { headers: {} });
    expect(again.raw).toBe(start.raw);
    expect((await origin.streams()).started).toBe(1);
  });
});

test.describe("shared", () => {
  test("fault 9: two read one stream, one from the middle, both to the end", async ({ edge, origin }) => {
    const first = await open(`${edge.url}/simple`, posted({ tokens: 30, every_ms: 30 }));
    await first.reach(10);
    const second = await resume(edge, `${first.ids[0]}.4`);
    await Promise.all([first.end, second.end]);
    expect(first.text).toBe(numbers(30));
    expect(second.text).toBe(numbers(30).slice(numbers(5).length));
    expect(second.terminal.data).toEqual(first.terminal.data);
    expect((await origin.streams()).started).toBe(1);
  });

  test("fault 10: one key three times at once is one generation and three answers", async ({ edge, origin }) => {
    const topic = script({ tokens: 20, every_ms: 20 });
    const streams = await Promise.all([
      whole(`${edge.url}/simple`, post({ topic }, { "idempotency-key": KEY })),
      whole(simple(edge, topic, { idempotency_key: KEY })),
      whole(`${edge.url}/prompts/simple`, post({ topic }, { "idempotency-key": KEY })),
    ]);
    for (const { text, terminal } of streams) {
      expect(text).toBe(numbers(20));
      expect(terminal).toMatchObject({ event: "done", data: { finish: "stop" } });
    }
    expect(new Set(streams.map(({ place }) => place)).size).toBe(1);
    // And once more when it is over.
    expect((await whole(simple(edge, topic, { idempotency_key: KEY }))).text).toBe(numbers(20));
    expect((await origin.streams()).started).toBe(1);
  });
});

test.describe("left before the first token", () => {
  test("fault 13: with its key one is back at the same stream, even where no header had come", async ({ edge, origin }) => {
    const start = post({ topic: script(1_500, "late") }, { "idempotency-key": KEY });
    const wire = new AbortController();
    const left = expect(fetch(`${edge.url}/simple`, { ...start, signal: wire.signal })).rejects.toThrow();
    await until(async () => (await origin.streams()).started === 1, "it has begun");
    wire.abort();
    await left;
    expect((await whole(`${edge.url}/simple`, start)).text).toBe("late");
    expect((await origin.streams()).started).toBe(1);
  });

  test.describe("but behind the start window", () => {
    test.use({ flags: ["--start-window", "50ms"] });

    test("fault 13: with the cursor of the opening event one is back at the same stream", async ({ edge, origin }) => {
      const first = await open(simple(edge, script(1_500, "late")));
      await until(() => first.ids[0], "the opening event");
      await first.leave();
      const again = await whole(`${edge.url}/simple?topic=cat`, { headers: { "last-event-id": first.ids[0] } });
      expect(again.text).toBe("late");
      expect((await origin.streams()).started).toBe(1);
    });
  });
});

test.describe("left", () => {
  test.describe("for longer than the linger", () => {
    const LINGER_MS = 500;
    test.use({ flags: ["--linger", `${LINGER_MS}ms`] });

    test("fault 12: a framed stream ends as abandoned", async ({ edge, origin }) => {
      const stream = await open(`${edge.url}/simple`, posted(ENDLESS));
      await stream.reach(3);
      const left = performance.now();
      await stream.leave();
      await origin.idle();
      const lingered = performance.now() - left;
      expect(lingered).toBeGreaterThanOrEqual(LINGER_MS);
      expect(lingered, "not the usual 20 s").toBeLessThan(10_000);
      const replay = await whole(edge.url + stream.place);
      expect(replay.terminal).toMatchObject({ event: "failed", data: { type: "/problems/abandoned", retryable: true } });
      expect(await origin.record(stream.ids[0])).toMatchObject({ outcome: "abandoned", readers: 1, resumes: 0 });
    });

    test("fault 12: a stream with another reader goes on", async ({ edge, origin }) => {
      const first = await open(`${edge.url}/simple`, posted({ tokens: 40, every_ms: 50 }));
      await first.reach(1);
      const second = await resume(edge, first.ids[0]);
      await first.leave();
      await second.end;
      expect(second.terminal).toMatchObject({ event: "done" });
      expect(second.text).toBe(numbers(40));
      expect(await origin.record(first.ids[0])).toMatchObject({ outcome: "stop", readers: 2, resumes: 1 });
    });
  });

  test.describe("and back in time", () => {
    test.use({ flags: ["--linger", "60s"] });

    test("fault 12: a stream goes on without a reader", async ({ edge, origin }) => {
      const stream = await open(`${edge.url}/simple`, posted({ tokens: 20, every_ms: 50 }));
      await stream.reach(2);
      await stream.leave();
      await origin.idle();
      expect((await whole(edge.url + stream.place)).text).toBe(numbers(20));
      expect((await origin.record(stream.ids[0])).outcome).toBe("stop");
    });

    test("fault 12: a bare stream ends with its reader, at the next token", async ({ edge, origin }) => {
      const stream = await open(simple(edge, script(ENDLESS)), { headers: {} });
      await stream.reach(3);
      await stream.leave();
      await origin.idle();
      expect(await origin.records(1)).toEqual([expect.objectContaining({ outcome: "abandoned" })]);
    });

    test("fault 12: DELETE ends a stream within 1 s, for all its readers", async ({ edge, origin }) => {
      const first = await open(`${edge.url}/simple`, posted("a", 600_000));
      await first.reach(1);
      const second = await resume(edge, first.ids[0]);
      await second.reach(1);
      const asked = performance.now();
      expect((await stop(edge, first.place)).status).toBe(204);
      await origin.idle();
      for (const stream of [first, second]) {
        expect(await stream.end).toBe("ended");
        expect(stream.terminal.at - asked).toBeLessThan(PROMPT_MS);
        expect(stream.terminal).toMatchObject({ event: "done", data: { finish: "stopped" } });
        expect(stream.text).toBe("a");
      }
      // Once more changes nothing.
      expect((await stop(edge, first.place)).status).toBe(204);
      expect((await whole(edge.url + first.place)).terminal.data.finish).toBe("stopped");
    });
  });
});

test("fault 11: 40 s of silence, before the first token and between tokens, break nothing", async ({ edge, origin, page }) => {
  const topics = [script(SILENCE_MS, "late"), script("soon, ", SILENCE_MS, "late")];
  await withFiles(page);
  await page.goto(edge.url);
  const inPage = page.evaluate((topics) => import("/stream.js").then(({ openStream }) => Promise.all(
    topics.flatMap((topic) => ["fetch", "eventsource"].map(async (transport) => {
      const states = [];
      let text = "";
      for await (const chunk of openStream("/simple", { topic }, { transport, onState: ({ state }) => states.push(state) })) text += chunk;
      return { text, states };
    })),
  )), topics);
  const streams = await Promise.all(topics.map((topic) => whole(simple(edge, topic))));
  expect(streams.map(({ text }) => text)).toEqual(["late", "soon, late"]);
  for (const stream of streams) {
    expect(stream.terminal.event).toBe("done");
    expect(stream.comments.length).toBeGreaterThanOrEqual(3);
  }
  for (const [n, { text, states }] of (await inPage).entries()) {
    expect(text).toBe(n < 2 ? "late" : "soon, late");
    expect(states).toEqual(["streaming", "done"]);
  }
  await origin.idle();
  const records = await origin.records(6);
  expect(records).toHaveLength(6);
  for (const { readers, resumes } of records) expect([readers, resumes]).toEqual([1, 0]);
});

test.describe("an origin that is told to stop", () => {
  const DRAIN_MS = 6_000;
  /** For 50 ends to be written, read to their end, and logged, on a machine that does other things too. */
  const A_LITTLE_MS = 4_000;
  test.use({ flags: ["--drain-timeout", `${DRAIN_MS}ms`] });

  test("fault 18: with 100 streams, all complete or end as failed, and it exits with 0 within its deadline", async ({ edge, origin }) => {
    const start = (step) => Array.from({ length: 50 }, () => open(`${edge.url}/simple`, posted(step)));
    const [short, long] = await Promise.all([
      Promise.all(start({ tokens: 20, every_ms: 100 })),
      Promise.all(start(ENDLESS)),
    ]);
    await Promise.all([...short, ...long].map((stream) => stream.reach(1)));
    const told = performance.now();
    origin.kill("SIGTERM");
    const drained = origin.exit.then(() => performance.now() - told);
    await until(async () => (await (await fetch(`${edge.url}/healthz`)).json()).origins.a === "draining", "the origin drains");
    // Meanwhile nothing starts, and what runs is served.
    const refused = await problem(`${edge.url}/simple`, posted("a"));
    expect(refused).toMatchObject({ status: 503, document: { type: "/problems/overloaded", retryable: true } });
    expect(refused.headers.get("retry-after")).toMatch(/^\d+$/);
    const [stopped, ...interrupted] = long;
    const again = await resume(edge, stopped.cursor);
    expect((await stop(edge, stopped.place)).status).toBe(204);
    await again.end;
    expect(again.terminal.data.finish).toBe("stopped");

    expect(await origin.exit).toBe(0);
    expect(await drained).toBeLessThan(DRAIN_MS + A_LITTLE_MS);
    for (const stream of [...short, ...long]) {
      expect(await stream.end).toBe("ended");
      expect(stream.events.filter(({ event }) => event)).toHaveLength(1);
    }
    for (const { text, terminal } of short) expect([text, terminal.data.finish]).toEqual([numbers(20), "stop"]);
    for (const { terminal } of interrupted) {
      expect(terminal).toMatchObject({ event: "failed", data: { type: "/problems/interrupted", retryable: true } });
    }
    expect(await origin.records(100)).toHaveLength(100);
  });
});

test("fault 17: when the origin is killed its streams break off, and restarted it serves new ones", async ({ edge, origin }) => {
  const framed = await open(`${edge.url}/simple`, posted(ENDLESS));
  const bare = await open(simple(edge, script(ENDLESS)), { headers: {} });
  await Promise.all([framed.reach(3), bare.reach(3)]);
  origin.kill("SIGKILL");
  for (const stream of [framed, bare]) {
    expect(await stream.end).toBe("broken");
    expect(stream.terminal).toBeUndefined();
  }
  const away = await resume(edge, framed.cursor);
  expect(away.status).toBe(503);
  expect(away.response.headers.get("retry-after")).toBe("1");

  const next = await spawnOrigin({ port: origin.port });
  try {
    await until(async () => (await resume(edge, framed.cursor)).status === 404, "the old stream is unknown");
    expect((await whole(`${edge.url}/simple`, posted("new"))).text).toBe("new");
  } finally {
    await next.end();
  }
});
