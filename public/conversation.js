// @ts-check
// A conversation as a browser keeps it: what is in it, what happens to it, where it is kept. Every tab shows the same one.
// Whatever happens makes a new value, so that each tab can compare what it shows with what is kept.

/** @typedef {{ id: string, role: "user" | "assistant", content: string, reasoning?: string, note?: string }} Message
 *   `id` of an answer: the key of its start; `note`: how it ended, where it didn't end by itself */
/** @typedef {{ key: string, id?: string, stopping?: boolean, notBefore?: number, again?: boolean }} Running
 *   The answer that is being written: the key of its start, and its stream's id as soon as a tab knows it; `notBefore`: when the
 *   start may be sent again, in ms since 1970; `again`: the question had an answer before */
/** @typedef {{ what: string, todo: string, again: string, anew?: boolean, key?: string }} Failure
 *   `anew`: another conversation is what helps; `key`: of a start that may have come to an answer */
/** @typedef {{ messages: Message[], turn: number, dropped?: boolean, running?: Running, failure?: Failure }} Conversation
 *   `turn`: grows when somebody asks, or begins anew; a tab that is late, and writes what was before, is put right by it */
/** @typedef {{ key: string, cursor: string, text: string, reasoning: string }} Partial  What a tab has read of an answer, up to a cursor. */

/** Bytes of JSON: 250,000 characters of any script. The edge takes 1 MiB, and browsers keep several. */
const MOST_BYTES = 750_000;
/** The origin takes 1,000. */
const MOST_MESSAGES = 900;
/** In localStorage. */
export const KEPT = "headwater.chat";
const PARTIAL = "headwater.chat.partial";
const BEFORE = "headwater.chat.before";

export const EMPTY = /** @type {Conversation} */ ({ messages: [], turn: 0 });

/** Another conversation: an empty one, or one from before. @param {Conversation} conversation in whose place @param {Conversation} [another] @returns {Conversation} */
export function begun({ turn }, another = EMPTY) {
  return { ...another, turn: next(turn), running: undefined };
}

/** No server would take this question. @param {string} content */
export const isTooLong = (content) => bytesOf(content) > MOST_BYTES;

/** What the server gets. An answer that has no text says nothing. @param {Conversation} conversation */
export function bodyOf({ messages }) {
  return { messages: fitted(messages).filter(({ content }) => content).map(({ role, content }) => ({ role, content })) };
}

/** A question, and a start with this key. @param {Conversation} conversation @param {string} content @param {string} key @returns {Conversation} */
export function asked({ messages, turn, dropped }, content, key) {
  return { messages: [...messages, { id: `${key}?`, role: "user", content }], turn: next(turn), dropped, running: { key } };
}

/** The last question once more, in place of its answer. A start that may have come to an answer keeps its key, so that it isn't
 * paid twice. @param {Conversation} conversation @param {string} key of a new start @returns {Conversation} */
export function askedAgain({ messages, turn, dropped, failure }, key) {
  const kept = messages.slice(0, lastQuestion(messages) + 1);
  const again = kept.length < messages.length && { again: true };
  return { messages: kept, turn: next(turn), dropped, running: { key: failure?.key ?? key, ...again } };
}

/** The stream of a start is known, or it is to be stopped. @param {Conversation} conversation @param {Running} running */
export function moved(conversation, running) {
  return conversation.running?.key === running.key ? { ...conversation, running: { ...conversation.running, ...running } } : conversation;
}

/** An answer is over, well or with a failure. What is too old for the next start goes only now: the question was taken. Nothing
 * happens where another tab was faster.
 * @param {Conversation} conversation @param {string} key @param {Omit<Message, "id" | "role">} answer @param {Failure} [failure] @returns {Conversation} */
export function answered(conversation, key, answer, failure) {
  const { messages, turn, dropped, running } = conversation;
  if (running?.key !== key) return conversation;
  const isNothing = failure && !answer.content && !answer.reasoning;
  const kept = isNothing ? messages : fitted([...messages, { id: key, role: "assistant", ...answer }]);
  return { messages: kept, turn, ...(dropped || kept[0] !== messages[0]) && { dropped: true }, failure };
}

/** A question is refused for good: it goes, so that it doesn't spoil the next one. Nothing happens where another tab was faster.
 * @param {Conversation} conversation @param {string} key @param {Failure} failure @returns {Conversation} */
export function refused(conversation, key, failure) {
  const { messages, turn, dropped, running } = conversation;
  return running?.key === key ? { messages: messages.slice(0, lastQuestion(messages)), turn, dropped, failure } : conversation;
}

/** Times, so that a conversation that begins from nothing is newer than one that a tab still shows. @param {number} turn */
function next(turn) {
  return Math.max(turn + 1, Date.now());
}

/** @param {Message[]} messages */
function lastQuestion(messages) {
  return messages.map(({ role }) => role).lastIndexOf("user");
}

