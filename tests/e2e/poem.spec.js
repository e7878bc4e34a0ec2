// The real thing: the edge in workerd, the origin with its embedded model, the page in Chromium.

import { readFile } from "node:fs/promises";
import { test as base, expect } from "./fixtures.js";
import { ROOT, SECRET, fakeOrigin, spawnEdge, spawnOrigin } from "./servers.js";
import { open, post, problem, script, simple, whole } from "./streams.js";

/** Moments at which text appeared; an answer has some fifty tokens, and some of them share a frame. */
const MOMENTS = 8;
/** A poem takes a second where nothing else runs. */
const POEM = { timeout: 90_000 };
/** The edge is built, and another build may be under way. */
const BUILD_MS = 300_000;

const test = base.extend({
  // Two servers and a model, shared by the tests of this file.
  path: [async ({}, use) => {
    const origin = await spawnOrigin({ model: "embedded", flags: ["--log-variables", "--seed", "7"] });
    const edge = await spawnEdge({ origins: { a: origin.url } });
    await use({ origin, edge });
    await edge.end();
    await origin.end();
  }, { scope: "worker", timeout: 400_000 }],
});

test("a poem appears on the page token by token", async ({ path, page }) => {
  await page.goto(path.edge.url);
  await watchText(page);
  await page.fill("#topic", "cat");
  await page.press("#topic", "Enter");
  await expect(page.locator(".state")).toHaveAttribute("data-state", "done", POEM);

  const seen = await page.evaluate(() => window.seen);
  const moments = new Set(seen.map(({ at }) => Math.round(at)));
  expect(moments.size).toBeGreaterThanOrEqual(MOMENTS);
  expect(seen[0].state, "text shows before the answer is over").toBe("streaming");
  const lengths = seen.map(({ length }) => length);
  expect(lengths, "text only grows").toEqual(lengths.toSorted((a, b) => a - b));

  const text = await page.textContent("#streamed-data");
  expect(text.length).toBeGreaterThan(40);
  await expect(page.locator("#state")).toHaveText(/^(Finished|Ended at the length limit): [\d,]+ tokens in /);
  await expect(page.locator("#firstToken")).toHaveText(/^\d+(\.\d)? m?s$/);
  await expect(page.locator("#tokens")).toHaveText(/^\d+$/);
  await expect(page.locator("#rate")).toHaveText(/^\d+(\.\d)?$/);
  await expect(page.locator("#streamed-data")).toHaveAttribute("aria-busy", "false");
});

test("a replay shows the same poem again", async ({ path, page }) => {
  await page.goto(`${path.edge.url}/?topic=river`);
  await page.click("#btnSubmit");
  await expect(page.locator("#btnReplay")).toBeVisible(POEM);
  const text = await page.textContent("#streamed-data");
  await page.click("#btnReplay");
  await expect(page.locator("#state")).toHaveText(/^Replayed: /);
  expect(await page.textContent("#streamed-data")).toBe(text);
});

test("`wrangler dev` by itself builds the edge and serves a poem", async ({ path }) => {
  test.setTimeout(BUILD_MS + 60_000);
  const edge = await spawnEdge({ origins: { a: path.origin.url }, config: `${ROOT}wrangler.toml`, readyMs: BUILD_MS });
  try {
    expect(edge.output()).toContain("cargo xtask edge");
    expect((await whole(simple(edge, "cat"))).terminal.event).toBe("done");
  } finally {
    await edge.end();
  }
});

test("a plain GET prints bare frames, then ends", async ({ path }) => {
  const stream = await whole(simple(path.edge, "cat"), { headers: {} });
  expect(stream.status).toBe(200);
  expect(stream.response.headers.get("content-type")).toBe("text/event-stream; charset=utf-8");
  expect(stream.place).toBeNull();
  expect(await stream.end).toBe("ended");
  expect(stream.events.length).toBeGreaterThan(MOMENTS);
  for (const frame of stream.raw.split("\n\n").slice(0, -1)) {
    expect(frame).toMatch(/^data: \{"chunk":"(?:[^"\\]|\\.)+"\}$/);
  }
});

