// Two origins with one journal in Redis, behind one edge: what one of them writes the other one serves and stops, and what
// becomes of it when one dies, or Redis does.

import { expect, test as base } from "@playwright/test";
import { cuttable, freePort, spawnGroup, spawnOrigin, until } from "./servers.js";
import { open, post, posted, problem, resume, script, simple, whole } from "./streams.js";
import { spawnWorkerd, withFiles } from "./workerd.js";

const PACE = { tokens: 200, every_ms: 25 }; // five seconds
const TEXT = Array.from({ length: PACE.tokens }, (_, number) => `${number} `).join("");
const ENDLESS = { tokens: 100_000, every_ms: 25 };
/** A dead origin's streams are ended after its lease, and a look at it. */
const LEASE_MS = 25_000;

const test = base.extend({
  /** A Redis that keeps nothing on disk. */
  redis: async ({}, use) => {
    const port = await freePort();
    let server = await spawnRedis(port);
    await use({
      address: `redis://127.0.0.1:${port}`,
      async kill() {
        server.kill("SIGKILL");
        await server.exit;
      },
      async startAgain() {
        server = await spawnRedis(port);
      },
    });
    await server.end();
  },
  /** The edge and its origins; the edge reaches `a` by a wire that can be cut. */
  deployment: async ({ redis }, use) => {
    const flags = ["--journal", redis.address];
    const [a, b] = await Promise.all([spawnOrigin({ name: "a", flags }), spawnOrigin({ name: "b", flags })]);
    const wire = await cuttable(a.port);
    const edge = await spawnWorkerd({ origins: { a: wire.url, b: b.url }, vars: { SHARED_JOURNAL: "true" } });
    await use({ edge, a, b, wire, redis });
    await edge.end();
    wire.end();
    await Promise.all([a.end(), b.end()]);
  },
});

test("fault 17: cut off from the origin that writes it, a stream is resumed at the other one", async ({ deployment: { edge, a, b, wire } }) => {
  const first = await open(simple(edge, script(PACE)));
  await first.reach(20);
  wire.end();
  expect(await first.end).toBe("broken");
  const rest = await resume(edge, first.cursor);
  await rest.end;
  expect(rest.terminal).toMatchObject({ event: "done" });
  expect(first.text + rest.text).toBe(TEXT);
  expect((await a.streams()).started + (await b.streams()).started).toBe(1);
  expect((await problem(`${edge.url}${first.place}`, { headers: { "last-event-id": rest.cursor } })).status).toBe(204);
});

test("a stream is stopped where it is not written", async ({ deployment: { edge, a, wire } }) => {
  const first = await open(simple(edge, script(ENDLESS)));
  await first.reach(5);
  wire.end();
  // An edge waits 10 s: a stop that isn't answered by then is a 504.
  expect((await fetch(`${edge.url}${first.place}`, { method: "DELETE" })).status).toBe(204);
  await a.idle();
  expect(await a.records(1)).toMatchObject([{ outcome: "stopped" }]);
});

test("fault 10: a start repeated at the other origin is the same stream", async ({ deployment: { edge, a, b, wire } }) => {
  const start = post({ topic: script(PACE) }, { "idempotency-key": "a-key-of-the-tests-1" });
  const first = await open(`${edge.url}/simple`, start);
  await first.reach(5);
  wire.end();
  const again = await whole(`${edge.url}/simple`, start);
  expect(again.text).toBe(TEXT);
  expect(again.place).toBe(first.place);
  expect((await a.streams()).started + (await b.streams()).started).toBe(1);
});

test("fault 17: killed in mid-answer, an origin's stream plainly fails at the other one", async ({ deployment: { edge, a } }) => {
  const first = await open(simple(edge, script(PACE)));
  await first.reach(20);
  a.kill("SIGKILL");
  expect(await first.end).toBe("broken");
  expect(first.terminal, "it never looks complete").toBeUndefined();
  const asked = performance.now();
  const rest = await resume(edge, first.cursor);
  await rest.end;
  expect(performance.now() - asked).toBeLessThan(LEASE_MS);
  expect(rest.terminal).toMatchObject({ event: "failed", data: { type: "/problems/interrupted", retryable: true } });
  expect(TEXT.startsWith(first.text + rest.text), "nothing lost, nothing doubled").toBe(true);
  expect((await whole(`${edge.url}/simple`, posted("new"))).terminal).toMatchObject({ event: "done" });
});

test("fault 17: killed in mid-answer, an origin's answer on the page plainly fails, and the next comes from the other one", async ({ deployment: { edge, a, b }, page }) => {
  await withFiles(page);
  await page.goto(`${edge.url}/?${new URLSearchParams({ topic: script(PACE) })}`);
  await page.evaluate(() => {
    window.states = [];
    const state = document.querySelector(".state");
    new MutationObserver(() => states.push(state.dataset.state)).observe(state, { attributes: true });
  });
  await page.click("#btnSubmit");
  await expect(page.locator("#streamed-data")).toContainText("9 ");
  a.kill("SIGKILL");
  const state = page.locator(".state");
  await expect(state).toHaveAttribute("data-state", "failed", { timeout: 2 * LEASE_MS });
  await expect(page.locator("#state")).toHaveText("Not finished.");
  await expect(page.locator("#problemWhat")).toHaveText("The server that wrote this answer went away.");
  await expect(page.locator("#btnAgain")).toBeVisible();
  const text = await page.textContent("#streamed-data");
  expect(TEXT.startsWith(text) && text.length < TEXT.length, "nothing lost, nothing doubled").toBe(true);
  expect(await page.evaluate(() => states), "it never looked finished").not.toContain("done");
  expect((await b.streams()).started, "nothing restarts by itself").toBe(0);

  await page.click("#btnAgain");
  await expect(state).toHaveAttribute("data-state", "done");
  expect(await page.textContent("#streamed-data")).toBe(TEXT);
  expect(new URL(page.url()).searchParams.get("stream")).toMatch(/^b-/);
  expect((await b.streams()).started).toBe(1);
});

test("Redis restarted empty: running streams plainly fail, starts are refused meanwhile and work again", async ({ deployment: { edge, redis } }) => {
  const first = await open(simple(edge, script(ENDLESS)));
  await first.reach(5);
  await redis.kill();
  const refused = await problem(`${edge.url}/simple`, posted("meanwhile"));
  expect(refused.status).toBe(503);
  expect(refused.document).toMatchObject({ type: "/problems/journal", retryable: true });
  expect(refused.headers.get("retry-after")).toBe("1");
  await redis.startAgain();
  await first.end;
  expect(first.terminal).toMatchObject({ event: "failed", data: { type: "/problems/journal", retryable: true } });
  const after = await until(async () => {
    const start = await whole(`${edge.url}/simple`, posted("new"));
    return start.status === 200 && start;
  }, "a start after the restart");
  expect(after.text).toBe("new");
});

async function spawnRedis(port) {
  const flags = ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
  const server = spawnGroup("redis-server", flags, {});
  await until(() => server.ended() || server.output().includes("Ready to accept connections"), "Redis is ready");
  if (server.ended()) throw new Error(`redis-server did not start; install it: ${server.output()}`);
  return server;
}