/** Without the oldest questions and their answers, where it is too much. The newest question stays. @param {Message[]} messages */
function fitted(messages) {
  const newest = lastQuestion(messages);
  let from = messages.length;
  for (let bytes = 0, at = messages.length - 1; at >= 0; at--) {
    bytes += bytesOf(messages[at]);
    if ((bytes > MOST_BYTES || messages.length - at > MOST_MESSAGES) && at < newest) break;
    if (messages[at].role === "user") from = at; // an answer doesn't stay without its question
  }
  return messages.slice(from);
}

/** As JSON. @param {unknown} value */
function bytesOf(value) {
  return new TextEncoder().encode(JSON.stringify(value)).length;
}

/** Keeps a conversation where every tab of this page finds it; in memory, where the browser keeps nothing.
 * @param {() => Pick<Storage, "getItem" | "setItem" | "removeItem">} storage may throw */
export function createStore(storage) {
  const memory = new Map(); // what the browser doesn't keep
  let latest = EMPTY;
  const stored = (/** @type {string} */ name) => {
    try {
      return JSON.parse(storage().getItem(name) ?? "null");
    } catch {
      return null;
    }
  };
  const read = (/** @type {string} */ name) => memory.get(name) ?? stored(name);
  const remove = (/** @type {string} */ name) => {
    try {
      storage().removeItem(name);
    } catch {}
  };
  const write = (/** @type {string} */ name, /** @type {unknown} */ value) => {
    try {
      storage().setItem(name, JSON.stringify(value));
      return true;
    } catch { // full, or forbidden
      return false;
    }
  };
  const keep = (/** @type {string} */ name, /** @type {unknown} */ value) => {
    let isKept = write(name, value);
    if (!isKept && name === KEPT) { // it goes before the others
      remove(BEFORE);
      remove(PARTIAL);
      isKept = write(name, value);
    }
    if (isKept) memory.delete(name);
    else memory.set(name, value);
  };
  const forget = (/** @type {string} */ name) => {
    memory.delete(name);
    remove(name);
  };
  return {
    /** Between two tabs localStorage has no order: an answer's end can be written over what came behind it, which is written again. */
    load() {
      const kept = parse(stored(KEPT));
      const isLatest = memory.has(KEPT) ? !(kept && kept.turn > latest.turn) : kept && kept.turn < latest.turn;
      if (isLatest) keep(KEPT, latest);
      else {
        memory.delete(KEPT);
        latest = kept ?? EMPTY;
      }
      return latest;
    },
    /** @param {Conversation} conversation */
    save(conversation) {
      latest = conversation;
      keep(KEPT, conversation);
    },
    /** A reload finds the conversation again. */
    get survives() { return !memory.has(KEPT); },
    /** The conversation before a new one was begun: a slip of the finger loses nothing. */
    before: () => parse(read(BEFORE)) ?? EMPTY,
    /** @param {Conversation} conversation */
    saveBefore: (conversation) => keep(BEFORE, conversation),
    forgetBefore() {
      forget(BEFORE);
      forget(PARTIAL);
    },
    /** What was read of an answer. @param {string} key @param {string} id of its stream @returns {Partial | undefined} */
    partial(key, id) {
      const { key: of, cursor, text, reasoning } = Object(read(PARTIAL));
      const isWhole = [cursor, text, reasoning].every(isText);
      return isWhole && of === key && cursor.split(".")[0] === id ? { key, cursor, text, reasoning } : undefined;
    },
    /** @param {Partial} partial */
    savePartial: (partial) => keep(PARTIAL, partial),
    forgetPartial: () => forget(PARTIAL),
  };
}

const isText = (/** @type {unknown} */ value) => typeof value === "string";

/** The members that are texts. @param {any} from @param {string[]} names @returns {any} */
function texts(from, ...names) {
  return Object.fromEntries(names.filter((name) => isText(from?.[name])).map((name) => [name, from[name]]));
}

/** What another version of this page, or another hand, has written is taken where it makes sense. @param {any} kept @returns {Conversation | undefined} */
function parse(kept) {
  const { messages, turn, dropped, running, failure } = Object(kept);
  if (!Array.isArray(messages)) return;
  const whole = messages.map((message) => texts(message, "id", "role", "content", "reasoning", "note"))
    .filter(({ id, role, content }) => id !== undefined && content !== undefined && /^(user|assistant)$/.test(role));
  return {
    turn: Number.isSafeInteger(turn) ? turn : 0,
    messages: [...new Map(whole.map((message) => [message.id, message])).values()], // one of each id
    ...dropped && { dropped: true },
    ...isText(running?.key) && {
      running: {
        ...texts(running, "key", "id"),
        ...running.stopping === true && { stopping: true },
        ...running.again === true && { again: true },
        ...Number.isFinite(running.notBefore) && { notBefore: running.notBefore },
      },
    },
    ...isText(failure?.what) && {
      failure: { todo: "", again: "", ...texts(failure, "what", "todo", "again", "key"), ...failure.anew && { anew: true } },
    },
  };
}
