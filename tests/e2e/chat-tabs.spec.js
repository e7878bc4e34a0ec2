// The chat page in several tabs, reloaded, and with several conversations.

import { PACE_MS, answers, becomes, button, expect, hearing, passing, question, questions, says, send, shows, status, test, textOf, tokens } from "./chat-page.js";
import { until } from "./servers.js";
import { numbers, script } from "./streams.js";

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

test("a page out of the back-forward cache shows what was said meanwhile", async ({ tab }) => {
  await tab.evaluate(() => {
    const messages = [{ id: "k?", role: "user", content: "Meanwhile?" }, { id: "k", role: "assistant", content: "So." }];
    localStorage.setItem("headwater.chat", JSON.stringify({ messages, turn: Date.now() })); // no event for the tab itself
    dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true }));
  });
  await expect(textOf(questions(tab))).toHaveText("Meanwhile?");
  await says(tab, "So.");
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
