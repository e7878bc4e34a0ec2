// @ts-check
// One connection by the browser's own EventSource. It can't be slowed down, hides heartbeats and events of other types, and
// doesn't say why it was refused.

import { fault } from "./error.js";

/** The events of one response. @param {string} url @param {string[]} types @param {AbortController} connection @param {Pick<import("./fetch.js").Listener, "onAnswer">} on
 * @returns {AsyncGenerator<import("./fetch.js").ServerEvent, void>} */
export async function* readByEventSource(url, types, connection, { onAnswer }) {
  if (connection.signal.aborted) throw connection.signal.reason;
  const source = new EventSource(url);
  /** @type {import("./fetch.js").ServerEvent[]} */
  const events = [];
  let wake = () => {};
  for (const type of types) {
    source.addEventListener(type, ({ lastEventId, data }) => {
      events.push({ event: type, id: lastEventId, data });
      wake();
    });
  }
  source.onopen = () => onAnswer(source.url);
  source.onerror = () => connection.abort(source.readyState === source.CLOSED ? fault("refused", "EventSource was refused") : fault());
  connection.signal.onabort = () => {
    source.close(); // or it would connect again by itself
    wake();
  };
  try {
    for (;;) {
      for (let event; (event = events.shift());) yield event;
      if (connection.signal.aborted) throw connection.signal.reason;
      await new Promise((resolve) => { wake = /** @type {() => void} */ (resolve); });
    }
  } finally {
    source.close();
  }
}
