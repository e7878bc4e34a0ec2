// What the tests of chats at the edge share: an edge for each test, under `workerd serve`, before origins that say what the test
// wants; and what the edge says by itself, in its own shape and in OpenAI's.

import { expect, test as base } from "./fixtures.js";
import { KEY, OTHER_KEY, digest } from "./servers.js";
import { spawnWorkerd } from "./workerd.js";

export { expect };

export const LIMIT_BYTES = 1024 * 1024;
export const CALLER = digest(KEY).slice(0, 16);
export const KEYED = { EDGE_KEYS: `${digest(OTHER_KEY)}, ${digest(KEY)}` };
export const OPEN = { CHAT: "open" };
export const APP = "https://app.example";
export const ID = "a-0123456789ABCDEFabcdef";
export const COMPLETIONS = "/v1/chat/completions";

export const STREAM = 'data: {"choices":[]}\n\ndata: [DONE]\n\n';
export const stream = (response) => response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8" }).end(STREAM);
export const json = (document, status = 200, headers = {}) => (response) =>
  response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(document));
/** A problem as an origin tells it to OpenAI's clients. */
export const told = (status, kind, headers = {}) => json({ error: { message: "told", type: "t", param: "p", code: kind } }, status, {
  "headwater-problem": kind, "x-should-retry": "false", ...headers,
});
/** What any path is answered with by an origin that has both shapes. */
export const either = (response, { url }) => url === COMPLETIONS ? stream(response) : response.writeHead(200, { "content-type": "text/event-stream" }).end('data: {"chunk":"fine"}\n\n');

export const conversation = { messages: [{ role: "user", content: "Name a river." }] };
export const post = (body = conversation, headers = {}) => ({
  method: "POST", headers: { "content-type": "application/json", ...headers }, body: typeof body === "string" ? body : JSON.stringify(body),
});

export const test = base.extend({
  /** An edge before one origin, or two. */
  behind: async ({ start }, use) => {
    await use((vars, ...origins) => start(spawnWorkerd({
      origins: Object.fromEntries(origins.map(({ url }, index) => ["ab"[index], url])), vars,
    })));
  },
});

/** @param {{ status: number, headers: Headers | Record<string, string>, document: any }} answer */
export function expectOpenAiError({ status, headers, document }, expected, kind, { code = null, retry = "false", type = "invalid_request_error" } = {}) {
  const header = (name) => headers instanceof Headers ? headers.get(name) : headers[name] ?? null;
  expect([status, header("headwater-problem"), header("x-should-retry")]).toEqual([expected, kind, retry]);
  expect(header("content-type")).toBe("application/json");
  expect(header("cache-control")).toBe("no-store");
  expect(document).toEqual({ error: { message: expect.stringMatching(/\w{3}/), type, param: null, code } });
}

export function expectOwnProblem({ status, headers, document }, expected, kind, instance = "/chat") {
  expect(status).toBe(expected);
  expect(document).toMatchObject({ type: `/problems/${kind}`, status: expected, instance });
  expect((headers.get?.("content-type") ?? headers["content-type"])).toBe("application/problem+json");
}

/** Sends bytes in parts of unequal lengths. */
export function inParts(request, bytes) {
  for (let at = 0, size = 1; at < bytes.length; at += size, size = (size * 7) % 65_521 + 1) {
    request.write(bytes.subarray(at, at + size));
  }
  request.end();
}
