// What the chat page keeps of a conversation, and what it reads out.

import assert from "node:assert/strict";
import { test } from "node:test";

import { answered, asked, askedAgain, begun, bodyOf, createStore, EMPTY, isTooLong, KEPT, moved, refused } from "../../public/conversation.js";
import { createSpeaker } from "../../public/spoken.js";

const contents = ({ messages }) => messages.map(({ content }) => content);
const talk = (...contents) => contents.reduce((so, content, n) => n % 2 ? answered(so, `${n - 1}`, { content }) : asked(so, content, `${n}`), EMPTY);

test("a question, an answer, and so on: the server gets roles and contents", () => {
  const conversation = asked(talk("Hi", "Hello."), "And you?", "k");
  assert.deepEqual(bodyOf(conversation), { messages: [
    { role: "user", content: "Hi" }, { role: "assistant", content: "Hello." }, { role: "user", content: "And you?" },
  ] });
  assert.deepEqual(conversation.running, { key: "k" });
});

test("reasoning, notes and empty answers are not sent", () => {
  const thought = answered(asked(EMPTY, "Hi", "k"), "k", { content: "", reasoning: "hm", note: "stopped" });
  assert.equal(thought.messages.length, 2);
  assert.deepEqual(bodyOf(asked(thought, "Well?", "l")), { messages: [{ role: "user", content: "Hi" }, { role: "user", content: "Well?" }] });
});

test("asked again, the last answer goes, and the question stays", () => {
  const again = askedAgain(talk("Hi", "Hello.", "How?", "So."), "k");
  assert.deepEqual([contents(again), again.running], [["Hi", "Hello.", "How?"], { key: "k", again: true }]);
});

test("a start that may have come to an answer is asked again with its key, any other with a new one", () => {
  const lost = answered(asked(EMPTY, "Hi", "old"), "old", { content: "" }, { what: "", todo: "", again: "", key: "old" });
  assert.deepEqual(contents(lost), ["Hi"], "no empty answer is kept");
  assert.deepEqual(askedAgain(lost, "new").running, { key: "old" });
  const broken = answered(asked(EMPTY, "Hi", "old"), "old", { content: "Hel" }, { what: "", todo: "", again: "" });
  assert.deepEqual(contents(broken), ["Hi", "Hel"]);
  assert.equal(askedAgain(broken, "new").running?.key, "new");
  assert.equal(askedAgain(lost, "new").failure, undefined);
});

test("of two tabs that reach an answer's end, the first keeps it; a late one changes nothing that came since", () => {
  const first = answered(asked(EMPTY, "Hi", "k"), "k", { content: "Hello." });
  assert.equal(answered(first, "k", { content: "Hello." }), first);
  const next = asked(first, "How?", "l");
  assert.equal(answered(next, "k", { content: "Hello." }), next);
  assert.equal(moved(next, { key: "k", id: "a-1" }), next);
  assert.deepEqual(moved(next, { key: "l", id: "a-1" }).running, { key: "l", id: "a-1" });
});

test("what is sent and kept is bounded: the oldest questions go with their answers, once an answer has come, and that is said", () => {
  const long = "x".repeat(300_000);
  const conversation = asked(talk("one", long, "two", long), "three", "k");
  const whole = answered(conversation, "k", { content: long });
  assert.deepEqual(contents(conversation), ["one", long, "two", long, "three"]);
  assert.ok(!conversation.dropped);
  assert.deepEqual([contents(whole), whole.dropped], [["two", long, "three", long], true]);
  assert.deepEqual(contents(bodyOf(asked(whole, "four", "l"))), ["two", long, "three", long, "four"]);
  assert.equal(asked(whole, "four", "l").dropped, true);
  assert.ok(!talk("one", "two").dropped);
});

test("the server gets fewer messages than it takes, and a question first", () => {
  const words = Array.from({ length: 1_100 }, (_, n) => `${n}`);
  const { messages } = bodyOf(asked(talk(...words), "last", "k"));
  assert.ok(messages.length > 800 && messages.length < 1_000, `${messages.length}`);
  assert.deepEqual([messages[0].role, messages.at(-1)?.content], ["user", "last"]);
  assert.ok(talk(...words).messages.length < 1_000);
});

for (const [what, character] of [["ASCII", "x"], ["of three bytes", "水"], ["control characters", "\u0001"], ["halves of pairs", "\ud800"]]) {
  test(`${what}: the body of a start is smaller than 1 MiB, and no question is taken that would make it larger`, () => {
    for (const length of [20_000, 100_000, 240_000]) {
      const text = character.repeat(length);
      if (isTooLong(text)) continue;
      const conversation = talk(...Array.from({ length: 51 }, () => text));
      assert.ok(new TextEncoder().encode(JSON.stringify(bodyOf(conversation))).length < 1 << 20);
    }
    assert.ok(isTooLong(character.repeat(800_000)));
  });
}

