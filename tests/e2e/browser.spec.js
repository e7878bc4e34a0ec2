// The page and its library in Chromium, through the edge: cut, offline, reloaded, in two tabs, left, stopped. One scenario
// per test, so the file is long.

import { expect, test } from "./fixtures.js";
import { cuttable, freePort, sleep, spawnEdge, spawnOrigin, until } from "./servers.js";
import { numbers, script } from "./streams.js";

/** stream.js and EventSource come back after a second or so; whoever would ask again does within this. */
const QUIET_MS = 10_000;
const TRANSPORTS = ["fetch", "eventsource"];
/** Room for some tries of a client that waits twice as long after each. */
const MENDED = { timeout: 90_000 };

const tokens = (count, every_ms) => script({ tokens: count, every_ms });
const pageOf = (edge, topic) => `${edge.url}/?${new URLSearchParams({ topic })}`;
const state = (page) => page.locator(".state");
const shows = (page, text) => expect(page.locator("#streamed-data")).toContainText(text);
const becomes = (page, to, options) => expect(state(page)).toHaveAttribute("data-state", to, options);

/** Opens a stream in the page with its library; `window.runs[name]` tells how it goes. */
function start(page, topic, { name, transport = name }) {
  return page.evaluate(async ({ topic, name, transport }) => {
    const { openStream } = await import("/stream.js");
    window.runs ??= {};
    const run = runs[name] = { texts: [], states: [], over: false };
    const stream = openStream("/simple", { topic }, { transport, onState: ({ state }) => run.states.push(state) });
    run.stream = stream;
    (async () => {
      for await (const text of stream) run.texts.push(text);
      run.result = await stream.result;
    })().catch((error) => { run.error = String(error); }).finally(() => { run.over = true; });
  }, { topic, name, transport });
}

/** Opens a stream in the page with a native EventSource; `window.native` tells how it goes. */
function startNative(page, topic) {
  return page.evaluate((topic) => {
    const native = window.native = { chunks: [], finishes: [] };
    const source = native.source = new EventSource(`/simple?${new URLSearchParams({ topic })}`);
    source.onmessage = ({ data }) => native.chunks.push(JSON.parse(data).chunk);
    source.addEventListener("done", ({ data }) => native.finishes.push(JSON.parse(data).finish));
  }, topic);
}

/** Waits until the native EventSource is closed, for good. */
async function nativeEnds(page) {
  await page.waitForFunction(() => native.source.readyState === EventSource.CLOSED, undefined, MENDED);
  return page.evaluate(() => ({ text: native.chunks.join(""), finishes: native.finishes }));
}

const runs = (page) => page.evaluate(() => Object.fromEntries(Object.entries(window.runs).map(([name, { stream, ...run }]) => [name, run])));
const all = async (page, holds, what) => {
  await until(async () => Object.values(await runs(page)).every(holds), what, MENDED.timeout);
  return runs(page);
};

/** The requests of a page for streams. */
function requestsOf(page) {
  const requests = [];
  page.on("request", (request) => {
    const { pathname } = new URL(request.url());
    if (/^\/(simple|prompts|streams)/.test(pathname)) requests.push(`${request.method()} ${pathname}`);
  });
  return requests;
}

