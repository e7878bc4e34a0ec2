// @ts-check
// Text in the page: streamed, or in place of another.

/** A block of text ends at a line end behind so many characters: what a token changes is laid out with its block alone. */
const BLOCK_CHARS = 400;

/** Appends to what `output` shows. Text nodes: nothing that a model says is markup. @param {Element} output @param {string} text */
export function write(output, text) {
  for (const line of text.match(/[^\n]*\n|[^\n]+/g) ?? []) {
    let block = output.lastChild?.lastChild;
    if (!(block instanceof Text) || block.length > BLOCK_CHARS && block.data.endsWith("\n")) {
      block = new Text();
      const div = document.createElement("div");
      div.append(block);
      output.append(div);
    }
    /** @type {Text} */ (block).appendData(line);
  }
}

/** The same words again would be announced again. @param {HTMLElement} place @param {string} words */
export function replace(place, words) {
  if (place.textContent !== words) place.textContent = words;
}
