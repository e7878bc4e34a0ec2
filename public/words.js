// @ts-check
// The page's texts: states, results and errors, in words for people.

import { StreamError } from "./stream.js";

/** What went wrong, and what to do about it. By the last part of the problem's type. @type {Record<string, [string, string]>} */
const PROBLEMS = {
  network: ["The server can’t be reached.", "Look at your connection, then try again."],
  truncated: ["The answer broke off, and the rest can’t be fetched.", "Ask again for a new one."],
  malformed: ["The server sent something this page doesn’t understand.", "Reload the page to get its newest version."],
  unsupported: ["This browser can’t read an answer as it arrives.", "Try another one."],
  expired: ["This answer is no longer kept.", "Finished answers are kept for a few minutes. Ask again for a new one."],
  "not-found": ["This answer can’t be found.", "It may be no longer kept, or the server was restarted. Ask again for a new one."],
  "bad-request": ["The server doesn’t accept this topic.", "Try a shorter or a simpler one."],
  "too-large": ["That topic is too long.", "Try a shorter one."],
  "too-long": ["That topic is too long for the model.", "Try a shorter one."],
  "rate-limited": ["That was one poem after the other.", "Wait a little, then try again."],
  overloaded: ["Too many people are asking at the moment.", "Try again soon."],
  journal: ["The server can’t keep answers at the moment.", "Try again soon."],
  "origin-unreachable": ["The model’s server can’t be reached.", "Try again soon."],
  "origin-timeout": ["The model’s server doesn’t answer.", "Try again soon."],
  "model-refused": ["The model refused this.", "Try another topic."],
  "model-broke-off": ["The model broke off.", "Try again: a new answer may come through."],
  "first-token-timeout": ["The model didn’t begin.", "Try again soon."],
  "idle-timeout": ["The model fell silent in mid-answer.", "Try again: a new answer may come through."],
  abandoned: ["Nobody was reading, so the answer was given up.", "Ask again for a new one."],
  interrupted: ["The server that wrote this answer went away.", "Ask again for a new one."],
};

/** In place of those, in a conversation. By the last part of the problem's type, or by the status. @type {Record<string, [string, string]>} */
export const IN_CHAT = {
  "bad-request": ["The server doesn’t accept this message.", "Try another one."],
  "too-large": ["This conversation is too long to be sent.", "Begin a new one, with what it needs to know."],
  "too-long": ["This conversation is too long for the model.", "Begin a new one, with what it needs to know."],
  "rate-limited": ["That was one message after the other.", "Wait a little, then try again."],
  "model-refused": ["The model refused this.", "Say it in another way, or begin a new conversation."],
  401: ["This server’s chat is closed.", 'Whoever runs it can open it: CHAT = "open" in the edge’s wrangler.toml.'],
};

/** A server that can't be reached, but not retryable: what answered in its place may have been paid for. @type {[string, string]} */
const UNUSABLE = ["What answered is no server of this page’s.", "Whoever runs it has to mend that."];

/** Not retryable, says the server: this answer is lost. But another can be had. */
const LOST = ["expired", "not-found", "truncated"];

/** @param {unknown} error @param {Record<string, [string, string]>} [words] in place of the usual ones
 * @returns {{ what: string, todo: string, again: string }} `again`: what the button says; empty, no button */
export function explain(error, words = {}) {
  if (!(error instanceof StreamError)) return { what: "Something went wrong in this page.", todo: String(error), again: "Try again" };
  const { type, title, detail, status, retryable, retryAfter } = error;
  const name = type.split("/").pop() ?? "";
  const isUnusable = name === "origin-unreachable" && !retryable;
  const [what, todo] = isUnusable ? UNUSABLE : words[name] ?? words[status ?? 0] ?? PROBLEMS[name] ?? [
    detail ?? title,
    retryable ? "Try again soon." : `Trying again won’t help${status ? ` (status ${status})` : ""}.`,
  ];
  const again = LOST.includes(name) ? "Ask again" : retryable ? "Try again" : "";
  return { what, todo: retryAfter ? `Try again in ${duration(retryAfter)}.` : todo, again };
}

/** @param {string} state @param {{ begun: boolean, known: boolean }} so `begun`: there is text; `known`: there is a stream to go on with */
export function describe(state, { begun, known }) {
  switch (state) {
    case "connecting": return "Asking…";
    case "streaming": return begun ? "Writing…" : "Waiting for the first token…";
    case "reconnecting":
      if (!navigator.onLine) return "You are offline. It goes on when the network is back.";
      return known ? "Connection lost. Reconnecting…" : "No answer yet. Trying again…";
    case "failed": return begun ? "Not finished." : "No answer.";
    default: return "";
  }
}

/** How an answer ended that didn't end by itself. @type {Record<string, string>} */
const ENDS = { length: "Ended at the length limit", "content-filter": "Ended by the model’s filter", stopped: "Stopped" };

/** @param {string | undefined} finish @param {number | undefined} [tokens] @param {number | undefined} [took] ms @param {boolean} [replayed] */
export function conclude(finish, tokens, took, replayed = false) {
  const how = replayed ? "Replayed" : ENDS[finish ?? ""] ?? "Finished";
  const count = tokens === undefined ? "" : `: ${tokens.toLocaleString("en")} token${tokens === 1 ? "" : "s"}`;
  return `${how}${count}${took ? ` in ${duration(took)}` : ""}.`;
}

/** @param {number} ms */
export function duration(ms) {
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  if (ms < 10_000) return `${(ms / 1_000).toFixed(1)} s`;
  if (ms < 120_000) return `${Math.round(ms / 1_000)} s`;
  return `${Math.round(ms / 60_000)} min`;
}
