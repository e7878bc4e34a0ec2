// @ts-check
// A conversation as a browser keeps it: what is in it, what happens to it, where it is kept. Every tab shows the same one.
// Whatever happens makes a new value, so that each tab can compare what it shows with what is kept.

/** @typedef {{ id: string, role: "user" | "assistant", content: string, reasoning?: string, note?: string }} Message
 *   `id` of an answer: the key of its start; `note`: how it ended, where it didn't end by itself */
/** @typedef {{ key: string, id?: string, stopping?: boolean }} Running
 *   The answer that is being written: the key of its start, and its stream's id as soon as a tab knows it. */
/** @typedef {{ what: string, todo: string, again: string, anew?: boolean, key?: string }} Failure
 *   `anew`: another conversation is what helps; `key`: of a start that may have come to an answer */
/** @typedef {{ messages: Message[], turn: number, dropped?: boolean, running?: Running, failure?: Failure }} Conversation
 *   `turn`: how often somebody has asked, or begun anew; a tab that is late, and writes what was before, is put right by it */
/** @typedef {{ key: string, cursor: string, text: string, reasoning: string }} Partial  What a tab has read of an answer, up to a cursor. */

/** Characters that are kept. In any script they are less than the 1 MiB that the edge takes, and far less than browsers keep. */
const MOST_CHARS = 250_000;
/** In localStorage. */
export const KEPT = "headwater.chat";
const PARTIAL = "headwater.chat.partial";
const BEFORE = "headwater.chat.before";

export const EMPTY = /** @type {Conversation} */ ({ messages: [], turn: 0 });

/** Another conversation: an empty one, or one from before. @param {Conversation} conversation in whose place @param {Conversation} [another] @returns {Conversation} */
export function begun({ turn }, another = EMPTY) {
  return { ...another, turn: turn + 1 };
}

/** What the server gets. An answer that has no text says nothing. @param {Conversation} conversation */
export function bodyOf({ messages }) {
  return { messages: messages.filter(({ content }) => content).map(({ role, content }) => ({ role, content })) };
}

/** A question, and a start with this key. @param {Conversation} conversation @param {string} content @param {string} key @returns {Conversation} */
export function asked({ messages, turn, dropped }, content, key) {
  return { ...fitted([...messages, { id: `${key}?`, role: "user", content }], dropped), turn: turn + 1, running: { key } };
}

/** The last question once more, in place of its answer. A start that may have come to an answer keeps its key, so that it isn't
 * paid twice. @param {Conversation} conversation @param {string} key of a new start @returns {Conversation} */
export function askedAgain({ messages, turn, dropped, failure }, key) {
  return { messages: messages.slice(0, lastQuestion(messages) + 1), turn: turn + 1, dropped, running: { key: failure?.key ?? key } };
}

/** The stream of a start is known, or it is to be stopped. @param {Conversation} conversation @param {Running} running */
export function moved(conversation, running) {
  return conversation.running?.key === running.key ? { ...conversation, running: { ...conversation.running, ...running } } : conversation;
}

/** An answer is over, well or with a failure. Nothing happens where another tab was faster.
 * @param {Conversation} conversation @param {string} key @param {Omit<Message, "id" | "role">} answer @param {Failure} [failure] @returns {Conversation} */
export function answered(conversation, key, answer, failure) {
  const { messages, turn, dropped, running } = conversation;
  if (running?.key !== key) return conversation;
  const isNothing = failure && !answer.content && !answer.reasoning;
  return { messages: isNothing ? messages : [...messages, { id: key, role: "assistant", ...answer }], turn, dropped, failure };
}

/** @param {Message[]} messages */
function lastQuestion(messages) {
  return messages.map(({ role }) => role).lastIndexOf("user");
}

/** Drops the oldest questions with their answers, but never the newest. @param {Message[]} messages @param {boolean} [dropped] */
function fitted(messages, dropped) {
  const newest = lastQuestion(messages);
  let from = messages.length;
  for (let chars = 0, at = messages.length - 1; at >= 0; at--) {
    chars += messages[at].content.length + (messages[at].reasoning?.length ?? 0);
    if (chars > MOST_CHARS && at < newest) break;
    if (messages[at].role === "user") from = at; // an answer doesn't stay without its question
  }
  return { messages: messages.slice(from), ...(dropped || from > 0) && { dropped: true } };
}

/** Keeps a conversation where every tab of this page finds it; in memory, where the browser keeps nothing.
 * @param {() => Pick<Storage, "getItem" | "setItem" | "removeItem">} storage may throw */
export function createStore(storage) {
  const memory = new Map(); // what the browser doesn't keep
  let latest = EMPTY;
  const read = (/** @type {string} */ name) => {
    try {
      return JSON.parse(memory.get(name) ?? storage().getItem(name) ?? "null");
    } catch {
      return null;
    }
  };
  const keep = (/** @type {string} */ name, /** @type {unknown} */ value) => {
    const text = JSON.stringify(value);
    try {
      storage().setItem(name, text);
      memory.delete(name);
    } catch { // full, or forbidden
      memory.set(name, text);
    }
  };
  return {
    /** Between two tabs localStorage has no order: an answer's end can be written over what came behind it, which is written again. */
    load() {
      const kept = parse(read(KEPT));
      if (kept && kept.turn < latest.turn) keep(KEPT, latest);
      else latest = kept ?? EMPTY;
      return latest;
    },
    /** @param {Conversation} conversation */
    save(conversation) {
      latest = conversation;
      keep(KEPT, conversation);
    },
    /** The conversation before a new one was begun: a slip of the finger loses nothing. */
    before: () => parse(read(BEFORE)) ?? EMPTY,
    /** @param {Conversation} conversation */
    saveBefore: (conversation) => keep(BEFORE, conversation),
    /** What was read of an answer. @param {string} key @param {string} id of its stream @returns {Partial | undefined} */
    partial(key, id) {
      const { key: of, cursor, text, reasoning } = Object(read(PARTIAL));
      const isWhole = [cursor, text, reasoning].every(isText);
      return isWhole && of === key && cursor.split(".")[0] === id ? { key, cursor, text, reasoning } : undefined;
    },
    /** @param {Partial} partial */
    savePartial: (partial) => keep(PARTIAL, partial),
    forgetPartial() {
      memory.delete(PARTIAL);
      try {
        storage().removeItem(PARTIAL);
      } catch {}
    },
  };
}

const isText = (/** @type {unknown} */ value) => typeof value === "string";

/** What another version of this page, or another hand, has written is taken where it makes sense. @param {any} kept @returns {Conversation | undefined} */
function parse(kept) {
  const { messages, turn, dropped, running, failure } = Object(kept);
  if (!Array.isArray(messages)) return;
  return {
    turn: Number(turn) || 0,
    messages: messages.filter((message) => isText(message?.id) && isText(message.content) && /^(user|assistant)$/.test(message.role)),
    ...dropped && { dropped: true },
    ...isText(running?.key) && { running },
    ...isText(failure?.what) && { failure },
  };
}
