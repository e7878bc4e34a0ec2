// The chat page in Chromium, through the edge to a scripted model: asking, reading, and how it looks and sounds.

import { PACE_MS, answers, becomes, button, expect, hearing, passing, question, questions, says, send, shows, startsOf, status, test, textOf, tokens } from "./chat-page.js";
import { numbers, script } from "./streams.js";

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
