// @ts-check
// The line above the composer: how the answer is, when the next connection is tried, and for a while what has just happened.

import { replace } from "./text.js";

const COUNTDOWN_MS = 250;
/** What has just happened is read by then. */
const PASSING_MS = 4_000;

/** @param {HTMLElement} state @param {HTMLElement} countdown @param {HTMLElement} passing */
export function createStatus(state, countdown, passing) {
  let nextAt = 0; // when the next connection is tried
  let timer = /** @type {any} */ (0);

  setInterval(() => {
    const left = nextAt - performance.now();
    replace(countdown, left > 1000 ? `(${Math.ceil(left / 1000)} s)` : "");
  }, COUNTDOWN_MS);

  return {
    /** Announced by screen readers: changes with the state, never with a token.
     * @param {string} to empty: the same state, in other words @param {string} words @param {number} [delay] ms until the next connection */
    say(to, words, delay = 0) {
      if (to) {
        /** @type {HTMLElement} */ (state.parentElement).dataset.state = to;
        nextAt = performance.now() + delay;
      }
      replace(state, words);
    },
    /** Beside the state, and announced each time. @param {string} words */
    pass(words) {
      passing.textContent = words;
      clearTimeout(timer);
      timer = setTimeout(() => { passing.textContent = ""; }, PASSING_MS);
    },
  };
}
