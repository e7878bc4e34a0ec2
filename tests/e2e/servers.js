// Servers for the tests: origins, edges and an origin that lies. All on loopback.

import { spawn } from "node:child_process";
import { createHash, randomInt } from "node:crypto";
import { cpSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { connect, createServer as createSocket } from "node:net";
import { fileURLToPath } from "node:url";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));
/** What edge and origin share. Given to both by hand, so that no file of the checkout matters. */
export const SECRET = "end-to-end-0123456789abcdef";
/** A key for each of two callers, and what an edge knows of one. */
export const [KEY, OTHER_KEY] = ["sk-one-of-the-tests", "sk-another-of-the-tests"];
export const digest = (key) => createHash("sha256").update(key).digest("hex");
/** What the edges of this process are made of and keep. */
const FOLDER = `${ROOT}target/e2e/edge-${process.pid}`;
process.once("exit", () => rmSync(FOLDER, { recursive: true, force: true }));

/** Asked of every origin by the fixtures, and known to none. */
export const PROBE = "0000000000000000000000";

/** A server answers by then, or never will: the embedded model may load. */
const READY_MS = 180_000;
/** Between SIGTERM and SIGKILL. */
const GRACE_MS = 5_000;
/** Between two looks at a condition. */
const POLL_MS = 20;
/** The end of a server's output that a failed start shows, in characters. */
const TAIL_CHARS = 4_000;

/** Settings of our servers. A test gives what it means to give; who starts it may have others. */
const OURS = /^(HEADWATER_|EDGE_SECRET|RUST_LOG$)/;

/** Ends a group when this process was killed. */
const GUARD = `${ROOT}xtask/guard.sh`;

const BINARIES = { embedded: "target/release/headwater-origin", scripted: "target/release/examples/scripted" };

/**
 * A port for a server that starts later: free now, given once, and none that a system gives by itself (32,768 and up). So no
 * other socket takes it before its server does, nor while its server is away.
 */
export async function freePort() {
  let port;
  do port = nextPort++; while (!await isFree(port));
  return port;
}

let nextPort = randomInt(10_000, 30_000);

const isFree = (port) => new Promise((resolve) => {
  const server = createSocket().once("error", () => resolve(false));
  server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
});

export const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

/**
 * Waits until `condition` gives something true, and gives it back.
 * @template T @param {() => T | Promise<T>} condition @param {string | (() => string)} [what] is waited for
 */
export async function until(condition, what = condition.toString(), ms = 60_000) {
  for (const start = Date.now(); ;) {
    const held = await condition();
    if (held) return held;
    if (Date.now() - start > ms) throw new Error(`never: ${typeof what === "function" ? what() : what}`);
    await sleep(POLL_MS);
  }
}

/**
 * The origin, its real model or a scripted one.
 * @param {{ model?: "embedded" | "scripted", flags?: string[], port?: number, name?: string, secret?: string }} [options]
 */
export async function spawnOrigin({ model = "scripted", flags = [], port, name = "a", secret = SECRET } = {}) {
  port ??= await freePort();
  const url = `http://127.0.0.1:${port}`;
  const args = ["--listen", `127.0.0.1:${port}`, "--name", name, ...flags];
  const group = spawnGroup(BINARIES[model], args, { EDGE_SECRET: secret });
  await ready(group, `${url}/healthz`);
  /** How many streams there are: started since the start, running now. */
  const streams = async () => (await (await fetch(`${url}/healthz`)).json()).streams;
  const written = () => group.output().split("\n").filter((line) => line.includes('"stream ended"')).map((line) => JSON.parse(line));
  return {
    ...group,
    url,
    port,
    streams,
    /** Waits until nothing runs: a stream leaves a moment after its readers have its end. */
    idle: () => until(async () => (await streams()).running === 0, "nothing runs"),
    /** The records of its streams, one for each that has ended, once there are so many: the log has a way of its own. */
    records: (count) => until(() => written().length >= count && written(), `${count} records`),
    /** The record of a stream, once it is written. */
    record: (id) => until(() => written().find(({ stream }) => stream === id), `a record of ${id}`),
  };
}

/**
 * The edge: wrangler with workerd.
 * @param {{ origins: Record<string, string>, vars?: Record<string, string>, port?: number, config?: string, readyMs?: number }} options
 *   `origins`: by name; `config`: another deployment than the copy of the project's; `readyMs`: how long its start may take
 */
export async function spawnEdge({ origins, vars = {}, port, config = deployment(), readyMs }) {
  port ??= await freePort();
  const url = `http://127.0.0.1:${port}`;
  const list = Object.entries(origins).map(([name, url]) => `${name}=${url}`).join(", ");
  const all = { ORIGINS: list, EDGE_SECRET: SECRET, RATE_LIMIT: "off", ...vars };
  const args = ["dev", "--config", config, "--ip", "127.0.0.1", "--port", String(port), "--inspector-port", "0"];
  args.push("--show-interactive-dev-session=false");
  // Its own, or the rate limit goes on with what another edge has counted in this minute.
  args.push("--persist-to", `${FOLDER}/state-${port}`);
  // They win over a .dev.vars.
  for (const [name, value] of Object.entries(all)) args.push("--var", `${name}:${value}`);
  const quiet = { CI: "true", WRANGLER_SEND_METRICS: "false", WRANGLER_HIDE_BANNER: "true", CLOUDFLARE_CF_FETCH_ENABLED: "false" };
  const group = spawnGroup("wrangler", args, quiet);
  await ready(group, `${url}/icon.svg`, { ms: readyMs });
  return { ...group, url, port };
}

