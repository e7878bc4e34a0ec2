// The chat page in Chromium, through the edge to a scripted model: what it shows, keeps and tells, in one tab and in several.
// One scenario per test, so the file is long.

import { test as base, expect } from "@playwright/test";
import { spawnEdge, spawnOrigin, until } from "./servers.js";
import { numbers, script } from "./streams.js";

const test = base.extend({
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

const tokens = (count, every_ms) => script({ tokens: count, every_ms });
/** The mean time between two tokens of an answer that something happens to. */
const PACE_MS = 100;

const question = (page) => page.getByRole("textbox", { name: "Message" });
const questions = (page) => page.getByRole("article", { name: "You" });
const answers = (page) => page.getByRole("article", { name: "Answer" });
const textOf = (article) => article.locator(".text");
const button = (page, name) => page.getByRole("button", { name, exact: true });
const status = (page) => page.locator("#state[role=status]");
/** What is said beside the state, for a while. */
const passing = (page) => page.locator("#passing[role=status]");
const becomes = (page, to) => expect(page.locator(".state")).toHaveAttribute("data-state", to);
/** All of the last answer's text. */
const says = (page, text) => expect.poll(() => textOf(answers(page).last()).textContent()).toBe(text);
const shows = (page, text) => expect(textOf(answers(page).last())).toContainText(text);

async function send(page, text) {
  await question(page).fill(text);
  await question(page).press("Enter");
}

/** What a screen reader is told of the answers, from now on. @returns {Promise<() => Promise<string[]>>} */
async function hearing(page) {
  await page.evaluate(() => {
    window.heard = [];
    new MutationObserver((records) => {
      for (const { addedNodes } of records) for (const node of addedNodes) heard.push(node.textContent);
    }).observe(document.getElementById("spoken"), { childList: true });
  });
  return () => page.evaluate(() => heard);
}

/** The bodies and keys of a page's starts. */
function startsOf(page) {
  const starts = [];
  page.on("request", (request) => {
    if (request.method() === "POST") starts.push({ ...request.postDataJSON(), key: request.headers()["idempotency-key"] });
  });
  return starts;
}

/** Answers a start as another server would, once. */
const once = (page, answer) => page.route("**/chat", answer, { times: 1 });
const refused = (status, type, headers = {}) => (route) => route.fulfill({
  status, headers: { "content-type": "application/problem+json", ...headers }, body: JSON.stringify({ type: `/problems/${type}`, title: type, status, retryable: status >= 500 }),
});

test("an answer arrives token by token, and the next start carries what was said", async ({ tab, started }) => {
  const starts = startsOf(tab);
  await send(tab, tokens(20, PACE_MS));
  await expect(textOf(questions(tab))).toHaveText(tokens(20, PACE_MS));
  await becomes(tab, "streaming");
  await shows(tab, "3 ");
  expect((await textOf(answers(tab)).textContent()).length, "it is shown before it is whole").toBeLessThan(numbers(20).length);
  await becomes(tab, "done");
  await says(tab, numbers(20));
  await expect(status(tab)).toHaveText(/^Finished: \d+ tokens in /);

  await send(tab, script("Well."));
  await says(tab, "Well.");
  await becomes(tab, "done");
  expect(starts.map(({ messages }) => messages)).toEqual([
    [{ role: "user", content: tokens(20, PACE_MS) }],
    [{ role: "user", content: tokens(20, PACE_MS) }, { role: "assistant", content: numbers(20) }, { role: "user", content: script("Well.") }],
  ]);
  expect(await started()).toBe(2);
});

test("Enter sends, Shift and Enter begin a line, and the Enter of an input method sends nothing", async ({ tab }) => {
  const starts = startsOf(tab);
  await expect(question(tab)).toBeFocused();
  const low = (await question(tab).boundingBox()).height;
  await tab.keyboard.type("one");
  await tab.keyboard.press("Shift+Enter");
  await tab.keyboard.type("two");
  await expect(question(tab)).toHaveValue("one\ntwo");
  expect((await question(tab).boundingBox()).height).toBeGreaterThan(low);
  for (const init of [{ isComposing: true }, { keyCode: 229 }]) {
    await question(tab).dispatchEvent("keydown", { key: "Enter", bubbles: true, cancelable: true, ...init });
  }
  await question(tab).press("End");
  await tab.keyboard.press("Enter");
  await becomes(tab, "done");
  expect(starts.map(({ messages }) => messages.map(({ content }) => content))).toEqual([["one\ntwo"]]);
  await expect(question(tab)).toBeFocused();
  await expect(question(tab)).toHaveValue("");
  await tab.keyboard.press("Enter");
  await tab.keyboard.type("   ");
  await tab.keyboard.press("Enter");
  await expect(questions(tab), "nothing is sent where nothing is written").toHaveCount(1);
});

test("an input method's composition is ended by its Enter, and sent by the next one", async ({ tab, context }) => {
  const starts = startsOf(tab);
  const keyboard = await context.newCDPSession(tab);
  await question(tab).focus();
  await keyboard.send("Input.imeSetComposition", { text: "にほん", selectionStart: 3, selectionEnd: 3 });
  await keyboard.send("Input.dispatchKeyEvent", { type: "rawKeyDown", key: "Enter", windowsVirtualKeyCode: 229 });
  await keyboard.send("Input.insertText", { text: "日本" });
  await expect(question(tab)).toHaveValue("日本");
  expect(starts).toEqual([]);
  await tab.keyboard.press("Enter");
  await becomes(tab, "done");
  expect(starts[0].messages).toEqual([{ role: "user", content: "日本" }]);
});

for (const [how, stop] of [["Stop", (tab) => button(tab, "Stop").click()], ["Escape", (tab) => tab.keyboard.press("Escape")]]) {
  test(`${how} ends the generation, keeps what was said, and says so`, async ({ chat, tab }) => {
    await send(tab, script("A mountain, ", 600_000, "and no end"));
    await says(tab, "A mountain, ");
    await stop(tab);
    await becomes(tab, "stopped");
    await expect(answers(tab)).toContainText("Stopped.");
    await expect(button(tab, "Send")).toBeVisible();
    await expect(button(tab, "Stop")).toBeHidden();
    await chat.origin.idle();
    await expect(how === "Stop" ? button(tab, "Send") : question(tab), "the focus has a place").toBeFocused();
  });
}

test("while an answer is written, nothing else is sent and nothing is lost", async ({ tab, started }) => {
  await send(tab, script("One ", 600_000));
  await says(tab, "One ");
  // The Escape of an input method.
  for (const init of [{ isComposing: true }, { keyCode: 229 }]) await question(tab).dispatchEvent("keydown", { key: "Escape", bubbles: true, ...init });
  await send(tab, "another");
  await expect(passing(tab)).toHaveText("Wait for the end of the answer, or stop it first.");
  await expect(status(tab)).toHaveText("Writing…");
  await expect(question(tab)).toHaveValue("another");
  await expect(questions(tab)).toHaveCount(1);
  await tab.keyboard.press("Escape");
  await becomes(tab, "stopped");
  expect(await started()).toBe(1);
});

test("a page that is reloaded in mid-answer goes on, each token once, and the answer is paid once", async ({ tab, started }) => {
  await send(tab, tokens(60, PACE_MS));
  for (const seen of ["5 ", "20 "]) {
    await shows(tab, seen);
    await tab.reload();
  }
  await expect(textOf(answers(tab)), "what was read is there at once").toContainText("20 ");
  await expect(button(tab, "Stop")).toBeVisible();
  await becomes(tab, "done");
  await says(tab, numbers(60));
  await expect(questions(tab)).toHaveCount(1);
  expect(await started()).toBe(1);
  await tab.reload();
  await says(tab, numbers(60));
});

test("a page that is reloaded before its answer has begun comes back to the same answer", async ({ tab, started }) => {
  await send(tab, script(1_500, "at last"));
  await until(async () => await started() === 1, "it is started");
  await tab.reload();
  await becomes(tab, "done");
  await says(tab, "at last");
  expect(await started()).toBe(1);
});

test("a page that is reloaded in the middle of its stop doesn't go on", async ({ chat, tab }) => {
  await send(tab, script("One ", 600_000));
  await says(tab, "One ");
  await tab.route("**/streams/*", () => {}, { times: 1 }); // its DELETE arrives nowhere
  await tab.keyboard.press("Escape");
  await expect(status(tab)).toHaveText("Stopping…");
  await tab.reload();
  await becomes(tab, "stopped");
  await says(tab, "One ");
  await chat.origin.idle();
});

test("a second tab shows the same conversation, follows the running answer, and ends it for both", async ({ chat, tab, context, started }) => {
  await send(tab, script("Before."));
  await becomes(tab, "done");
  await send(tab, tokens(6_000, PACE_MS));
  await shows(tab, "9 ");
  const second = await context.newPage();
  await second.goto(`${chat.url}/chat.html`);
  await expect(textOf(answers(second).first())).toHaveText("Before.");
  await shows(second, "9 ");
  await shows(second, "15 ");
  await expect(questions(second)).toHaveCount(2);
  await button(second, "Stop").click();
  for (const page of [tab, second]) {
    await expect(button(page, "Send")).toBeVisible();
    await expect(answers(page).last()).toContainText("Stopped.");
    await becomes(page, "stopped");
    await expect(status(page)).toHaveText(/^Stopped/);
  }
  await chat.origin.idle();
  expect(await textOf(answers(second).last()).textContent()).toBe(await textOf(answers(tab).last()).textContent());
  expect(await started()).toBe(2);
});

test("a tab that is open learns of a question in another one, follows its answer, and can go on", async ({ chat, tab, context, started }) => {
  const second = await context.newPage();
  await second.goto(`${chat.url}/chat.html`);
  await send(tab, tokens(30, PACE_MS));
  await shows(second, "3 ");
  expect((await textOf(answers(second)).textContent()).length).toBeLessThan(numbers(30).length);
  for (const page of [tab, second]) await says(page, numbers(30));
  for (const page of [tab, second]) {
    await expect(button(page, "Send")).toBeVisible();
    await becomes(page, "done");
    await expect(status(page)).toHaveText(/^Finished/);
  }
  await send(second, script("From the second."));
  for (const page of [tab, second]) {
    await says(page, "From the second.");
    await expect(answers(page)).toHaveCount(2);
  }
  expect(await started()).toBe(2);
});

test("the tab that is second to an answer's end reads the rest of it out, and says how it ended", async ({ chat, tab, context }) => {
  const second = await context.newPage();
  await second.goto(`${chat.url}/chat.html`);
  const heard = await hearing(second);
  await second.route("**/streams/*", () => {}); // it reads nothing by itself
  await send(tab, script("It is early. ", "The river sleeps"));
  await becomes(tab, "done");
  await becomes(second, "done");
  await says(second, "It is early. The river sleeps");
  await expect(status(second)).toHaveText("Finished.");
  expect((await heard()).join(" ")).toBe("It is early. The river sleeps");
});

test("of two tabs that ask at once, the one whose question isn't kept has it in its field again", async ({ chat, tab, context }) => {
  const second = await context.newPage();
  await second.goto(`${chat.url}/chat.html`);
  await send(tab, script("One ", 600_000));
  await says(tab, "One ");
  // As localStorage shows it to a tab that was a moment too early.
  await second.evaluate(() => {
    const { turn } = JSON.parse(localStorage.getItem("headwater.chat"));
    const messages = [{ id: "k?", role: "user", content: "theirs" }, { id: "k", role: "assistant", content: "So." }, { id: "l?", role: "user", content: "and?" }];
    localStorage.setItem("headwater.chat", JSON.stringify({ messages, turn: turn + 1_000, running: { key: "l" } }));
  });
  await expect(question(tab)).toHaveValue(script("One ", 600_000));
  await chat.origin.idle();
});

for (const [what, name] of [["stopped", "Stop"], ["left for a new conversation", "New conversation"]]) {
  test(`${what} in a tab that doesn't know the stream yet, an answer ends in the tab that does`, async ({ chat, tab, context, started }) => {
    const second = await context.newPage();
    await second.goto(`${chat.url}/chat.html`);
    await send(tab, script(1_000, "One ", 600_000));
    await button(second, name).click();
    for (const page of [tab, second]) await expect(button(page, "Send")).toBeVisible();
    await until(async () => await started() === 1, "it was started");
    await chat.origin.idle();
  });
}

test("a start whose tab is gone before its answer began is taken over by the other tab, and paid once", async ({ chat, tab, context, started }) => {
  const second = await context.newPage();
  await second.goto(`${chat.url}/chat.html`);
  await send(tab, script(1_500, "at last ", 300, "and whole"));
  await expect(questions(second)).toHaveCount(1);
  await until(async () => await started() === 1, "it is started");
  await tab.close();
  await says(second, "at last and whole");
  expect(await started()).toBe(1);
});

test("Regenerate asks the last question again, in place of its answer", async ({ tab, started }) => {
  const starts = startsOf(tab);
  await send(tab, script("First."));
  await becomes(tab, "done");
  await send(tab, script("Second."));
  await becomes(tab, "done");
  await expect(button(tab, "Regenerate"), "the last answer alone").toHaveCount(1);
  await button(tab, "Regenerate").click();
  await expect(button(tab, "Regenerate")).toHaveCount(1);
  await becomes(tab, "done");
  await says(tab, "Second.");
  await expect(answers(tab)).toHaveCount(2);
  expect(await started()).toBe(3);
  expect(starts[2].messages).toEqual(starts[1].messages);
  expect(starts[2].key).not.toBe(starts[1].key);
});

test("Copy copies an answer as the model wrote it, and says so", async ({ chat, tab, context }) => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"], { origin: chat.url });
  const text = "Two lines,\n  <b>as they</b> are & **were**.";
  await send(tab, script(text));
  await becomes(tab, "done");
  await button(tab, "Copy").click();
  await expect(passing(tab)).toHaveText("Copied.");
  await expect(status(tab), "what it says stays").toHaveText(/^Finished/);
  await expect(button(tab, "Copied")).toBeVisible();
  await expect(button(tab, "Copy")).toBeVisible();
  await expect(passing(tab), "so that it is announced again").toHaveText("");
  expect(await tab.evaluate(() => navigator.clipboard.readText())).toBe(text);
  // As on a page on plain HTTP.
  await tab.evaluate(() => Object.defineProperty(navigator, "clipboard", { value: undefined }));
  await send(tab, script("Another."));
  await says(tab, "Another.");
  await button(tab, "Copy").last().click();
  await expect(passing(tab)).toHaveText("Copied.");
  await expect(button(tab, "Copied")).toBeFocused();
  await question(tab).press("ControlOrMeta+V");
  await expect(question(tab)).toHaveValue("Another.");
});

test("a start that was answered by nobody is tried again with its key, and paid once", async ({ tab, started }) => {
  const starts = startsOf(tab);
  await tab.route("**/chat", (route) => route.abort(), { times: 4 });
  await send(tab, script("After all."));
  const alert = tab.getByRole("alert");
  await expect(alert).toContainText("The server can’t be reached.");
  await expect(alert).toContainText("Look at your connection, then try again.");
  await becomes(tab, "failed");
  await expect(questions(tab)).toHaveCount(1);
  await expect(answers(tab)).toHaveCount(0);
  await tab.reload();
  await expect(alert).toContainText("The server can’t be reached.");
  await button(tab, "Try again").click();
  await says(tab, "After all.");
  await expect(alert).toBeHidden();
  await becomes(tab, "done");
  expect(new Set(starts.map(({ key }) => key)).size).toBe(1);
  expect(await started()).toBe(1);
});

test("an answer that fails in the middle stays, is marked, and is written anew by Try again", async ({ tab, started }) => {
  const starts = startsOf(tab);
  await send(tab, script("Half an ", 300, { fail: "broke-off" }));
  await expect(tab.getByRole("alert")).toContainText("The model broke off.");
  await says(tab, "Half an ");
  await expect(answers(tab)).toContainText("Not finished.");
  await expect(button(tab, "Regenerate"), "Try again does the same").toHaveCount(0);
  await button(tab, "Try again").click();
  await until(async () => await started() === 2, "it is started again");
  await expect(tab.getByRole("alert")).toContainText("The model broke off.");
  await expect(answers(tab)).toHaveCount(1);
  expect(starts[0].messages).toEqual(starts[1].messages);
  expect(starts[0].key).not.toBe(starts[1].key);
  await send(tab, script("Whole."));
  await becomes(tab, "done");
  await expect(tab.getByRole("alert")).toBeHidden();
});

for (const [type, status, sentences] of [
  ["too-long", 400, ["This conversation is too long for the model.", "Begin a new one, with what it needs to know."]],
  ["too-large", 413, ["This conversation is too long to be sent.", "Begin a new one, with what it needs to know."]],
]) {
  test(`${type}: a new conversation is what helps`, async ({ tab }) => {
    await once(tab, refused(status, type));
    await send(tab, "a long story");
    for (const sentence of sentences) await expect(tab.getByRole("alert")).toContainText(sentence);
    await tab.getByRole("alert").getByRole("button", { name: "New conversation" }).click();
    await expect(tab.getByRole("alert")).toBeHidden();
    await expect(questions(tab)).toHaveCount(0);
    await expect(question(tab)).toBeFocused();
  });
}

test("a question that is refused for good stands in the field again, and spoils nothing", async ({ tab }) => {
  await send(tab, script("Before."));
  await becomes(tab, "done");
  const starts = startsOf(tab);
  await once(tab, refused(400, "bad-request"));
  await send(tab, "unfit");
  await expect(tab.getByRole("alert")).toContainText("The server doesn’t accept this message.");
  await expect(question(tab)).toHaveValue("unfit");
  await expect(questions(tab)).toHaveCount(1);
  await expect(tab.getByRole("alert").getByRole("button")).toHaveCount(0);
  await send(tab, script("Well."));
  await says(tab, "Well.");
  await expect(tab.getByRole("alert")).toBeHidden();
  expect(starts.at(-1).messages.map(({ content }) => content)).toEqual([script("Before."), "Before.", script("Well.")]);
});

test("a question that no server would take isn't sent, and stays in the field", async ({ tab, started }) => {
  await send(tab, script("Before."));
  await becomes(tab, "done");
  await question(tab).fill("x".repeat(800_000));
  await button(tab, "Send").click();
  await expect(passing(tab)).toHaveText("That is too long to be sent.");
  expect((await question(tab).inputValue()).length).toBe(800_000);
  await expect(questions(tab)).toHaveCount(1);
  await expect(answers(tab)).toHaveCount(1);
  expect(await started()).toBe(1);
});

test("an answer that the model's filter ended says so", async ({ tab }) => {
  await once(tab, (route) => route.fulfill({
    contentType: "text/event-stream",
    body: 'data: {"chunk":"Half an "}\n\nevent: done\ndata: {"finish":"content-filter"}\n\n',
  }));
  await send(tab, "Go on.");
  await says(tab, "Half an ");
  await expect(answers(tab)).toContainText("The model’s filter ended it.");
  await expect(status(tab)).toHaveText(/^Ended by the model’s filter: 1 token/);
});

test("after a stop that failed the answer goes on, and nothing stops it later", async ({ tab }) => {
  await send(tab, tokens(6_000, PACE_MS));
  await shows(tab, "3 ");
  let stops = 0;
  await tab.route("**/streams/*", (route) => {
    if (route.request().method() !== "DELETE") return route.fallback();
    stops++;
    return refused(400, "bad-request")(route);
  });
  await tab.keyboard.press("Escape");
  await expect(passing(tab)).toContainText("It can’t be stopped.");
  await expect(status(tab)).toHaveText("Writing…");
  const sent = stops;
  await tab.evaluate(() => dispatchEvent(new StorageEvent("storage", { key: "headwater.chat" })));
  const seen = (await textOf(answers(tab)).textContent()).length;
  await expect.poll(async () => (await textOf(answers(tab)).textContent()).length).toBeGreaterThan(seen + 10);
  expect(stops).toBe(sent);
  await tab.unroute("**/streams/*");
  await tab.keyboard.press("Escape");
  await becomes(tab, "stopped");
});

test("a start that the server has asked to wait isn't sent sooner by a page that was reloaded", async ({ tab, started }) => {
  const starts = startsOf(tab);
  await once(tab, refused(503, "overloaded", { "retry-after": "4" }));
  await send(tab, script("At last."));
  await becomes(tab, "reconnecting");
  const since = Date.now();
  await tab.reload();
  await says(tab, "At last.");
  expect(Date.now() - since).toBeGreaterThan(3_000);
  expect(new Set(starts.map(({ key }) => key)).size).toBe(1);
  expect(await started()).toBe(1);
});

test("a browser that keeps nothing shows that a reload loses the conversation", async ({ tab }) => {
  const warning = tab.getByText("This browser can’t keep this conversation: a reload loses it.");
  await tab.evaluate(() => { Storage.prototype.setItem = () => { throw new DOMException("full", "QuotaExceededError"); }; });
  await expect(warning).toBeHidden();
  await send(tab, script("Well."));
  await says(tab, "Well.");
  await becomes(tab, "done");
  await expect(warning).toBeVisible();
});

test("a page out of the back-forward cache shows what was said meanwhile", async ({ tab }) => {
  await tab.evaluate(() => {
    const messages = [{ id: "k?", role: "user", content: "Meanwhile?" }, { id: "k", role: "assistant", content: "So." }];
    localStorage.setItem("headwater.chat", JSON.stringify({ messages, turn: Date.now() })); // no event for the tab itself
    dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true }));
  });
  await expect(textOf(questions(tab))).toHaveText("Meanwhile?");
  await says(tab, "So.");
});