test("a question that is refused for good goes, and what was said before stays", () => {
  const failure = { what: "Too long.", todo: "", again: "" };
  const before = talk("one", "two");
  const conversation = asked(before, "x".repeat(700_000), "k");
  const after = refused(conversation, "k", failure);
  assert.deepEqual([contents(after), after.running, after.failure], [["one", "two"], undefined, failure]);
  assert.equal(refused(after, "k", failure), after, "another tab was faster");
});

function fakeStorage(kept = {}) {
  return {
    kept,
    getItem: (name) => kept[name] ?? null,
    setItem: (name, value) => { kept[name] = value; },
    removeItem: (name) => { delete kept[name]; },
  };
}

test("a conversation is found again by another tab", () => {
  const storage = fakeStorage();
  const conversation = asked(talk("Hi", "Hello."), "How?", "k");
  createStore(() => storage).save(conversation);
  assert.deepEqual(createStore(() => storage).load(), JSON.parse(JSON.stringify(conversation)));
});

for (const [what, kept] of [
  ["nothing", {}], ["no JSON", { [KEPT]: "{" }], ["null", { [KEPT]: "null" }], ["something else", { [KEPT]: '{"messages":7}' }],
]) {
  test(`with ${what} in the browser the conversation is empty`, () => {
    assert.deepEqual(createStore(() => fakeStorage(kept)).load(), EMPTY);
  });
}

test("what another hand has written is taken where it makes sense", () => {
  const question = { id: "1", role: "user", content: "Hi" };
  for (const [kept, taken] of [
    [{ messages: [question, { id: "2", role: "system", content: "x" }, { role: "user" }, null], running: 7, failure: {} }, {}],
    [{ messages: [{ ...question, reasoning: 7, note: {}, more: 1 }], turn: "many", running: { key: 7 }, failure: { what: 7 } }, {}],
    [{ messages: [question, { ...question }], running: { key: "k", id: 7, stopping: "no", notBefore: "soon" } }, { running: { key: "k" } }],
    [{ messages: [question], failure: { what: "Oh.", todo: 7, again: null, key: [] } }, { failure: { what: "Oh.", todo: "", again: "" } }],
  ]) {
    assert.deepEqual(createStore(() => fakeStorage({ [KEPT]: JSON.stringify(kept) })).load(), { turn: 0, messages: [question], ...taken });
  }
});

test("a tab that is late, and writes over a new conversation the end of the one before, is put right", () => {
  const storage = fakeStorage();
  const [early, late] = [createStore(() => storage), createStore(() => storage)];
  early.save(asked(EMPTY, "Hi", "k"));
  const stale = late.load();
  early.save(begun(early.load()));
  late.save(answered(stale, "k", { content: "Hello." }));
  assert.deepEqual(contents(early.load()), []);
  assert.deepEqual(contents(late.load()), []);
});

test("what was cleared from the browser stays cleared", () => {
  const storage = fakeStorage();
  const store = createStore(() => storage);
  store.save(talk("Hi"));
  storage.removeItem(KEPT);
  assert.deepEqual(contents(store.load()), []);
});

test("a conversation that begins after the browser was cleared is newer than one that another tab still shows", (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: 1_000_000 });
  const storage = fakeStorage();
  const [one, other] = [createStore(() => storage), createStore(() => storage)];
  one.save(talk("a", "b", "c", "d", "e", "f"));
  other.load();
  t.mock.timers.tick(1_000);
  storage.removeItem(KEPT);
  one.save(asked(one.load(), "new", "k"));
  assert.deepEqual(contents(other.load()), ["new"]);
});

test("a conversation that is gone back to has no answer under way", () => {
  assert.equal(begun(EMPTY, asked(EMPTY, "Hi", "k")).running, undefined);
});

test("where the browser keeps nothing, or its space is full, the page's own memory does", () => {
  const full = { ...fakeStorage({ [KEPT]: JSON.stringify(talk("old")) }), setItem() { throw new Error("full"); } };
  for (const storage of [() => { throw new Error("forbidden"); }, () => full]) {
    const store = createStore(storage);
    assert.ok(store.survives);
    store.save(talk("new"));
    assert.ok(!store.survives);
    assert.deepEqual(contents(store.load()), ["new"]);
    store.savePartial({ key: "k", cursor: "a.1", text: "so", reasoning: "" });
    assert.equal(store.partial("k", "a")?.text, "so");
    store.forgetPartial();
    assert.equal(store.partial("k", "a"), undefined);
  }
});

test("a full browser gives up the conversation before and what was read, for the conversation itself", () => {
  const storage = fakeStorage();
  const store = createStore(() => storage);
  store.saveBefore(talk("before"));
  store.savePartial({ key: "k", cursor: "a.1", text: "so", reasoning: "" });
  storage.setItem = (name, value) => {
    if (Object.keys(storage.kept).some((other) => other !== name)) throw new Error("full");
    storage.kept[name] = value;
  };
  store.save(talk("Hi"));
  assert.ok(store.survives);
  assert.deepEqual(contents(createStore(() => storage).load()), ["Hi"]);
  assert.deepEqual(Object.keys(storage.kept), [KEPT]);
});

