import { EventSource } from "eventsource";

const [url, authorization] = process.argv.slice(2);
const headers = authorization ? { authorization } : {};

const source = new EventSource(url, { fetch: (url, init) => fetch(url, { ...init, headers: { ...init.headers, ...headers } }) });
for (const type of ["stream", "message", "done", "failed"]) {
  source.addEventListener(type, ({ type, data }) => console.log(JSON.stringify([type, data])));
}
// Its own timer, until it connects again, keeps no program running.
const running = setInterval(() => {}, 60_000);
source.onerror = () => { if (source.readyState === source.CLOSED) clearInterval(running); };
