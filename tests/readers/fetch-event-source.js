import { fetchEventSource } from "@microsoft/fetch-event-source";

const [url, authorization] = process.argv.slice(2);
const { origin, pathname, searchParams } = new URL(url);
// It is written for browsers.
Object.assign(globalThis, { window: globalThis, document: new EventTarget() });

await fetchEventSource(origin + pathname, {
  method: "POST",
  headers: { "content-type": "application/json", ...(authorization ? { authorization } : {}) },
  body: JSON.stringify(Object.fromEntries(searchParams)),
  openWhenHidden: true,
  onmessage({ event, data }) {
    JSON.parse(data); // where this throws, it sends the POST once more
    console.log(JSON.stringify([event || "message", data]));
  },
});
