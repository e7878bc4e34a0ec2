import { EventSourcePolyfill } from "event-source-polyfill";

const [url, authorization] = process.argv.slice(2);
const headers = authorization ? { authorization } : {};

const source = new EventSourcePolyfill(url, { headers });
for (const type of ["stream", "message", "done", "failed"]) {
  source.addEventListener(type, ({ type, data }) => {
    console.log(JSON.stringify([type, data]));
    if (type === "done" || type === "failed") source.close(); // a 204 doesn't stop it: it stumbles over the missing body
  });
}