test("fault 5: when the edge is killed in mid-answer and comes back, page, both transports and a native EventSource have every chunk once", async ({ page }) => {
  test.setTimeout(240_000);
  const origin = await spawnOrigin({ flags: ["--linger", "200s"] });
  const port = await freePort();
  const options = { origins: { a: origin.url }, port };
  let edge = await spawnEdge(options);
  try {
    const topic = tokens(60, 100);
    await page.goto(pageOf(edge, topic));
    for (const name of TRANSPORTS) await start(page, topic, { name });
    await startNative(page, topic);
    await page.click("#btnSubmit");
    await shows(page, "9 ");
    await page.waitForFunction(() => native.chunks.length > 9);
    await all(page, ({ texts }) => texts.length > 9, "each has begun");
    edge.kill("SIGKILL");
    await becomes(page, "reconnecting");
    await expect(page.locator("#state")).toHaveText("Connection lost. Reconnecting…");
    await all(page, ({ states }) => states.includes("reconnecting"), "each notices");
    await edge.end();
    edge = await spawnEdge(options);

    for (const { texts, states, result } of Object.values(await all(page, ({ over }) => over, "each is mended"))) {
      expect(texts).toEqual(Array.from({ length: 60 }, (_, n) => `${n} `));
      expect(states.at(-1)).toBe("done");
      expect(result.finish).toBe("stop");
    }
    await becomes(page, "done", MENDED);
    expect(await page.textContent("#streamed-data")).toBe(numbers(60));
    expect(await nativeEnds(page)).toEqual({ text: numbers(60), finishes: ["stop"] });
    expect((await origin.streams()).started).toBe(4);
  } finally {
    await edge.end();
    await origin.end();
  }
});

test("fault 6: after the end nobody asks again, but for a native EventSource once, which gets a 204", async ({ edge, origin, page }) => {
  await page.goto(edge.url);
  const requests = requestsOf(page);
  const statuses = [];
  page.on("response", (response) => {
    if (new URL(response.url()).pathname === "/simple") statuses.push(response.status());
  });
  await startNative(page, tokens(20, 20));
  for (const name of TRANSPORTS) await start(page, tokens(20, 20), { name });
  await all(page, ({ over }) => over, "both have ended");
  expect(await nativeEnds(page)).toEqual({ text: numbers(20), finishes: ["stop"] });
  expect(statuses.toSorted()).toEqual([200, 200, 200, 204]);
  const before = [...requests];
  await sleep(QUIET_MS);
  expect(requests).toEqual(before);
  expect(requests.toSorted()).toEqual(["GET /simple", "GET /simple", "GET /simple", "POST /simple"]);
  expect((await origin.streams()).started).toBe(3);
});

test("a native EventSource that is cut off goes on where it was", async ({ edge, origin, page }) => {
  const wire = await cuttable(edge.port);
  try {
    await page.goto(wire.url);
    await startNative(page, tokens(60, 50));
    for (const count of [5, 25]) {
      await page.waitForFunction((count) => native.chunks.length > count, count);
      wire.cut();
    }
    expect(await nativeEnds(page)).toEqual({ text: numbers(60), finishes: ["stop"] });
    expect((await origin.streams()).started).toBe(1);
  } finally {
    wire.end();
  }
});

test.describe("with an answer that begins before its first token", () => {
  test.use({ flags: ["--start-window", "50ms"] });

  test("fault 13: a native EventSource cut off there is back at the same stream, with the cursor of the opening event", async ({ edge, origin, page, context }) => {
    const wire = await cuttable(edge.port);
    try {
      await page.goto(wire.url);
      const network = await context.newCDPSession(page);
      await network.send("Network.enable");
      const sources = new Set();
      let bytes = 0;
      network.on("Network.requestWillBeSent", ({ requestId, type }) => { if (type === "EventSource") sources.add(requestId); });
      network.on("Network.dataReceived", ({ requestId, dataLength }) => { if (sources.has(requestId)) bytes += dataLength; });
      await startNative(page, script(5_000, "late"));
      await until(() => bytes > 0, "the opening event");
      wire.cut();
      await page.waitForFunction(() => native.source.readyState === EventSource.CONNECTING);
      expect(await page.evaluate(() => native.chunks)).toEqual([]);
      expect(await nativeEnds(page)).toEqual({ text: "late", finishes: ["stop"] });
      const [record] = await origin.records(1);
      // Chromium's own tools don't tell of this header.
      const cursors = [...wire.sent().matchAll(/^last-event-id: (.+)\r$/gim)].map(([, cursor]) => cursor);
      expect(cursors).toEqual([record.stream, `${record.stream}.1`]);
      expect(sources.size).toBe(3);
      expect(record).toMatchObject({ outcome: "stop", resumes: 1 });
      expect((await origin.streams()).started).toBe(1);
    } finally {
      wire.end();
    }
  });
});

