// @ts-check
// The chat page: a conversation, and the answer that is being written. Every tab shows the same one: what happens is kept in
// localStorage, whose event tells the others. A tab that learns of a running answer follows its stream, also after a reload.

import { copied } from "./clipboard.js";
import { composes, createComposer } from "./composer.js";
import { answered, asked, askedAgain, begun, bodyOf, createStore, isTooLong, KEPT, moved, refused } from "./conversation.js";
import { randomKey } from "./fetch.js";
import { createMessages } from "./messages.js";
import { createScroll } from "./scroll.js";
import { createSpeaker } from "./spoken.js";
import { createStatus } from "./status.js";
import { openStream, resumeStream, StreamError } from "./stream.js";
import { replace } from "./text.js";
import { conclude, describe, explain, IN_CHAT } from "./words.js";

/** What was read is kept this often, for a page that ends without a word. */
const KEEP_MS = 5_000;
/** Where no tab knows a start's stream by then, another one sends it too, with its key: the same answer, though counted twice. */
const TAKEOVER_MS = 10_000;
const COPIED_MS = 2_000;

const element = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const question = /** @type {HTMLTextAreaElement} */ (element("question"));
const sendButton = element("btnSend");
const stopButton = /** @type {HTMLButtonElement} */ (element("btnStop"));
const againButton = element("btnAgain");
const composer = createComposer(question, send);
const status = createStatus(element("state"), element("countdown"), element("passing"));
const messages = createMessages(element("log"), { regenerate: again, copy });
const scroll = createScroll(element("btnEnd"));
const speaker = createSpeaker(element("spoken"));
const store = createStore(() => localStorage);

/** @typedef {import("./conversation.js").Conversation} Conversation */
/** @typedef {import("./conversation.js").Running} Running */
/** @typedef {import("./stream.js").Stream} Stream */
/** @typedef {import("./messages.js").Answer} Answer */

/** @param {string} key @param {Answer} shown */
const newRun = (key, shown) => ({
  key,
  shown,
  stream: /** @type {Stream | undefined} */ (undefined),
  leaving: new AbortController(),
  question: "", // that this tab has sent
  timer: /** @type {any} */ (0), // until the start of another tab is taken over
  since: performance.now(),
  resumed: false, // the beginning was seen by another page, so times are the server's
  count: 0, // of texts
});

/** The answer that this tab follows. */
let run = /** @type {ReturnType<typeof newRun> | undefined} */ (undefined);

