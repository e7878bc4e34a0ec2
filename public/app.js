// @ts-check
// The page: asks for a poem, shows it as it arrives, and how it arrived.
// A reload goes on with the same answer: its id is in the address; until the id is known, its key is in the history's state.

import { randomKey } from "./fetch.js";
import { openStream, resumeStream, StreamError } from "./stream.js";
import { write } from "./text.js";
import { createTimeline } from "./timeline.js";
import { conclude, describe, duration, explain } from "./words.js";

/** The readings change this often, in ms: often enough to look alive, seldom enough to be read. */
const READINGS_MS = 250;
/** Room below the last line, in px. */
const FOOT_PX = 64;

const element = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const topic = /** @type {HTMLInputElement} */ (element("topic"));
const output = element("streamed-data");
const stopButton = /** @type {HTMLButtonElement} */ (element("btnStop"));
const againButton = element("btnAgain");
const replayButton = element("btnReplay");
const state = element("state");
const timeline = createTimeline(/** @type {HTMLCanvasElement} */ (element("timeline")));

/** @typedef {import("./stream.js").Stream} Stream */
/** @typedef {import("./stream.js").StateChange} StateChange */
/** @typedef {"asked" | "resumed" | "replayed"} Origin  How this page came to the answer. */

/** @param {Origin} origin */
const newAnswer = (origin) => ({
  origin,
  stream: /** @type {Stream | undefined} */ (undefined),
  running: true,
  since: performance.now(), // and so are all these times, in ms
  firstAt: 0,
  lastAt: 0,
  count: 0, // of texts, which are tokens as a rule
  nextAt: 0, // when the next connection is tried
});

/** The answer on the page. The one before it may still be on its way to its stop. */
let answer = { ...newAnswer("asked"), running: false };
/** The last start, until it is known whether it came to an answer: asked again with its key, it is not paid twice. */
let unanswered = /** @type {{ key: string, topic: string } | undefined} */ (undefined);
let following = true; // the reader has not scrolled away from the end of the text