test("what another hand has written into the browser doesn't break the page", async ({ tab }) => {
  await tab.evaluate(() => {
    const messages = [{ id: "1", role: "user", content: "Hi" }, { id: "2", role: "assistant", content: "Hello.", reasoning: 7, note: [] }];
    localStorage.setItem("headwater.chat", JSON.stringify({ messages: [...messages, ...messages], failure: { what: "Oh.", todo: 7 } }));
  });
  await tab.reload();
  await says(tab, "Hello.");
  await expect(answers(tab)).toHaveCount(1);
  await send(tab, script("Well."));
  await says(tab, "Well.");
});

test("at an edge that isn't open for chats the page says what its operator has to set", async ({ chat, page }) => {
  const edge = await spawnEdge({ origins: { a: chat.origin.url } });
  try {
    await page.goto(`${edge.url}/chat.html`);
    await send(page, "Hello?");
    await expect(page.getByRole("alert")).toContainText("This server’s chat is closed.");
    await expect(page.getByRole("alert")).toContainText('CHAT = "open"');
  } finally {
    await edge.end();
  }
});

test("New conversation ends the running answer, and empties every tab", async ({ chat, tab, context }) => {
  const second = await context.newPage();
  await second.goto(`${chat.url}/chat.html`);
  await expect(button(tab, "New conversation"), "there is none to end").toBeHidden();
  await send(tab, script("One ", 600_000));
  await says(second, "One ");
  await button(tab, "New conversation").click();
  for (const page of [tab, second]) {
    await expect(questions(page)).toHaveCount(0);
    await expect(answers(page)).toHaveCount(0);
    await expect(button(page, "Send")).toBeVisible();
    await expect(page.getByText("Ask anything.")).toBeVisible();
  }
  await expect(question(tab)).toBeFocused();
  await chat.origin.idle();
  await tab.reload();
  await expect(tab.getByText("Ask anything.")).toBeVisible();
});