/**
 * Another server in an origin's place. Records every request, and answers as `answer` says; but those for its health and
 * for the probe it answers itself.
 * @param {(response: import("node:http").ServerResponse, request: Recorded) => void} answer
 * @param {number} [port]
 * @typedef {{ method: string, url: string, headers: Record<string, string>, rawHeaders: string[], bytes: Buffer, body: string }} Recorded
 *   `bytes`, `body`: empty until all of it is there
 */
export async function fakeOrigin(answer, port) {
  const requests = /** @type {Recorded[]} */ ([]);
  const server = createServer(async (req, res) => {
    if (req.url === "/healthz") return res.writeHead(200, { "content-type": "application/json" }).end('{"status":"ok"}');
    if (req.url.endsWith(PROBE)) return res.writeHead(404, { "content-type": "application/problem+json" }).end("{}");
    const { method, url, headers, rawHeaders } = req;
    const request = { method, url, headers, rawHeaders, bytes: Buffer.alloc(0), body: "" };
    requests.push(request);
    res.on("error", () => {});
    const parts = [];
    try {
      for await (const part of req) parts.push(part);
    } catch {
      return;
    }
    request.bytes = Buffer.concat(parts);
    request.body = request.bytes.toString();
    answer(res, request);
  });
  await new Promise((resolve, reject) => server.once("error", reject).listen(port ?? 0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    requests,
    end: () => new Promise((resolve) => {
      server.close(resolve);
      server.closeAllConnections();
    }),
  };
}

/** A wire to a port that can be cut: `cut()` breaks all its connections, new ones are served. @param {number} port */
export async function cuttable(port) {
  const sockets = new Set();
  let sent = "";
  const server = createSocket((near) => {
    near.on("data", (bytes) => { sent += bytes.toString("latin1"); });
    const far = connect(port, "127.0.0.1");
    sockets.add(near);
    for (const [from, to] of [[near, far], [far, near]]) {
      from.pipe(to);
      from.on("error", () => {}).on("close", () => to.destroy());
    }
    near.on("close", () => sockets.delete(near));
  });
  await new Promise((resolve) => { server.listen(0, "127.0.0.1", resolve); });
  const cut = () => sockets.forEach((socket) => socket.destroy());
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    /** All that has gone to the port. */
    sent: () => sent,
    cut,
    end() {
      server.close();
      cut();
    },
  };
}

/**
 * A program in a process group of its own, which ends with the tests however they end.
 * @param {string} program @param {string[]} args @param {Record<string, string>} env @param {"ignore" | "pipe"} [stdin]
 */
export function spawnGroup(program, args, env, stdin = "ignore") {
  const inherited = Object.entries(process.env).filter(([name]) => !OURS.test(name));
  const path = `${ROOT}node_modules/.bin:${process.env.PATH}`;
  const child = spawn(program, args, {
    cwd: ROOT, detached: true, stdio: [stdin, "pipe", "pipe"], env: { ...Object.fromEntries(inherited), PATH: path, ...env },
  });
  const guard = spawn("sh", [GUARD, String(child.pid), String(GRACE_MS / 1_000)], { detached: true, stdio: ["pipe", "ignore", "ignore"] });
  guard.stdin.on("error", () => {});
  let output = "";
  for (const pipe of [child.stdout, child.stderr]) pipe.setEncoding("utf8").on("data", (text) => { output += text; });
  let ended = false;
  /** @type {Promise<number | null>} */
  const exit = new Promise((resolve) => {
    child.once("error", (error) => { output += error; });
    child.once("close", (code) => {
      ended = true;
      guard.stdin.end("\n");
      resolve(code);
    });
  });
  const kill = (signal) => {
    try {
      process.kill(-child.pid, signal);
    } catch {
      // The group is gone.
    }
  };
  return {
    pid: child.pid,
    stdin: child.stdin,
    stdout: child.stdout,
    /** Everything that it has written. */
    output: () => output,
    /** Its exit code; null after a signal. */
    exit,
    ended: () => ended,
    kill,
    async end() {
      kill("SIGTERM");
      const late = setTimeout(() => kill("SIGKILL"), GRACE_MS);
      await exit;
      clearTimeout(late);
      kill("SIGKILL"); // what the leader left behind
    },
  };
}

/** @param {ReturnType<typeof spawnGroup>} group @param {{ method?: string, ms?: number }} [options] */
export async function ready(group, url, { method = "GET", ms = READY_MS } = {}) {
  const answers = () => fetch(url, { method, signal: AbortSignal.timeout(5_000) }).then(({ ok }) => ok, () => false);
  try {
    await until(async () => group.ended() || await answers(), `an answer of ${url}`, ms);
    if (group.ended()) throw new Error("it has ended");
  } catch (error) {
    await group.end();
    throw new Error(`a server did not start: ${error.message}\n${group.output().slice(-TAIL_CHARS)}`);
  }
}

/**
 * The project's deployment as it is built now: a copy of this process's own, so that no later change reloads the edge in the
 * middle of a stream. And taken as it stands, as in production: what wrangler adds for development reads the bodies that a
 * worker leaves unread.
 */
function deployment() {
  const config = `${FOLDER}/wrangler.toml`;
  if (deployment.made) return config;
  for (const file of ["build/index.js", "build/index_bg.wasm", "public"]) {
    cpSync(`${ROOT}${file}`, `${FOLDER}/${file}`, { recursive: true });
  }
  const project = readFileSync(`${ROOT}wrangler.toml`, "utf8");
  writeFileSync(config, `no_bundle = true\n${project.replace(/^\[build\]\n(?:.+\n)*/m, "")}`);
  deployment.made = true;
  return config;
}
