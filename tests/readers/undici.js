import { Agent, EventSource } from "undici";

const [url, authorization] = process.argv.slice(2);
const withHeader = (dispatch) => (options, handler) => dispatch({ ...options, headers: { ...options.headers, authorization } }, handler);
const dispatcher = authorization ? new Agent().compose(withHeader) : new Agent();

const source = new EventSource(url, { node: { dispatcher } });
for (const type of ["stream", "message", "done", "failed"]) {
  source.addEventListener(type, ({ type, data }) => console.log(JSON.stringify([type, data])));
}
// Its own timer, until it connects again, keeps no program running.
const running = setInterval(() => {}, 60_000);
source.onerror = () => { if (source.readyState === source.CLOSED) clearInterval(running); };