test("half a sentence of an answer that was left isn't heard in the next one", async ({ tab }) => {
  const heard = await hearing(tab);
  await send(tab, script("It is early. ", "The river", 600_000));
  await says(tab, "It is early. The river");
  await button(tab, "New conversation").click();
  await send(tab, script("Well. ", "So."));
  await becomes(tab, "done");
  await expect.poll(async () => (await heard()).join(" ")).toBe("It is early. Well. So.");
});

test("the conversation before the new one can be forgotten, and the browser has nothing of it", async ({ tab }) => {
  await send(tab, script("A secret."));
  await becomes(tab, "done");
  await button(tab, "New conversation").click();
  await button(tab, "Forget it").click();
  await expect(passing(tab)).toHaveText("It is forgotten.");
  await expect(button(tab, "Go back to the last one")).toBeHidden();
  await expect(question(tab)).toBeFocused();
  expect(await tab.evaluate(() => JSON.stringify(localStorage))).not.toContain("secret");
});

test("a conversation that was left for a new one can be had back, with what its last answer had said", async ({ tab }) => {
  await expect(button(tab, "Go back to the last one"), "there is none").toBeHidden();
  await send(tab, script("Before."));
  await becomes(tab, "done");
  await send(tab, script("One ", 600_000));
  await says(tab, "One ");
  await button(tab, "New conversation").click();
  await tab.reload();
  await button(tab, "Go back to the last one").click();
  await expect(questions(tab)).toHaveCount(2);
  await says(tab, "One ");
  await expect(answers(tab).last()).toContainText("Stopped.");
  await expect(button(tab, "Go back to the last one")).toBeHidden();
  await send(tab, script("On."));
  await says(tab, "On.");
});