test("what only memory holds gives way to a newer conversation of another tab, and is kept when there is room", (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: 1_000_000 });
  const storage = fakeStorage();
  const setItem = storage.setItem;
  const store = createStore(() => ({ ...storage, setItem: (...pair) => { throw new Error(`full ${pair}`); } }));
  const mine = asked(EMPTY, "mine", "k");
  store.save(mine);
  createStore(() => storage).save(asked(mine, "newer", "l"));
  assert.deepEqual(contents(store.load()), ["mine", "newer"]);
  let isFull = true;
  const other = createStore(() => ({ ...storage, setItem: (...pair) => { if (isFull) throw new Error("full"); setItem(...pair); } }));
  other.save(asked(other.load(), "newest", "m"));
  isFull = false;
  assert.deepEqual(contents(other.load()), ["mine", "newer", "newest"]);
  assert.ok(other.survives);
});

test("what is to be forgotten leaves nothing of the conversation before", () => {
  const storage = fakeStorage();
  const store = createStore(() => storage);
  store.saveBefore(talk("secret"));
  store.savePartial({ key: "k", cursor: "a.1", text: "secret", reasoning: "" });
  store.forgetBefore();
  assert.deepEqual([storage.kept, store.before()], [{}, EMPTY]);
});

test("what was read of an answer belongs to its start alone", () => {
  const storage = fakeStorage();
  const store = createStore(() => storage);
  store.savePartial({ key: "k", cursor: "a.1", text: "so", reasoning: "hm" });
  assert.deepEqual(store.partial("k", "a"), { key: "k", cursor: "a.1", text: "so", reasoning: "hm" });
  assert.equal(store.partial("l", "a"), undefined);
  assert.equal(store.partial("k", "b"), undefined, "the start has come to another stream");
});

/** A live region, and what was read out. */
function region(t, hidden = false) {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const document = {
    hidden,
    createElement: () => ({ textContent: "", remove() { shown.splice(shown.indexOf(this), 1); } }),
  };
  Object.assign(globalThis, { document });
  t.after(() => Reflect.deleteProperty(globalThis, "document"));
  const heard = [];
  const shown = [];
  const element = /** @type {any} */ ({
    append(paragraph) { heard.push(paragraph.textContent); shown.push(paragraph); },
    replaceChildren() { shown.length = 0; },
  });
  return { heard, shown, speaker: createSpeaker(element) };
}

test("an answer is read out sentence by sentence, each once, and its rest at its end", (t) => {
  const { heard, speaker } = region(t);
  for (const text of ["It is", " 3.5", " km", " long", ".", " It", " ends", "!\n", "Or: ", "not", " quite"]) speaker.add(text);
  assert.deepEqual(heard, ["It is 3.5 km long.", "It ends!", "Or:"]);
  speaker.end();
  speaker.end();
  assert.deepEqual(heard, ["It is 3.5 km long.", "It ends!", "Or:", "not quite"]);
});

test("cut in any way, what is read out is the answer", (t) => {
  const answer = "First, this. Then that?\n\n- 这是。那是！\n- and so on… \"Done.\" End";
  for (let size = 1; size < 12; size++) {
    const { heard, speaker } = region(t);
    for (let at = 0; at < answer.length; at += size) speaker.add(answer.slice(at, at + size));
    speaker.end();
    assert.equal(heard.join(" ").replace(/\s/g, ""), answer.replace(/\s/g, ""));
    t.mock.timers.reset();
  }
});

test("text without an end of a sentence is read out in parts, all of it", (t) => {
  const { heard, speaker } = region(t);
  const text = "word ".repeat(200) + "x".repeat(700);
  for (let n = 0; n < 200; n++) speaker.add("word ");
  assert.ok(heard.length >= 3, "before its end");
  speaker.add("x".repeat(700));
  speaker.end();
  assert.equal(heard.join("").replace(/\s/g, ""), text.replace(/\s/g, ""));
  for (const part of heard) assert.ok(part.length <= 300, `${part.length}`);
});

test("what was read out is gone a little later, however much follows, and in the background nothing is", (t) => {
  const { shown, speaker } = region(t);
  speaker.add("One. ");
  t.mock.timers.tick(3_000);
  speaker.add("Two. ");
  assert.equal(shown.length, 2);
  t.mock.timers.tick(2_000);
  assert.deepEqual(shown.map(({ textContent }) => textContent), ["Two."]);
  t.mock.timers.tick(3_000);
  assert.equal(shown.length, 0);
  t.mock.timers.reset();
  const unseen = region(t, true);
  unseen.speaker.add("One. ");
  assert.deepEqual(unseen.heard, []);
});
