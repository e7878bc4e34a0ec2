// What happens to the page around a stream. The events are the browser's; tests/e2e/browser.spec.js has them from Chromium itself.

import assert from "node:assert/strict";
import { test } from "node:test";

import { openStream } from "../../public/stream.js";
import { browser, calm, chunks, done, ID, mockTime, observe, opening, PREAMBLE, refuse, serve, until, whole } from "./helpers.js";

const rest = whole(chunks(["b"], 1), done(2));

for (const transport of /** @type {const} */ (["fetch", "eventsource"])) {
  for (const [what, happens] of [
    ["the page is seen again after a while in the background", (window, document, tick) => {
      document.hidden = true;
      window.dispatchEvent(new Event("visibilitychange"));
      tick(3_001);
      document.hidden = false;
      window.dispatchEvent(new Event("visibilitychange"));
    }],
    ["a page that was opened in the background is seen", (window, document, tick) => {
      tick(3_001);
      window.dispatchEvent(new Event("visibilitychange"));
    }],
    ["the page comes out of the back-forward cache", (window) => {
      window.dispatchEvent(Object.assign(new Event("pageshow"), { persisted: true }));
    }],
    ["a frozen page goes on", (window) => { window.dispatchEvent(new Event("resume")); }],
  ]) {
    test(`fault 37: ${transport}: when ${what}, a connection from before is not trusted`, async (t) => {
      mockTime(t);
      const document = { hidden: false, prerendering: false };
      const window = browser(t, document);
      const { base, requests } = await serve(t, opening(PREAMBLE, chunks(["a"])), rest);
      const { stream, outcome, delays, skip } = observe(t, (options) => openStream(`${base}/simple`, {}, { transport, ...options }));
      await until(() => stream.cursor === `${ID}.0`);
      happens(window, document, (ms) => t.mock.timers.tick(ms));
      await skip(1);
      assert.deepEqual((await outcome).texts, ["a", "b"]);
      assert.deepEqual(delays, [0]);
      assert.equal(requests.length, 2);
    });
  }

  test(`fault 37: ${transport}: a prerendered page asks when it is shown`, async (t) => {
    mockTime(t);
    const document = { hidden: true, prerendering: true };
    const window = browser(t, document);
    const { base, requests } = await serve(t, whole(PREAMBLE, chunks(["a"]), done(1)));
    const { outcome } = observe(t, (options) => openStream(`${base}/simple`, {}, { transport, ...options }));
    window.dispatchEvent(new Event("online"));
    await calm();
    assert.equal(requests.length, 0);
    Object.assign(document, { hidden: false, prerendering: false });
    window.dispatchEvent(new Event("prerenderingchange"));
    assert.deepEqual((await outcome).texts, ["a"]);
    assert.equal(requests.length, 1);
  });
}

test("what a page goes through as it loads, or when it is away for a moment only, disturbs no connection", async (t) => {
  mockTime(t);
  const document = { hidden: false, prerendering: false };
  const window = browser(t, document);
  let connection;
  const { base, requests } = await serve(t, (res) => { connection = res; opening(PREAMBLE, chunks(["a"]))(res); });
  const { stream, outcome } = observe(t, (options) => openStream(`${base}/simple`, {}, options));
  await until(() => stream.cursor === `${ID}.0`);
  window.dispatchEvent(Object.assign(new Event("pageshow"), { persisted: false }));
  for (const hidden of [true, false]) {
    t.mock.timers.tick(3_000);
    document.hidden = hidden;
    window.dispatchEvent(new Event("visibilitychange"));
  }
  connection.end(chunks(["b"], 1) + done(2));
  assert.deepEqual((await outcome).texts, ["a", "b"]);
  assert.equal(requests.length, 1);
});

test("a page that is seen again doesn't cut a `Retry-After` short", async (t) => {
  mockTime(t);
  const window = browser(t);
  const { base, requests } = await serve(t, refuse(503, { retryable: true }, { "retry-after": "7" }), whole(PREAMBLE, done(0)));
  const { outcome, delays, skip } = observe(t, (options) => openStream(`${base}/simple`, {}, options));
  await until(() => delays.length === 1);
  window.dispatchEvent(Object.assign(new Event("pageshow"), { persisted: true }));
  await calm();
  assert.equal(requests.length, 1);
  await skip(1);
  await outcome;
});

for (const [what, end] of [["stopped", (stream) => stream.stop()], ["left", (stream, leaving) => leaving.abort()]]) {
  test(`${what} while it is prerendered, a page asks for nothing`, async (t) => {
    const document = { hidden: true, prerendering: true };
    browser(t, document);
    const { base, requests } = await serve(t);
    const leaving = new AbortController();
    const { stream, outcome } = observe(t, (options) => openStream(`${base}/simple`, {}, { signal: leaving.signal, ...options }));
    await calm();
    await end(stream, leaving);
    await outcome;
    assert.equal(stream.state, what);
    assert.equal(requests.length, 0);
  });
}