test("a framed GET has ids, a place, and one terminal event", async ({ path }) => {
  const stream = await whole(simple(path.edge, "cat"));
  const [id] = stream.ids;
  expect(id).toMatch(/^a-[0-9A-Za-z]{22}$/);
  expect(stream.place).toBe(`/streams/${id}`);
  expect(stream.retry).toBe(1000);
  expect(stream.openings).toMatchObject([{ id, data: { id, next: 0 } }]);
  expect(Object.fromEntries(stream.response.headers)).toMatchObject({
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
    vary: expect.stringContaining("Accept"),
    "server-timing": expect.stringMatching(/^[a-z-]+;dur=[\d.]+, origin;desc="a"$/),
  });
  expect(stream.events.map((event) => event.id)).toEqual(stream.events.map((_, n) => `${id}.${n}`));
  const { event, data } = stream.events.at(-1);
  expect(event).toBe("done");
  expect(stream.events.filter(({ event }) => event)).toHaveLength(1);
  expect(["stop", "length"]).toContain(data.finish);
  expect(data.usage.output_tokens).toBeGreaterThan(MOMENTS);
  expect(data.timing.total_ms).toBeGreaterThanOrEqual(data.timing.first_token_ms);
  expect(stream.raw).not.toContain("\r");
});

test("a poem comes token by token over the wire", async ({ path }) => {
  const stream = await whole(simple(path.edge, "sea"));
  // Not as one: what a hop holds back to the end comes at one moment.
  expect(new Set(stream.events.map(({ at }) => at)).size).toBeGreaterThanOrEqual(MOMENTS);
});

test("a POST starts a poem about its topic", async ({ path }) => {
  const stream = await whole(`${path.edge.url}/simple`, post({ topic: "owl" }));
  expect(stream.terminal.event).toBe("done");
  expect(JSON.parse((await path.origin.record(stream.ids[0])).variables)).toEqual({ topic: "owl" });
});

test("/simple is the prompt named simple", async ({ path }) => {
  const stream = await whole(`${path.edge.url}/prompts/simple?topic=owl`);
  expect(stream.terminal.event).toBe("done");
  const record = await path.origin.record(stream.ids[0]);
  expect(record).toMatchObject({ prompt: "simple", variables: '{"topic":"owl"}' });
});

for (const [asked, start] of Object.entries({
  "no topic in the query": ["/simple"],
  "an empty topic in the query": ["/simple?topic="],
  "no topic in the body": ["/simple", post({})],
  "a blank topic in the body": ["/simple", post({ topic: " " })],
})) {
  test(`${asked} asks for a dog`, async ({ path }) => {
    const stream = await open(path.edge.url + start[0], start[1]);
    await stream.reach(1);
    expect(stream.status).toBe(200);
    const [id] = stream.ids;
    await fetch(`${path.edge.url}/streams/${id}`, { method: "DELETE" });
    await stream.end;
    expect(JSON.parse((await path.origin.record(id)).variables)).toEqual({ topic: "dog" });
  });
}

test("an origin without the edge asks its model about a squirrel", async () => {
  const says = await readFile(`${ROOT}tests/fixtures/providers/openai.sse`);
  const provider = await fakeOrigin((response) => response.writeHead(200, { "content-type": "text/event-stream" }).end(says));
  const origin = await spawnOrigin({ model: "embedded", flags: ["--model", `${provider.url}/v1#a-model`] });
  try {
    const headers = { authorization: `Bearer ${SECRET}`, accept: "text/event-stream" };
    const stream = await whole(`${origin.url}/prompts/simple`, { headers });
    expect(stream.terminal).toMatchObject({ event: "done", data: { finish: "stop" } });
    expect(provider.requests).toHaveLength(1);
    expect(JSON.parse(provider.requests[0].body).messages.at(-1)).toEqual({ role: "user", content: "Write a short poem about squirrel" });
  } finally {
    await origin.end();
    await provider.end();
  }
});

test("without --log-variables no topic is in the log", async ({ edge, origin }) => {
  const stream = await whole(simple(edge, "a secret wish"));
  const record = await origin.record(stream.ids[0]);
  expect(record.variables).toBeUndefined();
  expect(origin.output()).not.toContain("secret wish");
});