test("when the network is gone and comes back, the text is whole", async ({ edge, origin, page, context }) => {
  const wire = await cuttable(edge.port); // Chromium's offline mode stops new requests, not those under way
  try {
    const topic = tokens(80, 50);
    await page.goto(pageOf(wire, topic));
    await start(page, topic, { name: "eventsource" });
    await startNative(page, topic);
    await page.click("#btnSubmit");
    await shows(page, "9 ");
    await page.waitForFunction(() => native.chunks.length > 9);
    await context.setOffline(true);
    wire.cut();
    await becomes(page, "reconnecting");
    await expect(page.locator("#state")).toHaveText("You are offline. It goes on when the network is back.");
    await context.setOffline(false);
    await becomes(page, "done", MENDED);
    expect(await page.textContent("#streamed-data")).toBe(numbers(80));
    const { eventsource } = await all(page, ({ over }) => over, "the other is mended");
    expect(eventsource.texts.join("")).toBe(numbers(80));
    expect(await nativeEnds(page)).toEqual({ text: numbers(80), finishes: ["stop"] });
    expect((await origin.streams()).started).toBe(3);
  } finally {
    await context.setOffline(false);
    wire.end();
  }
});

test("fault 37: a page that was frozen while its connection died goes on", async ({ edge, origin, page, context }) => {
  const wire = await cuttable(edge.port);
  try {
    const topic = tokens(60, 50);
    await page.goto(wire.url);
    for (const name of TRANSPORTS) await start(page, topic, { name });
    await all(page, ({ texts }) => texts.length > 9, "each has begun");
    const cdp = await context.newCDPSession(page);
    await cdp.send("Page.setWebLifecycleState", { state: "frozen" });
    wire.cut();
    await cdp.send("Page.setWebLifecycleState", { state: "active" });
    for (const { texts } of Object.values(await all(page, ({ over }) => over, "each is whole"))) expect(texts.join("")).toBe(numbers(60));
    expect((await origin.streams()).started).toBe(2);
  } finally {
    wire.end();
  }
});

test("fault 37: a page that comes out of the back-forward cache goes on", async ({ edge, origin, playwright, launchOptions }) => {
  const browser = await playwright.chromium.launch({ ...launchOptions, ignoreDefaultArgs: ["--disable-back-forward-cache"] });
  try {
    const page = await browser.newPage();
    await page.goto(edge.url);
    await start(page, tokens(60, 50), { name: "fetch" });
    await all(page, ({ texts }) => texts.length > 9, "it has begun");
    await page.evaluate(() => addEventListener("pageshow", ({ persisted }) => { window.persisted = persisted; }));
    // Playwright waits for ever for a page that was kept: its protocol is spoken by hand.
    const cdp = await page.context().newCDPSession(page);
    const look = async (expression) => (await cdp.send("Runtime.evaluate", { expression, returnByValue: true })).result.value;
    await cdp.send("Page.navigate", { url: `${edge.url}/icon.svg` });
    await until(async () => await look("location.pathname") === "/icon.svg", "another page is there");
    await cdp.send("Runtime.evaluate", { expression: "history.back()" }).catch(() => {});
    await until(async () => await look("window.persisted").catch(() => {}), "Chromium kept the page");
    await until(() => look("runs.fetch.over"), "it is whole");
    expect(await look("runs.fetch.texts.join('')")).toBe(numbers(60));
    expect((await origin.streams()).started).toBe(1);
  } finally {
    await browser.close();
  }
});

