// @ts-check
// The field in which a question is written.

/** @param {HTMLTextAreaElement} field @param {() => void} send */
export function createComposer(field, send) {
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || composes(event)) return;
    event.preventDefault();
    send();
  });
  field.addEventListener("input", grow);
  grow();

  /** The field is as high as its text: its box holds the same, unseen. */
  function grow() {
    /** @type {HTMLElement} */ (field.parentElement).dataset.text = field.value;
  }

  /** @param {string} text */
  function fill(text) {
    field.value = text;
    grow();
  }

  return {
    get text() { return field.value.trim(); },
    clear: () => fill(""),
    /** A question that wasn't taken stands in the field again, before what was written since. @param {string} text */
    giveBack: (text) => fill([text, field.value].filter(Boolean).join("\n\n")),
  };
}

/** A key is the input method's. Safari tells the Enter that ends a composition by its code only. @param {KeyboardEvent} event */
export function composes({ isComposing, keyCode }) {
  return isComposing || keyCode === 229;
}