test("the network is lost in mid-answer: the page says so, and goes on", async ({ tab, context, started }) => {
  await send(tab, tokens(60, PACE_MS));
  await shows(tab, "5 ");
  await context.setOffline(true);
  await tab.evaluate(() => dispatchEvent(new Event("online"))); // Chromium leaves open connections as they are
  await becomes(tab, "reconnecting");
  await expect(status(tab)).toHaveText("You are offline. It goes on when the network is back.");
  await context.setOffline(false);
  await becomes(tab, "done");
  await says(tab, numbers(60));
  expect(await started()).toBe(1);
});

// Markup in a model's text would run in the page's name.
test("fault 28: hostile text is shown as text, in questions, answers and reasoning", async ({ tab }) => {
  const hostile = "<img src=x onerror=hacked=1><script>hacked=1</script></div><a href='javascript:hacked=1'>\u2028&amp;";
  const asked = script({ think: hostile }, hostile);
  await send(tab, asked);
  await becomes(tab, "done");
  for (let loads = 0; loads < 2; loads++) {
    await says(tab, hostile);
    expect(await textOf(questions(tab)).textContent()).toBe(asked);
    expect(await tab.locator(".thoughts").textContent()).toBe(hostile);
    expect(await tab.locator(".text :not(div), .thoughts :not(div)").count()).toBe(0);
    await tab.reload();
  }
  expect(await tab.evaluate(() => window.hacked)).toBeUndefined();
});

