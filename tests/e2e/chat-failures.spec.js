// The chat page where something goes wrong: what it says, keeps and tries again.

import { PACE_MS, answers, becomes, button, expect, once, passing, question, questions, refused, says, send, shows, startsOf, status, test, textOf, tokens } from "./chat-page.js";
import { spawnEdge, until } from "./servers.js";
import { numbers, script } from "./streams.js";

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

test("a question that had an answer stays where another one is refused", async ({ tab }) => {
  await send(tab, script("First."));
  await says(tab, "First.");
  await once(tab, refused(424, "model-refused"));
  await button(tab, "Regenerate").click();
  await expect(tab.getByRole("alert")).toContainText("The model refused this.");
  await expect(textOf(questions(tab))).toHaveText([script("First.")]);
  await expect(question(tab)).toHaveValue("");
});

test("a start that may have been paid for is asked again with its key", async ({ tab }) => {
  const starts = startsOf(tab);
  const body = JSON.stringify({ type: "/problems/origin-unreachable", title: "x", status: 502, retryable: false });
  await once(tab, (route) => route.fulfill({ status: 502, headers: { "content-type": "application/problem+json" }, body }));
  await send(tab, script("After all."));
  await expect(tab.getByRole("alert")).toContainText("What answered is no server of this page’s. Whoever runs it has to mend that.");
  await button(tab, "Ask again").click();
  await says(tab, "After all.");
  expect(starts.map(({ key }) => key)).toEqual([starts[0].key, starts[0].key]);
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
