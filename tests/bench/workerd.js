// The built worker under `workerd serve`: as in production, without what wrangler adds for development.

import { mkdirSync, writeFileSync } from "node:fs";
import { ROOT, SECRET, freePort, ready, spawnGroup } from "../e2e/servers.js";

/** @param {Record<string, string>} origins by name */
export async function spawnWorkerd(origins) {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const list = Object.entries(origins).map(([name, url]) => `${name}=${url}`).join(", ");
  const vars = { ORIGINS: list, EDGE_SECRET: SECRET, RATE_LIMIT: "off" };
  const bindings = Object.entries(vars).map(([name, text]) => `(name = "${name}", text = "${text}")`).join(", ");
  const folder = `${ROOT}target/bench`;
  const config = `${folder}/workerd-${port}.capnp`;
  mkdirSync(folder, { recursive: true });
  writeFileSync(config, `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "edge", worker = .edge),
    (name = "internet", network = (allow = ["public", "private", "local"])),
  ],
  sockets = [(name = "http", address = "127.0.0.1:${port}", http = (), service = "edge")],
);
const edge :Workerd.Worker = (
  modules = [
    (name = "index.js", esModule = embed "../../build/index.js"),
    (name = "./index_bg.wasm", wasm = embed "../../build/index_bg.wasm"),
  ],
  bindings = [${bindings}],
  compatibilityDate = "2026-10-01",
);
`);
  const group = spawnGroup("workerd", ["serve", config], {});
  await ready(group, `${url}/healthz`);
  return { ...group, url };
}