test("fault 36: six streams over HTTP/1.1, then Stop of the first: it is stopped at once", async ({ edge, origin, page }) => {
  await page.goto(edge.url);
  for (let n = 0; n < 6; n++) await start(page, tokens(10_000, 50), { name: `${n}`, transport: "fetch" });
  await all(page, ({ texts }) => texts.length > 3, "each has begun");
  const ms = await page.evaluate(async () => {
    const from = performance.now();
    await runs[0].stream.stop();
    return performance.now() - from;
  });
  expect(ms).toBeLessThan(5_000); // it would never be, as long as the six run
  await until(async () => (await runs(page))["0"].over, "its end is read");
  expect((await origin.streams()).running).toBe(5);
  await page.evaluate(() => { for (const { stream } of Object.values(runs)) void stream.stop(); });
  await origin.idle();
});

test("a reload in mid-answer goes on with the same answer", async ({ edge, origin, page }) => {
  await page.goto(pageOf(edge, tokens(60, 50)));
  await page.click("#btnSubmit");
  await shows(page, "9 ");
  await page.reload();
  await becomes(page, "done");
  expect(await page.textContent("#streamed-data")).toBe(numbers(60));
  await expect(page.locator("#state")).toHaveText(/^Finished: /);
  expect((await origin.streams()).started).toBe(1);
});

test("a reload before the first token goes on with the same answer", async ({ edge, origin, page }) => {
  await page.goto(pageOf(edge, script(1_500, "late")));
  await page.click("#btnSubmit");
  await until(async () => (await origin.streams()).started === 1, "it has begun");
  await page.reload();
  await becomes(page, "done");
  expect(await page.textContent("#streamed-data")).toBe("late");
  expect((await origin.streams()).started).toBe(1);
});

test("fault 9: two tabs show one answer, both whole", async ({ edge, origin, page, context }) => {
  await page.goto(pageOf(edge, tokens(60, 50)));
  await page.click("#btnSubmit");
  await shows(page, "9 ");
  const other = await context.newPage();
  await other.goto(page.url());
  for (const tab of [page, other]) {
    await becomes(tab, "done");
    expect(await tab.textContent("#streamed-data")).toBe(numbers(60));
  }
  expect((await origin.streams()).started).toBe(1);
});

test("closing the tab leaves: the answer is written to its end, and is there for whoever opens it again", async ({ edge, origin, page, context }) => {
  await page.goto(pageOf(edge, tokens(40, 50)));
  await page.click("#btnSubmit");
  await shows(page, "5 ");
  const address = page.url();
  await page.close();
  await origin.idle();
  expect((await origin.records(1))[0].outcome).toBe("stop");
  const later = await context.newPage();
  await later.goto(address);
  await becomes(later, "done");
  expect(await later.textContent("#streamed-data")).toBe(numbers(40));
  expect((await origin.streams()).started).toBe(1);
});

test("Stop ends the answer in every tab, and keeps what is there", async ({ edge, origin, page, context }) => {
  await page.goto(pageOf(edge, tokens(10_000, 50)));
  await page.click("#btnSubmit");
  await shows(page, "5 ");
  const other = await context.newPage();
  await other.goto(page.url());
  await shows(other, "5 ");
  await page.click("#btnStop");
  for (const tab of [page, other]) {
    await becomes(tab, "stopped");
    await expect(tab.locator("#state")).toHaveText(/^Stopped: /);
    await shows(tab, numbers(6));
  }
  await origin.idle();
  expect((await origin.records(1))[0].outcome).toBe("stopped");
});

test("Stop before the first token ends the answer too", async ({ edge, origin, page }) => {
  await page.goto(pageOf(edge, script(600_000, "never")));
  await page.click("#btnSubmit");
  await until(async () => (await origin.streams()).running === 1, "it has begun");
  await page.click("#btnStop");
  await becomes(page, "stopped");
  await origin.idle();
  expect((await origin.records(1))[0].outcome).toBe("stopped");
});