test("reasoning is kept apart, behind a disclosure that is closed, and is not sent back", async ({ tab, started }) => {
  const starts = startsOf(tab);
  await send(tab, script({ think: "Let me " }, 300, { think: "see." }, 1_500, "Four."));
  await becomes(tab, "thinking");
  await expect(status(tab)).toHaveText("Thinking…");
  await tab.reload();
  await becomes(tab, "done");
  await says(tab, "Four.");
  for (let loads = 0; loads < 2; loads++) {
    const thoughts = answers(tab).locator(".thoughts");
    await expect(thoughts).toBeHidden();
    await answers(tab).getByText("Reasoning").click();
    await expect(thoughts).toBeVisible();
    await expect(thoughts).toHaveText("Let me see.");
    await tab.reload();
  }
  await send(tab, script("So."));
  await says(tab, "So.");
  expect(starts.at(-1).messages[1]).toEqual({ role: "assistant", content: "Four." });
  expect(await started()).toBe(2);
});

test("the page follows the end of the text, and lets a reader be who has scrolled away", async ({ tab }) => {
  const lines = Array.from({ length: 150 }, (_, n) => [`Line ${n}.\n`, 40]).flat();
  await send(tab, script(...lines));
  const gap = () => tab.evaluate(() => document.documentElement.scrollHeight - innerHeight - scrollY);
  await shows(tab, "Line 40.");
  await expect.poll(gap).toBeLessThan(64);
  await expect(button(tab, "Go to the end")).toBeHidden();
  await tab.mouse.move(300, 300);
  await tab.mouse.wheel(0, -400);
  await expect(button(tab, "Go to the end")).toBeVisible();
  const at = await tab.evaluate(() => scrollY);
  await shows(tab, "Line 70.");
  expect(await tab.evaluate(() => scrollY)).toBe(at);
  await button(tab, "Go to the end").click();
  await shows(tab, "Line 90.");
  await expect.poll(gap).toBeLessThan(64);
  await becomes(tab, "done");
  await expect(button(tab, "Copy")).toBeInViewport();
});

