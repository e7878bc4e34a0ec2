// @ts-check
// The conversation in the page: an article for each message. What changes is changed in its place, so that focus, selection
// and an open <details> stay.

import { write } from "./text.js";

/** How an answer ended that didn't end by itself. @type {Record<string, string>} */
const NOTES = {
  length: "It ended at the length limit.",
  "content-filter": "The model’s filter ended it.",
  stopped: "Stopped.",
  failed: "Not finished.",
};

/** @typedef {ReturnType<typeof newAnswer>} Answer */
/** @typedef {import("./conversation.js").Message} Message */
/** @typedef {{ regenerate: () => void, copy: (text: string, button: HTMLButtonElement) => void }} Actions */

/** @param {HTMLElement} log @param {Actions} actions */
export function createMessages(log, actions) {
  /** By the id of the message. @type {Map<string, Answer>} */
  const shown = new Map();

  return {
    /** Makes the page the same as the conversation. @param {import("./conversation.js").Conversation} conversation */
    show({ messages, running, failure }) {
      const ids = new Set([...messages.map(({ id }) => id), running?.key]);
      for (const [id, { article }] of shown) {
        if (ids.has(id)) continue;
        article.remove();
        shown.delete(id);
      }
      for (const message of messages) {
        place(message.id, message.role).settle(message);
      }
      for (const [id, answer] of shown) answer.last(!running && !failure && id === messages.at(-1)?.id);
    },
    /** The answer that is being written. @param {string} id */
    begin(id) {
      return place(id, "assistant").begin();
    },
  };

  /** @param {string} id @param {Message["role"]} role */
  function place(id, role) {
    let answer = shown.get(id);
    if (!answer) {
      answer = newAnswer(role, actions);
      shown.set(id, answer);
      log.append(answer.article);
    }
    return answer;
  }
}

let count = 0;

/** One message. @param {Message["role"]} role @param {Actions} actions */
function newAnswer(role, { regenerate, copy }) {
  let content = "";
  let reasoning = "";
  const name = make("h2", "unseen");
  name.id = `message-${++count}`;
  name.textContent = role === "user" ? "You" : "Answer";
  const text = make("div", "text");
  text.dir = "auto";
  const article = make("article", role);
  article.setAttribute("aria-labelledby", name.id);
  article.append(name, text);

  const details = document.createElement("details");
  const thoughts = make("div", "thoughts");
  const summary = document.createElement("summary");
  summary.textContent = "Reasoning";
  details.append(summary, thoughts);

  const note = make("p", "note");
  const after = make("p", "after");
  const copyButton = button("Copy", () => copy(content, copyButton));
  const regenerateButton = button("Regenerate", regenerate);
  after.append(copyButton, regenerateButton);
  if (role === "assistant") article.append(note, after);
  note.hidden = after.hidden = true;

  const answer = {
    article,
    get text() { return content; },
    get content() { return { content, ...reasoning && { reasoning } }; },
    begin() {
      clear();
      text.setAttribute("aria-busy", "true");
      after.hidden = note.hidden = true;
      return answer;
    },
    /** @param {string} more */
    write(more) {
      content += more;
      write(text, more);
    },
    /** @param {string} more */
    reason(more) {
      if (!more) return;
      if (!reasoning) text.before(details);
      reasoning += more;
      write(thoughts, more);
    },
    /** It is over. @param {Message} message as it is kept */
    settle(message) {
      text.removeAttribute("aria-busy");
      if (content !== message.content || reasoning !== (message.reasoning ?? "")) {
        clear();
        answer.reason(message.reasoning ?? "");
        answer.write(message.content);
      }
      const words = NOTES[message.note ?? ""] ?? (content ? "" : "The answer is empty.");
      note.textContent = words;
      note.hidden = !words;
      after.hidden = false;
      copyButton.hidden = !content;
    },
    /** Only the last answer can be had anew. @param {boolean} isLast */
    last(isLast) {
      regenerateButton.hidden = !isLast;
    },
  };
  return answer;

  function clear() {
    details.remove();
    thoughts.replaceChildren();
    text.replaceChildren();
    content = reasoning = "";
  }
}

/** @param {string} tag @param {string} name */
function make(tag, name) {
  const element = document.createElement(tag);
  element.className = name;
  return element;
}

/** @param {string} words @param {() => void} onClick */
function button(words, onClick) {
  const element = document.createElement("button");
  element.type = "button";
  element.className = "quiet";
  element.textContent = words;
  element.addEventListener("click", onClick);
  return element;
}