test("another question ends the answer before", async ({ edge, origin, page }) => {
  await page.goto(pageOf(edge, tokens(10_000, 50)));
  await page.click("#btnSubmit");
  await shows(page, "5 ");
  await page.fill("#topic", "cat");
  await page.press("#topic", "Enter");
  await becomes(page, "done");
  expect(await page.textContent("#streamed-data")).toBe("In a line, and then one more.");
  await origin.idle();
  expect((await origin.records(2)).map(({ outcome }) => outcome).toSorted()).toEqual(["stop", "stopped"]);
});

test("a failure in mid-answer is told in words, and the text stays", async ({ edge, origin, page }) => {
  await page.goto(pageOf(edge, script("half of ", "it", { fail: "broke-off" })));
  await page.click("#btnSubmit");
  await becomes(page, "failed");
  await expect(page.locator("#problem")).toBeVisible();
  await expect(page.locator("#problemWhat")).toHaveText("The model broke off.");
  await expect(page.locator("#btnAgain")).toBeVisible();
  expect(await page.textContent("#streamed-data")).toBe("half of it");
  expect((await origin.streams()).started, "nothing restarts by itself").toBe(1);
});

test("fault 17: when the origin is killed in mid-answer the page shows a fault, never a finished answer", async ({ edge, origin, page }) => {
  await page.goto(pageOf(edge, tokens(10_000, 50)));
  await page.evaluate(() => {
    window.states = [];
    const state = document.querySelector(".state");
    new MutationObserver(() => states.push(state.dataset.state)).observe(state, { attributes: true });
  });
  await page.click("#btnSubmit");
  await shows(page, "9 ");
  origin.kill("SIGKILL");
  await becomes(page, "reconnecting");

  const next = await spawnOrigin({ port: origin.port });
  try {
    await becomes(page, "failed", MENDED);
    await expect(page.locator("#state")).toHaveText("Not finished.");
    await expect(page.locator("#problem")).toBeVisible();
    await shows(page, numbers(10));
    expect(await page.evaluate(() => states)).not.toContain("done");
    expect((await next.streams()).started, "nothing restarts by itself").toBe(0);
    // And a person may ask again.
    await page.fill("#topic", "cat");
    await page.press("#topic", "Enter");
    await becomes(page, "done");
  } finally {
    await next.end();
  }
});

test("when no origin is there the page says so", async ({ edge, page }) => {
  await page.goto(pageOf(edge, "cat"));
  await page.click("#btnSubmit");
  await becomes(page, "failed", MENDED);
  await expect(page.locator("#problemWhat")).toHaveText("The model’s server can’t be reached.");
  await expect(page.locator("#state")).toHaveText("No answer.");
});

test("on a phone's screen nothing is cut off", async ({ edge, origin, page }) => {
  await page.setViewportSize({ width: 320, height: 640 });
  await page.goto(pageOf(edge, script("A word that is one: ", { repeat: "w", times: 100 }, " and a few that are some.")));
  await page.click("#btnSubmit");
  await becomes(page, "done");
  expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(320);
  expect(await cutOff(page)).toEqual([]);
  expect((await origin.streams()).started).toBe(1);
});

/** Every element with a text of its own that the screen, or its own box, is too narrow for. */
function cutOff(page) {
  return page.evaluate(() => {
    const hasText = (element) => [...element.childNodes].some(({ nodeType, data }) => nodeType === Node.TEXT_NODE && data.trim());
    const tooWide = (element) => {
      const range = document.createRange();
      range.selectNodeContents(element);
      const { left, right, width } = range.getBoundingClientRect();
      const { overflowX } = getComputedStyle(element);
      return width > 0 && (left < 0 || right > innerWidth || overflowX !== "visible" && element.scrollWidth > element.clientWidth);
    };
    const elements = [...document.body.querySelectorAll(":not(.unseen)")]; // that one is for screen readers
    return elements.filter((element) => hasText(element) && tooWide(element)).map(({ outerHTML }) => outerHTML);
  });
}
