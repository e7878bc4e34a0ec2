// @ts-check
// Reads an answer out as it arrives, sentence by sentence: a screen reader that watched the text itself would begin anew at
// each token, or say nothing.

/** Behind these something can be read out. */
const SENTENCE_END = /[.!?…:;]["”’')\]]*\s|\n|[。！？]/g;
/** A longer sentence is read out in parts. */
const LONGEST_CHARS = 300;
const PARTS = new RegExp(`.{1,${LONGEST_CHARS}}(?=\\s|$)|.{1,${LONGEST_CHARS}}`, "gsu");
/** The browser has told the screen reader by then; who walks through the page finds the answer in its place only. */
const GONE_MS = 5_000;

/** @param {HTMLElement} region a live region that nobody sees */
export function createSpeaker(region) {
  let rest = ""; // not yet read out

  /** @param {number} end */
  function say(end) {
    const parts = rest.slice(0, end).match(PARTS) ?? [];
    rest = rest.slice(end);
    if (document.hidden) return;
    for (const text of parts.map((part) => part.trim()).filter(Boolean)) {
      const paragraph = document.createElement("p");
      paragraph.textContent = text;
      region.append(paragraph);
      setTimeout(() => paragraph.remove(), GONE_MS);
    }
  }

  return {
    /** @param {string} text */
    add(text) {
      rest += text;
      let end = rest.length > LONGEST_CHARS ? rest.lastIndexOf(" ", LONGEST_CHARS) + 1 || LONGEST_CHARS : 0;
      for (const { index, 0: { length } } of rest.matchAll(SENTENCE_END)) end = index + length;
      if (end) say(end);
    },
    /** The answer is over. */
    end: () => say(rest.length),
    /** It is no longer wanted. */
    forget() {
      rest = "";
      region.replaceChildren();
    },
  };
}
