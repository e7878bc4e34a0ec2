// What a test gets: an edge, shared by all tests of a worker because it takes seconds, and an origin of its own.

import { test as base } from "@playwright/test";
import { PROBE, fakeOrigin, freePort, spawnEdge, spawnOrigin, until } from "./servers.js";
import { spawnWorkerd } from "./workerd.js";

export { expect } from "@playwright/test";

/** A page of another site that may use the edge. */
export const ALLOWED = "https://app.example";

/** A shared edge: it stays, while its origins come and go on ports that it knows. */
const sharedEdge = (names, vars = {}) => [async ({ runtime }, use) => {
  const ports = {};
  for (const name of names) ports[name] = await freePort();
  const origins = Object.fromEntries(names.map((name) => [name, `http://127.0.0.1:${ports[name]}`]));
  const edge = await { wrangler: spawnEdge, workerd: spawnWorkerd }[runtime]({ origins, vars });
  await use({ ...edge, ports });
  await edge.end();
}, { scope: "worker", timeout: 240_000 }];

export const test = base.extend({
  /** What runs the edges: `wrangler`, with the page and the rate limit, or `workerd` alone, which is what production is like. */
  runtime: ["wrangler", { option: true, scope: "worker" }],
  /** Flags of `origin`: `test.use({ flags: ["--linger", "500ms"] })`. */
  flags: [[], { option: true }],
  /** The usual edge, with one origin, `a`. */
  edge: sharedEdge(["a"], { ALLOWED_ORIGINS: ALLOWED }),
  /** An edge with two origins, `a` and `b`. */
  pair: sharedEdge(["a", "b"]),
  /** An edge with two origins that keep their streams in one place. */
  shared: sharedEdge(["a", "b"], { SHARED_JOURNAL: "true" }),
  /** An edge that counts starts. */
  limited: sharedEdge(["a"], { RATE_LIMIT: "on" }),

  /** Gives what ends with the test: `await start(spawnOrigin())`. */
  start: async ({}, use) => {
    const running = [];
    await use(async (server) => {
      running.push(await server);
      return running.at(-1);
    });
    for (const server of running.reverse()) await server.end();
  },

  /** The scripted origin behind `edge`, new for each test. */
  origin: async ({ edge, flags }, use) => {
    const origin = await spawnOrigin({ port: edge.ports.a, flags });
    await seen(edge, "a");
    await use(origin);
    await origin.end();
  },
  /** Starts another server in an origin's place: `await fake((response, request) => …)`, behind `edge` unless told. */
  fake: async ({ edge }, use) => {
    const servers = [];
    await use(async (answer, { behind = edge, name = "a" } = {}) => {
      const server = await fakeOrigin(answer, behind.ports[name]);
      servers.push(server);
      await seen(behind, name);
      return server;
    });
    for (const server of servers) await server.end();
  },
});

/** Waits until the edge reaches its origin, whose forerunner's connections it may still have. */
export async function seen(edge, name) {
  const probe = async () => (await fetch(`${edge.url}/streams/${name}-${PROBE}`)).status;
  await until(async () => await probe() === 404, `origin ${name} is seen`);
}