test("a screen reader hears each sentence once, and finds names for everything", async ({ tab }) => {
  const heard = await hearing(tab);
  await send(tab, script("It is ", "early. ", "The river", " sleeps", "; nobody ", "hurries"));
  await becomes(tab, "done");
  await expect.poll(heard).toEqual(["It is early.", "The river sleeps;", "nobody hurries"]);
  const log = tab.getByRole("log", { name: "Conversation" });
  await expect(log).toHaveAttribute("aria-live", "off");
  await expect(log.getByRole("heading", { name: "You" })).toHaveCount(1);
  await expect(log.getByRole("heading", { name: "Answer" })).toHaveCount(1);
  await expect(tab.getByRole("heading", { level: 1, name: "Conversation" })).toHaveCount(1);
  await expect(tab.getByRole("navigation", { name: "Pages" }).getByRole("link", { name: "Chat" })).toHaveAttribute("aria-current", "page");
  expect(await tab.getByRole("button").evaluateAll((all) => all.filter((one) => !one.textContent.trim()))).toEqual([]);
  // Everything that can be used is reached by Tab, and shows that it is.
  const reached = new Set();
  for (let n = 0; n < 9; n++) {
    reached.add(await tab.evaluate(() => document.activeElement.textContent.trim() || document.activeElement.id));
    await tab.keyboard.press("Tab");
  }
  for (const name of ["question", "Send", "Poem", "Chat", "New conversation", "Copy", "Regenerate"]) expect(reached).toContain(name);
});

