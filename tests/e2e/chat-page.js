// The chat page in Chromium, through the edge to a scripted model: what its tests share.

import { test as base, expect } from "@playwright/test";
import { spawnEdge, spawnOrigin } from "./servers.js";
import { script } from "./streams.js";

export { expect };

export const test = base.extend({
  /** An edge that is open for chats, and its origin. */
  chat: [async ({}, use) => {
    const origin = await spawnOrigin({ flags: ["--linger", "60s", "--reasoning"] });
    const edge = await spawnEdge({ origins: { a: origin.url }, vars: { CHAT: "open" } });
    await use({ url: edge.url, origin });
    await edge.end();
    await origin.end();
  }, { scope: "worker", timeout: 240_000 }],
  /** How many answers the test has started. */
  started: async ({ chat }, use) => {
    const before = (await chat.origin.streams()).started;
    await use(async () => (await chat.origin.streams()).started - before);
  },
  /** The chat page, as a visitor finds it who comes for the first time. */
  tab: async ({ chat, page }, use) => {
    await page.goto(`${chat.url}/chat.html`);
    await use(page);
  },
});

export const tokens = (count, every_ms) => script({ tokens: count, every_ms });
/** The mean time between two tokens of an answer that something happens to. */
export const PACE_MS = 100;

export const question = (page) => page.getByRole("textbox", { name: "Message" });
export const questions = (page) => page.getByRole("article", { name: "You" });
export const answers = (page) => page.getByRole("article", { name: "Answer" });
export const textOf = (article) => article.locator(".text");
export const button = (page, name) => page.getByRole("button", { name, exact: true });
export const status = (page) => page.locator("#state[role=status]");
/** What is said beside the state, for a while. */
export const passing = (page) => page.locator("#passing[role=status]");
export const becomes = (page, to) => expect(page.locator(".state")).toHaveAttribute("data-state", to);
/** All of the last answer's text. */
export const says = (page, text) => expect.poll(() => textOf(answers(page).last()).textContent()).toBe(text);
export const shows = (page, text) => expect(textOf(answers(page).last())).toContainText(text);

export async function send(page, text) {
  await question(page).fill(text);
  await question(page).press("Enter");
}

/** What a screen reader is told of the answers, from now on. @returns {Promise<() => Promise<string[]>>} */
export async function hearing(page) {
  await page.evaluate(() => {
    window.heard = [];
    new MutationObserver((records) => {
      for (const { addedNodes } of records) for (const node of addedNodes) heard.push(node.textContent);
    }).observe(document.getElementById("spoken"), { childList: true });
  });
  return () => page.evaluate(() => heard);
}

/** The bodies and keys of a page's starts. */
export function startsOf(page) {
  const starts = [];
  page.on("request", (request) => {
    if (request.method() === "POST") starts.push({ ...request.postDataJSON(), key: request.headers()["idempotency-key"] });
  });
  return starts;
}

/** Answers a start as another server would, once. */
export const once = (page, answer) => page.route("**/chat", answer, { times: 1 });
export const refused = (status, type, headers = {}) => (route) => route.fulfill({
  status, headers: { "content-type": "application/problem+json", ...headers }, body: JSON.stringify({ type: `/problems/${type}`, title: type, status, retryable: status >= 500 }),
});