test("Stop ends the generation at the origin", async ({ path, page }) => {
  await page.goto(path.edge.url);
  // In the page, and at the first text: a whole poem may take less time than a click from here.
  await page.evaluate(() => {
    const output = document.getElementById("streamed-data");
    new MutationObserver(() => document.getElementById("btnStop").click()).observe(output, { childList: true });
  });
  await page.fill("#topic", "a very long journey over the sea, in many verses");
  await page.click("#btnSubmit");
  await expect(page.locator("#state")).toHaveText(/^Stopped: /);
  await expect(page.locator("#btnStop")).toBeDisabled();
  await path.origin.idle();
  const id = new URL(page.url()).searchParams.get("stream");
  expect((await path.origin.record(id)).outcome).toBe("stopped");
});

test("Enter asks and Escape stops, without a mouse", async ({ edge, origin, page }) => {
  await page.goto(edge.url);
  await expect(page.locator("#topic")).toBeFocused();
  await page.keyboard.type(script("a mountain, ", 600_000, "and no end"));
  await page.keyboard.press("Enter");
  await expect(page.locator(".state")).toHaveAttribute("data-state", "streaming");
  await expect(page.locator("#streamed-data")).toHaveText("a mountain, ");
  expect((await origin.streams()).running).toBe(1);
  await page.keyboard.press("Escape");
  await expect(page.locator(".state")).toHaveAttribute("data-state", "stopped");
  expect(await origin.records(1)).toMatchObject([{ outcome: "stopped" }]);
  expect(await page.textContent("#streamed-data")).toBe("a mountain, ");
});

test("healthz tells of edge and origin", async ({ path }) => {
  const { status, document } = await problem(`${path.edge.url}/healthz`);
  expect(status).toBe(200);
  expect(document).toEqual({ status: "ok", origins: { a: "ok" } });
});

test("the page is served with its security headers, and asks no other host", async ({ path, page }) => {
  const asked = [];
  page.on("request", (request) => asked.push(new URL(request.url()).host));
  const response = await page.goto(path.edge.url);
  expect(response.headers()).toMatchObject({
    "content-security-policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
  });
  expect(new Set(asked)).toEqual(new Set([new URL(path.edge.url).host]));
});

// Markup in a model's text would run in the page's name. It must stay text, and the policy must stop what would not.
test("fault 28: hostile text is shown as text, under a policy that would stop it", async ({ edge, origin, page }) => {
  const hostile = ["<img src=x onerror=hacked=1>", "<script>hacked=1</script>", "</div><a href='javascript:hacked=1'>", "\u2028&amp;\0"];
  const asked = [];
  await page.goto(`${edge.url}/?${new URLSearchParams({ topic: script(...hostile) })}`);
  page.on("request", (request) => asked.push(new URL(request.url()).pathname));
  await page.click("#btnSubmit");
  await expect(page.locator(".state")).toHaveAttribute("data-state", "done");
  expect(await page.textContent("#streamed-data")).toBe(hostile.join(""));
  expect(await page.locator("#streamed-data :not(div)").count()).toBe(0);
  expect(asked.filter((path) => path !== "/icon.svg")).toEqual(["/simple"]);

  const stopped = page.evaluate(() => new Promise((resolve) => {
    document.addEventListener("securitypolicyviolation", ({ effectiveDirective }) => resolve(effectiveDirective));
  }));
  await page.evaluate(() => document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.hacked=1'>"));
  expect(await stopped).toMatch(/^script-src/);
  expect(await page.evaluate(() => window.hacked)).toBeUndefined();
  expect((await origin.streams()).started).toBe(1);
});

/** Notes each moment at which text appears. */
function watchText(page) {
  return page.evaluate(() => {
    window.seen = [];
    const output = document.getElementById("streamed-data");
    const state = document.querySelector(".state");
    new MutationObserver(() => {
      if (output.textContent) seen.push({ at: performance.now(), length: output.textContent.length, state: state.dataset.state });
    }).observe(output, { childList: true, characterData: true, subtree: true });
  });
}
