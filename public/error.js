// @ts-check
// What a stream throws.

/** A problem's members, each by an example of its type. @type {Record<string, unknown>} */
const MEMBERS = { type: "", title: "", detail: "", status: 0, retryable: false, retryAfter: 0 };

export class StreamError extends Error {
  name = "StreamError";
  type = "about:blank";
  title = "Failed";
  retryable = false;

  /** @param {any} problem RFC 9457, or one of this client's own. A member of another type is left out: not every server means the same.
   * @param {ErrorOptions} [options] */
  constructor(problem, options) {
    super("", options);
    const own = /** @type {any} */ (this);
    for (const member in MEMBERS) if (typeof problem[member] === typeof MEMBERS[member]) own[member] = problem[member];
    this.message = own.detail ?? this.title;
  }
}

/** An error that another request may mend: by default, that of a truncated stream.
 * @param {string} [type] @param {string} [title] @param {unknown} [cause] */
export const fault = (type = "truncated", title = "The answer broke off", cause) =>
  new StreamError({ type, title, retryable: true }, { cause });

/** @param {string} title @param {unknown} [cause] */
export const malformed = (title, cause) => new StreamError({ type: "malformed", title }, { cause });
