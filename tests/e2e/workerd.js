// The built worker under `workerd serve`: as in production, without what wrangler adds for development. (Its proxy rewrites
// headers that name the request's host, and repeats GETs.) No page, and no rate limit: both are wrangler's.

import { mkdirSync, writeFileSync } from "node:fs";
import { ROOT, SECRET, freePort, ready, spawnGroup } from "./servers.js";

/**
 * @param {{ origins: Record<string, string>, vars?: Record<string, string>, port?: number, http?: string, around?: string }} options
 *   `origins`: by name; `vars`: an empty one is as good as none; `http`: options of the socket, in Cap'n Proto; `around`: a
 *   module that runs in the worker's place, and has it in `./index.js`
 */
export async function spawnWorkerd({ origins, vars = {}, port, http = "", around = "" }) {
  port ??= await freePort();
  const url = `http://127.0.0.1:${port}`;
  const list = Object.entries(origins).map(([name, url]) => `${name}=${url}`).join(", ");
  const all = { ORIGINS: list, EDGE_SECRET: SECRET, RATE_LIMIT: "off", ...vars };
  const bindings = Object.entries(all).map(([name, text]) => `(name = "${name}", text = ${JSON.stringify(text)})`).join(", ");
  const first = around && `(name = "around.js", esModule = ${JSON.stringify(around)}),`;
  const folder = `${ROOT}target/workerd`;
  const config = `${folder}/${port}.capnp`;
  mkdirSync(folder, { recursive: true });
  writeFileSync(config, `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "edge", worker = .edge),
    (name = "internet", network = (allow = ["public", "private", "local"])),
  ],
  sockets = [(name = "http", address = "127.0.0.1:${port}", http = (${http}), service = "edge")],
);
const edge :Workerd.Worker = (
  modules = [
    ${first}
    (name = "index.js", esModule = embed "../../build/index.js"),
    (name = "./index_bg.wasm", wasm = embed "../../build/index_bg.wasm"),
  ],
  bindings = [${bindings}],
  compatibilityDate = "2026-10-01",
);
`);
  const group = spawnGroup("workerd", ["serve", config], {});
  // A path that asks no origin.
  await ready(group, `${url}/healthz`, { method: "OPTIONS" });
  return { ...group, url, port };
}

/** Gives a page its files from the folder: workerd alone serves none. @param {import("@playwright/test").Page} page */
export const withFiles = (page) => page.route(({ pathname }) => !/^\/(simple$|prompts\/|chat$|v1\/|streams\/|healthz$)/.test(pathname), (route) => {
  const { pathname } = new URL(route.request().url());
  return route.fulfill({ path: `${ROOT}public${pathname === "/" ? "/index.html" : pathname}` });
});