test("the poem page and the chat page lead to each other", async ({ chat, page }) => {
  await page.goto(chat.url);
  await page.getByRole("link", { name: "Chat" }).click();
  await expect(page).toHaveURL(`${chat.url}/chat.html`);
  await page.getByRole("link", { name: "Poem" }).click();
  await expect(page).toHaveURL(`${chat.url}/`);
});

test("the policy holds: the page asks no other host, and breaks no rule of its own", async ({ chat, page }) => {
  const asked = new Set();
  const complaints = [];
  page.on("request", (request) => asked.add(new URL(request.url()).host));
  page.on("console", (message) => complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(error.message));
  const response = await page.goto(`${chat.url}/chat.html`);
  expect(response.headers()["content-security-policy"]).toContain("default-src 'self'");
  await send(page, script("Well."));
  await becomes(page, "done");
  expect([...asked]).toEqual([new URL(chat.url).host]);
  expect(complaints).toEqual([]);
});

test.describe("in the dark", () => {
  test.use({ colorScheme: "dark" });

  test("the page is dark, and what is written on it light", async ({ tab }) => {
    await send(tab, script("Well."));
    await becomes(tab, "done");
    const light = (locator, property) => locator.evaluate((element, property) => {
      const [red, green, blue] = getComputedStyle(element)[property].match(/[\d.]+/g).map(Number);
      return (red + green + blue) / 3;
    }, property);
    for (const part of [tab.locator("body"), tab.locator("#foot")]) expect(await light(part, "backgroundColor")).toBeLessThan(50);
    for (const part of [textOf(answers(tab)), textOf(questions(tab)), question(tab), status(tab)]) expect(await light(part, "color")).toBeGreaterThan(140);
  });
});

