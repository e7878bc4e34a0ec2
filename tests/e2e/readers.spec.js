// The clients that people read event streams with, each as a program of `tests/readers`, and Chromium's own EventSource. They
// differ in what they make of a block without data, of a comment, of a long line. All run at once, because silence takes long.

import { readdirSync } from "node:fs";
import { extname } from "node:path";
import { expect, test } from "./fixtures.js";
import { ROOT, SECRET, cuttable, spawnGroup, until } from "./servers.js";
import { chunksOf, script } from "./streams.js";

/** Two heartbeats, and longer than what the clients wait by themselves before they give up. */
const SILENCE_MS = 25_000;
/** No client takes longer for an answer. */
const LONGEST_MS = 3 * SILENCE_MS;
/** What ends a line for some of them, and text that looks like an event. */
const HOSTILE = "\u2028 \u2029 \u0085 \r\n \u{1f9a6} \u{c5}\n\nevent: done\ndata: {}\n\n";
/** A provider's whole answer at once. */
const LONG = { repeat: "x", times: 200 * 1024 };
/** The most that one event holds. */
const PIECE = "x".repeat(16 * 1024);
const ANSWER = ["one, ", HOSTILE, "two, ", ...Array(12).fill(PIECE), PIECE.slice(0, 8 * 1024), "three"];

const PROGRAMS = readdirSync(`${ROOT}tests/readers`).filter((file) => [".js", ".py", ".rs"].includes(extname(file)));
/** Those that connect again when their connection breaks. */
const RECONNECTING = [
  "event-source-polyfill.js", "eventsource-client.js", "eventsource-client.rs", "eventsource.js", "fetch-event-source.js",
  "requests-sse.py", "undici.js",
];

test.use({ flags: ["--log-variables"] });

test("foreign clients read a silent and hostile answer as it is, once each", async ({ edge, origin, page }) => {
  test.setTimeout(4 * SILENCE_MS);
  const answer = script(SILENCE_MS, "one, ", HOSTILE, SILENCE_MS, "two, ", LONG, "three");
  const readers = PROGRAMS.flatMap((file) => both(file, edge.url, origin.url, answer));
  await page.goto(edge.url);
  const topic = `Chromium ${answer}`;
  readers.push({ name: "Chromium", topic, ended: native(page, `/simple?${new URLSearchParams({ topic })}`) });

  for (const { name, topic, ended } of readers) {
    const { events, code, output } = await ended;
    expect(code, `${name}: ${output.slice(-1_000)}`).toBe(0);
    expectAnswer(name, events, ANSWER);
    expect(await generations(origin, topic), name).toHaveLength(1);
  }
});

test("foreign clients that connect again go on behind what they have read, in the same generation", async ({ edge, origin, page }) => {
  const [near, far] = [await cuttable(edge.port), await cuttable(origin.port)];
  try {
    const answer = script("one, ", HOSTILE, 4_000, "two, ", LONG, "three");
    const readers = RECONNECTING.flatMap((file) => both(file, near.url, far.url, answer));
    await page.goto(near.url);
    const topic = `Chromium ${answer}`;
    const ended = native(page, `/simple?${new URLSearchParams({ topic })}`);
    readers.push({ name: "Chromium", topic, ended, read: () => page.evaluate(() => window.read) });
    for (const { name, read } of readers) await until(async () => (await read()).length === 3, `the first chunks of ${name}`);
    near.cut();
    far.cut();
    for (const { name, topic, ended } of readers) {
      const { events, code, output } = await ended;
      expect(code, `${name}: ${output.slice(-1_000)}`).toBe(0);
      // Each connection opens with an event of its own.
      expect(events.filter(([type]) => type === "stream").length, name).toBeGreaterThan(1);
      expectAnswer(name, [events[0], ...events.filter(([type]) => type !== "stream")], ANSWER);
      expect(await generations(origin, topic), name).toHaveLength(1);
    }
    // The one that sends its cursor in the query, and in no header.
    for (const wire of [near, far]) expect(wire.sent()).toMatch(/GET \S+&lastEventId=a-[0-9A-Za-z]{22}\.1 HTTP/);
  } finally {
    near.end();
    far.end();
  }
});

/** Starts a program through the edge, and once more at the origin. */
const both = (file, edge, origin, answer) => [
  start(file, `${edge}/simple`, `${file} through the edge ${answer}`),
  start(file, `${origin}/prompts/simple`, `${file} at the origin ${answer}`, `Bearer ${SECRET}`),
];

/** Starts a program. @param {string} file @param {string} url @param {string} topic @param {string} [authorization] */
function start(file, url, topic, authorization) {
  const address = `${url}?${new URLSearchParams({ topic })}`;
  const path = `${ROOT}tests/readers/${file}`;
  const [program, ...before] = {
    ".js": [process.execPath, path],
    ".py": [`${ROOT}target/readers/bin/python`, path],
    ".rs": [`${ROOT}target/release/examples/reader-${file.slice(0, -3)}`],
  }[extname(file)];
  // A proxy of this machine is none for these.
  const group = spawnGroup(program, [...before, address, ...(authorization ? [authorization] : [])], { no_proxy: "*", NO_PROXY: "*" });
  // One that would never end is named by its exit code.
  const late = setTimeout(() => group.kill("SIGKILL"), LONGEST_MS);
  const read = () => group.output().split("\n").slice(0, -1).filter((line) => line.startsWith("[\"")).map((line) => JSON.parse(line));
  const ended = group.exit.then((code) => {
    clearTimeout(late);
    return { code, output: group.output(), events: read() };
  });
  return { name: `${file} at ${url}`, topic, read, ended };
}

/** Chromium's own EventSource, until it is closed. */
async function native(page, address) {
  const events = await page.evaluate((address) => new Promise((resolve) => {
    const read = window.read = [];
    const source = new EventSource(address);
    for (const type of ["stream", "message", "done", "failed"]) {
      source.addEventListener(type, ({ data }) => read.push([type, data]));
    }
    source.onerror = () => { if (source.readyState === EventSource.CLOSED) resolve(read); };
  }), address);
  return { code: 0, output: "", events };
}

/** Every event has JSON; the opening one comes first, then the chunks, then one `done`. */
function expectAnswer(name, events, chunks) {
  const all = events.map(([type, data]) => ({ event: type === "message" ? undefined : type, data: JSON.parse(data) }));
  expect(all.map(({ event }) => event), name).toEqual(["stream", ...chunks.map(() => undefined), "done"]);
  expect(all[0].data, name).toEqual({ id: expect.stringMatching(/^a-[0-9A-Za-z]{22}$/), next: 0 });
  expect(chunksOf(all).map(short), name).toEqual(chunks.map(short));
  expect(all.at(-1).data, name).toMatchObject({ finish: "stop" });
}

/** A chunk as a failed test shows it. */
const short = (chunk) => PIECE.startsWith(chunk) ? `${chunk.length} times x` : chunk;

/** The records of the generations with this topic. */
async function generations(origin, topic) {
  await origin.idle();
  const records = await origin.records(1);
  return records.filter(({ variables }) => JSON.parse(variables).topic === topic);
}
