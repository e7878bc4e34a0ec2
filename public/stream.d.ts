// Chrome and Edge 98, Firefox 97, Safari 15.4, or younger: `AbortSignal.reason` is the youngest feature that is needed.

/** Where a stream is. The last four are final: `stopped` after `stop()`, `left` after its signal or a `break`. */
export type State = "connecting" | "streaming" | "reconnecting" | "done" | "stopped" | "failed" | "left";

export interface StateChange {
  state: State;
  /** `reconnecting`: ms until the next request. */
  delay?: number;
  /** `reconnecting`, `failed`: what happened. `left`: the signal's reason. */
  error?: unknown;
}

export interface Options {
  /** Aborting it leaves: the connection closes, the generation goes on for others. */
  signal?: AbortSignal;
  /** `fetch` reads only as fast as you do, and notices dead connections. `eventsource` can't see whether a stream without ids was whole: unless its server ends it with `done`, it throws `truncated`.
   * It can't start a conversation: fetch does that, and it resumes. Default: `fetch`. */
  transport?: "fetch" | "eventsource";
  /** What precedes `/streams/ID`: `"/ai"` for `/ai/streams/ID`. Default: what precedes `/simple`, `/chat` or `/prompts/NAME` in
   * the address of the start, else the root of its host. */
  base?: string;
  /** Called at each change of state, never before `openStream` has returned. What it throws is an unhandled rejection, and ends nothing. */
  onState?: (change: StateChange) => void;
  /** Gets what the model tells of its thoughts, each piece once and in order with the texts, as they are iterated. The texts are the
   * answer's alone. What it throws is an unhandled rejection, and ends nothing. */
  onReasoning?: (text: string) => void;
}

export interface StartOptions extends Options {
  /** Idempotency key, 16 to 128 visible ASCII characters: the same key and variables, or conversation, lead to the same stream.
   * Default: random. */
  key?: string;
}

/** The body of a start at `/chat`. */
export interface Conversation {
  messages: Message[];
  /** Default: the server's models in its order of preference. */
  model?: string;
  max_tokens?: number;
  temperature?: number;
  top_p?: number;
  stop?: string | string[];
  seed?: number;
}

export interface Message {
  role: "system" | "developer" | "user" | "assistant";
  content: string;
}

export interface ResumeOptions extends Options {
  /** `ID.n`: deliver what comes after event n. Default: from the start. */
  cursor?: string;
}

export interface Result {
  /** `stop`: the model ended; `length`: a limit did; `content-filter`: its provider did; `stopped`: somebody did. Absent where the server doesn't say. */
  finish?: string;
  usage?: { input_tokens?: number; output_tokens?: number };
  /** Measured by the server. */
  timing?: { first_token_ms?: number; total_ms?: number };
}

/** The text of one answer, each piece once and in order. Iterate once: a second iteration gives nothing, and ends with the same
 * result or error. */
export interface Stream extends AsyncIterable<string> {
  /** Known from the first answer on. A stream without ids, of another server, can't be resumed. */
  readonly id: string | undefined;
  /** Where to follow or stop this stream. */
  readonly url: string | undefined;
  /** Of the last text or reasoning delivered: what `resumeStream` takes. */
  readonly cursor: string | undefined;
  readonly state: State;
  /** The end of the answer; rejects with what the iteration throws. Asked for while nobody iterates, it reads on by itself, and
   * keeps what it read for a later iteration. */
  readonly result: Promise<Result>;
  /** Ends the generation, for all its readers. Before the id is known: as soon as it is. Rejects if the server can't be reached
   * or refuses; nobody has to await it. */
  stop(): Promise<void>;
}

/**
 * An RFC 9457 problem of the server, from an answer or a `failed` event, or the client's own, `type` then being
 * `network` (not reached, or silent), `truncated` (broke off), `gap` (an event is missing), `malformed` (not understood),
 * `unsupported` (this fetch gives no body to read), `refused` (by EventSource), or `not-found` (no stream's address).
 */
export class StreamError extends Error {
  constructor(problem: Partial<Pick<StreamError, "type" | "title" | "detail" | "status" | "retryable" | "retryAfter">>, options?: ErrorOptions);
  readonly name: "StreamError";
  readonly type: string;
  readonly title: string;
  readonly detail?: string;
  readonly status?: number;
  /** Asking again may help. Nothing asks again by itself once this was thrown. */
  readonly retryable: boolean;
  /** ms */
  readonly retryAfter?: number;
}

/** What a start at this address takes: at `/chat` a conversation. */
export type Variables<Url> = Url extends `${string}/chat` ? Conversation : Conversation | Record<string, unknown>;

/** Starts a stream: `openStream("/simple", { topic: "cat" })`. Asks at once, and reads on as it is iterated.
 * A query in the address is variables too: `openStream("/simple?topic=cat")`.
 * At `/chat` the variables are a conversation, as it is at this moment: `openStream("/chat", { messages: [{ role: "user", content: "Hi" }] })`.
 * Throws a `TypeError` at once where JSON can’t hold them. */
export function openStream<Url extends string | URL>(url: Url, variables?: Variables<Url>, options?: StartOptions): Stream;

/** Follows a stream that exists: `resumeStream("/streams/ID")`, an address without a query. Throws `not-found` when that can't be one. */
export function resumeStream(url: string | URL, options?: ResumeOptions): Stream;