element("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
addEventListener("keydown", (event) => { if (event.key === "Escape" && !composes(event)) stop(); });
stopButton.addEventListener("click", stop);
againButton.addEventListener("click", () => againButton.dataset.does === "anew" ? begin() : again());
element("btnNew").addEventListener("click", begin);
element("btnBack").addEventListener("click", back);
element("btnForget").addEventListener("click", forget);
element("btnEnd").addEventListener("click", () => {
  if (matchMedia("(pointer: fine)").matches) question.focus(); // it would open a phone's keyboard
});
addEventListener("storage", ({ key }) => { if (key === KEPT || key === null) show(store.load()); });
addEventListener("pageshow", ({ persisted }) => { if (persisted) show(store.load()); }); // frozen pages get no events
addEventListener("pagehide", keepPartial);
document.addEventListener("visibilitychange", () => { if (document.hidden) keepPartial(); });
setInterval(keepPartial, KEEP_MS);
say("idle", "");
show(store.load(), true);

/** Sends what is written. */
function send() {
  const { text } = composer;
  const conversation = store.load();
  if (!text) return;
  if (conversation.running) return status.pass("Wait for the end of the answer, or stop it first.");
  if (isTooLong(text)) return status.pass("That is too long to be sent.");
  composer.clear();
  start(asked(conversation, text, randomKey()));
  if (run) run.question = text;
}

/** Asks the last question again. */
function again() {
  const conversation = store.load();
  if (!conversation.running) start(askedAgain(conversation, randomKey()));
}

/** A conversation whose answer this tab starts. @param {Conversation} conversation */
function start(conversation) {
  change(conversation, true);
  if (document.activeElement !== question) stopButton.focus(); // what was pressed is gone
  scroll.toEnd();
}

/** Begins a new conversation. */
function begin() {
  const conversation = store.load();
  // Where the only question was refused, there is nothing to go back to.
  if (conversation.messages.length) {
    store.saveBefore(run ? answered(conversation, run.key, { ...run.shown.content, note: "stopped" }) : conversation);
  }
  stop();
  run = undefined; // it reads on until its stop has arrived
  speaker.forget();
  store.forgetPartial();
  change(begun(conversation));
  say("idle", "A new conversation.");
  question.focus();
}

/** Goes back to the conversation before the new one. */
function back() {
  if (!store.before().messages.length) return show(store.load()); // another tab has forgotten it
  change(begun(store.load(), store.before()));
  scroll.toEnd();
  say("idle", "The conversation before.");
  question.focus();
}

/** Forgets the conversation before the new one. */
function forget() {
  store.forgetBefore();
  show(store.load());
  status.pass("It is forgotten.");
  question.focus();
}

function stop() {
  if (!run) return;
  const mine = run;
  say("", "Stopping…");
  // A tab that doesn't know the stream asks the one that does.
  change(moved(store.load(), { key: mine.key, stopping: true }));
  mine.stream?.stop().catch((error) => {
    if (run !== mine) return mine.leaving.abort();
    status.pass(`It can’t be stopped. ${explain(error, IN_CHAT).what}`);
    say(mine.stream?.state ?? "");
    change(moved(store.load(), { key: mine.key, stopping: false }));
  });
}

/** Keeps a conversation, and shows it. @param {Conversation} conversation @param {boolean} [starts] */
function change(conversation, starts) {
  store.save(conversation);
  show(conversation, starts);
}

/**
 * Shows a conversation as it is kept now, whoever has changed it.
 * @param {Conversation} conversation @param {boolean} [starts] this page starts the answer, or was just opened: then the tab that
 *   has started it may be this one before its reload
 */
function show(conversation, starts = false) {
  const { running } = conversation;
  if (run && run.key !== running?.key) {
    leave(run, conversation);
    run = undefined;
  }
  messages.show(conversation);
  place(conversation);
  busy(!!running);
  if (running) follow(conversation, running, starts);
}

/** Another tab was faster: with the end of the answer, with another question, or it has begun another conversation.
 * @param {NonNullable<typeof run>} mine @param {Conversation} conversation */
function leave({ key, shown, stream, leaving, timer, question }, { messages, running, failure }) {
  clearTimeout(timer);
  const find = (/** @type {string} */ wanted) => messages.find(({ id }) => id === wanted);
  const kept = find(key);
  if (kept || failure || !stream) leaving.abort();
  else stream.stop().catch(() => leaving.abort());
  if (kept) {
    speaker.add(kept.content.slice(shown.text.length));
    speaker.end();
  } else {
    speaker.forget();
    if ((running || failure) && !find(`${key}?`)) composer.giveBack(question);
  }
  if (failure) say("failed");
  else if (kept) sayEnd(kept.note);
  else say("idle", "");
}

/** What stands around the messages. @param {Conversation} conversation */
function place({ messages, dropped, failure }) {
  element("dropped").hidden = !dropped;
  const isEmpty = !messages.length;
  element("welcome").hidden = !isEmpty;
  element("btnNew").hidden = isEmpty;
  element("before").hidden = !isEmpty || !store.before().messages.length;
  element("unkept").hidden = isEmpty || store.survives;
  element("problem").hidden = !failure;
  if (!failure) return;
  replace(element("problemWhat"), failure.what);
  replace(element("problemTodo"), failure.todo);
  replace(againButton, failure.again);
  againButton.hidden = !failure.again;
  againButton.dataset.does = failure.anew ? "anew" : "again";
}

/** Reads the running answer: its stream, or a start where none is known yet. @param {Conversation} conversation @param {Running} running @param {boolean} starts */
function follow(conversation, { key, id, stopping, notBefore = 0 }, starts) {
  if (!run) {
    run = newRun(key, messages.begin(key));
    say("connecting");
  }
  const mine = run;
  if (mine.stream) {
    if (stopping) mine.stream.stop().catch(() => {}); // another tab says so, and hears of it if it fails
    return;
  }
  clearTimeout(mine.timer);
  const wait = (stopping ? 0 : Math.max(notBefore - Date.now(), 0)) + (starts ? 0 : TAKEOVER_MS);
  if (id) {
    const partial = store.partial(key, id);
    if (partial) {
      mine.shown.reason(partial.reasoning);
      mine.shown.write(partial.text);
    }
    mine.resumed = true;
    read(mine, (options) => resumeStream(`/streams/${id}`, { cursor: partial?.cursor, ...options }));
  } else if (wait) {
    mine.resumed = true;
    mine.timer = setTimeout(() => { if (run === mine) show(store.load(), true); }, wait);
  } else if (stopping) {
    mine.resumed = true;
    over(mine, { finish: "stopped" }); // its page is gone, and nobody wants it
  } else {
    read(mine, (options) => openStream("/chat", bodyOf(conversation), { key, ...options }));
  }
  if (stopping) /** @type {Stream | undefined} */ (mine.stream)?.stop().catch(() => {});
}

/** Reads a stream to its end, whichever that is. @param {NonNullable<typeof run>} mine @param {(options: import("./stream.js").Options) => Stream} open */
async function read(mine, open) {
  const { shown, leaving: { signal } } = mine;
  const isCurrent = () => run === mine;
  try {
    const stream = mine.stream = open({
      signal,
      onState: (to) => { if (isCurrent()) move(to); },
      onReasoning: (text) => {
        if (!isCurrent()) return;
        shown.reason(text);
        if (!shown.text) say("thinking", "Thinking…");
      },
    });
    for await (const text of stream) {
      if (!isCurrent()) continue;
      const isFirst = !shown.text;
      shown.write(text);
      speaker.add(text);
      mine.count++;
      if (isFirst) say("streaming");
    }
    const result = await stream.result;
    if (isCurrent()) over(mine, result);
  } catch (error) {
    if (isCurrent()) failed(mine, error);
  }
}

/** @param {NonNullable<typeof run>} mine @param {import("./stream.js").Result} result */
function over({ key, shown, since, resumed, count }, { finish, usage, timing }) {
  const tokens = usage?.output_tokens ?? (resumed ? undefined : count);
  const took = timing?.total_ms ?? (resumed ? undefined : performance.now() - since);
  end(answered(store.load(), key, { ...shown.content, ...finish && finish !== "stop" && { note: finish } }));
  sayEnd(finish, tokens, took);
}

/** @param {NonNullable<typeof run>} mine @param {unknown} error */
function failed({ key, shown, stream }, error) {
  const words = explain(error, IN_CHAT);
  const anew = error instanceof StreamError && /\/too-l(ong|arge)$/.test(error.type);
  const isUnanswered = !stream?.id && !shown.text && error instanceof StreamError;
  const again = anew ? "New conversation" : words.again;
  const conversation = store.load();
  say("failed");
  const isRefused = isUnanswered && !error.retryable && /^4/.test(String(error.status));
  // A question that had an answer before isn't what is refused.
  if (isRefused && !conversation.running?.again) {
    if (conversation.running?.key === key) composer.giveBack(conversation.messages.at(-1)?.content ?? "");
    end(refused(conversation, key, { ...words, again: anew ? again : "", anew }));
  } else {
    // Where no answer came, this key may stand for one.
    const failure = { ...words, again: again || "Ask again", anew, ...isUnanswered && { key } };
    end(answered(conversation, key, { ...shown.content, note: "failed" }, failure));
  }
}

/** The answer is over. @param {Conversation} conversation */
function end(conversation) {
  speaker.end();
  store.forgetPartial();
  run = undefined;
  change(conversation);
}

/** @param {import("./stream.js").StateChange} change */
function move({ state: to, delay = 0 }) {
  if (!run) return;
  const { stream: { id } = {}, key } = run;
  const conversation = store.load();
  const known = id ? { key, id } : { key, notBefore: Date.now() + delay };
  if (conversation.running?.key === key && !conversation.running.id) store.save(moved(conversation, known));
  if (to === "streaming" || to === "reconnecting") say(to, undefined, delay);
}

/** @param {string} to @param {string} [words] @param {number} [delay] */
function say(to, words = describe(to, { begun: !!run?.shown.text, known: !!run?.stream?.id }), delay) {
  status.say(to, words, delay);
}

/** @param {string} [finish] @param {number} [tokens] @param {number} [took] ms */
function sayEnd(finish, tokens, took) {
  say(finish === "stopped" ? "stopped" : "done", conclude(finish, tokens, took));
}

/** An answer is being written. @param {boolean} isBusy */
function busy(isBusy) {
  if (stopButton.hidden === !isBusy) return;
  const had = document.activeElement === (isBusy ? sendButton : stopButton);
  sendButton.hidden = isBusy;
  stopButton.hidden = !isBusy;
  if (had) (isBusy ? stopButton : sendButton).focus(); // in the field it would open a phone's keyboard
}

/** For a page that is reloaded, or another tab. */
function keepPartial() {
  const cursor = run?.stream?.cursor;
  if (!run || !cursor) return;
  const { content, reasoning = "" } = run.shown.content;
  store.savePartial({ key: run.key, cursor, text: content, reasoning });
}

/** @param {string} text @param {HTMLButtonElement} button */
async function copy(text, button) {
  const isCopied = await copied(text);
  button.textContent = isCopied ? "Copied" : "Not copied";
  status.pass(isCopied ? "Copied." : "This browser doesn’t let the page copy.");
  setTimeout(() => { button.textContent = "Copy"; }, COPIED_MS);
}