test.describe("on a phone", () => {
  test.use({ viewport: { width: 320, height: 568 }, hasTouch: true, isMobile: true });

  test("everything fits, and the composer stays in view", async ({ tab }) => {
    await send(tab, script("A word: ", "donaudampfschifffahrt".repeat(12), "\n".repeat(60), "the end"));
    await becomes(tab, "done");
    expect(await tab.evaluate(() => document.documentElement.scrollWidth)).toBe(320);
    for (const part of [question(tab), button(tab, "Send")]) await expect(part).toBeInViewport({ ratio: 1 });
    for (const name of ["Copy", "Regenerate", "Send"]) {
      expect((await button(tab, name).boundingBox()).height, `${name} is large enough for a finger`).toBeGreaterThanOrEqual(44);
    }
    await expect(button(tab, "Copy")).toBeInViewport({ ratio: 1 });
    expect((await tab.locator("header").boundingBox()).height, "the head is one line").toBeLessThan(80);
    await expect(button(tab, "New conversation")).toBeVisible();
    await tab.evaluate(() => scrollTo(0, 0));
    expect((await button(tab, "Go to the end").boundingBox()).width, "it covers no line").toBeLessThan(200);
    await button(tab, "Go to the end").click();
    await tab.setViewportSize({ width: 320, height: 300 }); // a keyboard opens
    await expect(question(tab)).toBeInViewport({ ratio: 1 });
    await expect(button(tab, "Copy"), "the end stays in view").toBeInViewport({ ratio: 1 });
  });
});

test("the cost of a token doesn't grow with the conversation: it changes the last text alone", async ({ tab }) => {
  await tab.evaluate(() => {
    const messages = Array.from({ length: 200 }, (_, n) => ({ id: `${n}`, role: n % 2 ? "assistant" : "user", content: `Message ${n}. `.repeat(60) }));
    localStorage.setItem("headwater.chat", JSON.stringify({ messages }));
  });
  await tab.reload();
  await expect(answers(tab)).toHaveCount(100);
  await send(tab, script("begin ", 700, { tokens: 300, every_ms: 2 }, 600_000));
  await says(tab, "begin ");
  await tab.evaluate(() => {
    window.changed = { texts: new Set(), nodes: 0, written: 0 };
    new MutationObserver((records) => {
      for (const { type, target } of records) {
        if (type === "characterData") changed.texts.add(target);
        else changed.nodes++;
      }
    }).observe(document.body, { characterData: true, childList: true, attributes: true, subtree: true });
    const { setItem } = Storage.prototype;
    Storage.prototype.setItem = function (...pair) {
      changed.written++;
      return setItem.apply(this, pair);
    };
  });
  await shows(tab, " 298 299 ");
  const { texts, nodes, written } = await tab.evaluate(() => ({ ...changed, texts: changed.texts.size }));
  expect(texts).toBe(1);
  expect(nodes, "but for what is read out").toBeLessThan(30);
  expect(written).toBeLessThan(3);
  await tab.keyboard.press("Escape");
  await becomes(tab, "stopped");
});