element("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
againButton.addEventListener("click", () => ask());
stopButton.addEventListener("click", stop);
replayButton.addEventListener("click", () => follow(answer.stream?.id ?? "", "replayed"));
addEventListener("keydown", ({ key, isComposing }) => { if (key === "Escape" && !isComposing) stop(); });
addEventListener("scroll", () => { following = hidden() <= FOOT_PX; }, { passive: true });
begin();

/** What the address or an interrupted page asks for. */
function begin() {
  const address = new URLSearchParams(location.search);
  topic.value = address.get("topic") ?? "";
  const id = address.get("stream");
  if (history.state?.key) ask(history.state.key);
  else if (id) follow(id, "resumed");
}

/** @param {string} [key] of a start that this page made before it was reloaded */
function ask(key) {
  const origin = key ? "resumed" : "asked"; // what a reload has missed is no time to the first token
  const variables = { topic: topic.value.trim() };
  if (answer.running) stop();
  else if (unanswered?.topic === variables.topic) key ??= unanswered.key;
  key ??= randomKey();
  unanswered = { key, ...variables };
  history.replaceState({ key }, "", `?${new URLSearchParams(variables)}`);
  show(origin, (options) => openStream("/simple", variables, { key, ...options }));
}

/** @param {string} id @param {Origin} origin */
function follow(id, origin) {
  show(origin, (options) => resumeStream(`/streams/${id}`, options));
}

function stop() {
  if (!answer.running) return;
  const mine = answer;
  history.replaceState(null, ""); // a reload doesn't ask again for what was not wanted
  state.textContent = "Stopping…";
  mine.stream?.stop().catch((error) => {
    if (answer === mine && mine.running) state.textContent = `It can’t be stopped. ${explain(error).what}`;
  });
}

/** Reads a stream to its end, whichever that is. @param {Origin} origin @param {(options: import("./stream.js").Options) => Stream} open */
async function show(origin, open) {
  const mine = answer = newAnswer(origin);
  const current = () => answer === mine;
  output.replaceChildren();
  output.setAttribute("aria-busy", "true");
  stopButton.disabled = false;
  if (document.activeElement === againButton || document.activeElement === replayButton) stopButton.focus(); // they go
  element("problem").hidden = replayButton.hidden = element("toAnswer").hidden = true;
  following = true;
  timeline.start();
  move({ state: "connecting" });
  const timer = setInterval(() => { if (current()) readings(); }, READINGS_MS);
  try {
    const stream = mine.stream = open({ onState: (change) => { if (current()) move(change); } });
    for await (const text of stream) if (current()) arrive(text);
    const result = await stream.result;
    if (current()) finish(result);
  } catch (error) {
    if (current()) fail(error);
  } finally {
    clearInterval(timer);
    mine.running = false;
    if (current()) rest();
  }
}

/** @param {string} text */
function arrive(text) {
  write(output, text);
  answer.lastAt = performance.now();
  answer.count++;
  timeline.token();
  if (answer.count > 1) return;
  answer.firstAt = answer.lastAt;
  remember(); // EventSource knows the id no sooner
  say("streaming");
  readings();
}

/** @param {StateChange} change */
function move({ state: to, delay = 0 }) {
  if (to === "reconnecting") timeline.cut();
  if (to === "streaming") {
    timeline.mended();
    remember();
  }
  answer.nextAt = to === "reconnecting" ? performance.now() + delay : 0;
  say(to);
  readings();
}

/** @param {import("./stream.js").Result} result */
function finish({ finish, usage, timing }) {
  unanswered = undefined;
  const here = answer.count && answer.lastAt - answer.since;
  const tokens = usage?.output_tokens ?? answer.count;
  const replayed = answer.origin === "replayed";
  // What a replay shows are the times of the journal; what a resumed page has missed, the server knows.
  const total = replayed ? here : timing?.total_ms ?? here;
  readings(tokens, firstToken() ?? timing?.first_token_ms, timing && usage ? rate(tokens, (timing.total_ms ?? 0) - (timing.first_token_ms ?? 0)) : undefined);
  replayButton.hidden = !answer.count || !answer.stream?.id;
  say(finish === "stopped" ? "stopped" : "done", conclude(finish, tokens, total, replayed));
}

/** @param {unknown} error */
function fail(error) {
  // A refusal is an answer too, and may stand for this key.
  if (answer.stream?.id || !(error instanceof StreamError && error.retryable)) unanswered = undefined;
  const { what, todo, again } = explain(error);
  element("problemWhat").textContent = what;
  element("problemTodo").textContent = todo;
  againButton.textContent = again;
  againButton.hidden = !again;
  element("problem").hidden = false;
  say("failed");
}

/** The answer is over. */
function rest() {
  timeline.end();
  answer.nextAt = 0;
  element("countdown").textContent = "";
  history.replaceState(null, "");
  output.setAttribute("aria-busy", "false");
  if (document.activeElement === stopButton) element("btnSubmit").focus(); // in the field it would open a phone's keyboard
  element("toAnswer").hidden = !answer.count;
  stopButton.disabled = true;
}

/** For a reload, or another tab. */
function remember() {
  const id = answer.stream?.id;
  if (!id) return;
  const address = new URLSearchParams(location.search);
  address.set("stream", id);
  history.replaceState(null, "", `?${address}`);
}

/** Announced by screen readers: changes with the state, never with a token. @param {string} to @param {string} [words] */
function say(to, words = describe(to, { begun: answer.count > 0, known: !!answer.stream?.id })) {
  /** @type {HTMLElement} */ (state.parentElement).dataset.state = to;
  if (words) state.textContent = words;
}

function readings(tokens = answer.count, first = firstToken(), perSecond = liveRate()) {
  element("tokens").textContent = tokens ? tokens.toLocaleString("en") : "–";
  element("firstToken").textContent = first === undefined ? "–" : duration(first);
  element("rate").textContent = perSecond ? perSecond.toLocaleString("en", { maximumFractionDigits: perSecond < 100 ? 1 : 0 }) : "–";
  const left = answer.nextAt - performance.now();
  element("countdown").textContent = left > 1000 ? `(${Math.ceil(left / 1000)} s)` : "";
  if (following && hidden() > 0) scrollBy(0, hidden());
}

/** How much of the text's end is below the window, in px. */
function hidden() {
  return output.getBoundingClientRect().bottom + FOOT_PX - innerHeight;
}

/** Time to the first token as it was seen here, in ms. */
function firstToken() {
  return answer.origin === "asked" && answer.count ? answer.firstAt - answer.since : undefined;
}

function liveRate() {
  return answer.origin === "asked" ? rate(answer.count, answer.lastAt - answer.firstAt) : undefined;
}

/** Tokens/s behind the first token. @param {number} tokens @param {number} ms */
function rate(tokens, ms) {
  return tokens > 1 && ms > 0 ? (tokens - 1) * 1000 / ms : undefined;
}
