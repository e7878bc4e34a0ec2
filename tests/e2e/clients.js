// The programs of `tests/clients`, started once and given jobs; what they are given to, and a hop on the way there.

import { randomUUID } from "node:crypto";
import http from "node:http";
import { test as base } from "./fixtures.js";
import { ROOT, spawnGroup, spawnOrigin, until } from "./servers.js";
import { script } from "./streams.js";
import { spawnWorkerd } from "./workerd.js";

export { expect } from "@playwright/test";

const FOLDER = `${ROOT}tests/clients/`;
const PYTHON = `${ROOT}target/clients/bin/python`;
const PYTHON_1 = `${ROOT}target/clients-openai-1/bin/python`;
const OPENAI = ["stream", "helper", "whole"];

/** By name: the command, and what it can do. A mode but `whole` is streamed. */
export const PROGRAMS = {
  "openai 7, JavaScript": { command: [process.execPath, "openai.js", "openai"], modes: OPENAI },
  "openai 6, JavaScript": { command: [process.execPath, "openai.js", "openai-6"], modes: OPENAI },
  "openai 3, Python": { command: [PYTHON, "openai_sync.py"], modes: OPENAI },
  "openai 3, Python, async": { command: [PYTHON, "openai_async.py"], modes: OPENAI },
  "openai 1, Python": { command: [PYTHON_1, "openai_sync.py"], modes: OPENAI },
  "openai 1, Python, async": { command: [PYTHON_1, "openai_async.py"], modes: OPENAI },
  "ai, openai": { command: [process.execPath, "ai.js", "openai"], modes: ["stream", "whole"] },
  "ai, openai-compatible": { command: [process.execPath, "ai.js", "openai-compatible"], modes: ["stream", "whole"] },
  "langchain-openai": { command: [PYTHON, "langchain_openai_chat.py"], modes: ["stream", "astream", "whole"] },
  "pydantic-ai": { command: [PYTHON, "pydantic_ai_agent.py"], modes: ["stream", "whole"] },
  "curl": { command: [process.execPath, "curl.js"], modes: ["stream", "whole"] },
  "naive": { command: [process.execPath, "naive.js"], modes: ["stream"] },
};

/** Every program in every mode: `{ name, program, mode }`. */
export const READERS = Object.entries(PROGRAMS).flatMap(([program, { modes }]) =>
  modes.map((mode) => ({ name: `${program}, ${mode}`, program, mode })));
export const STREAMED = READERS.filter(({ mode }) => mode !== "whole");
/** OpenAI's own libraries, in whose words a test can speak. */
export const SDKS = READERS.filter(({ program }) => program.startsWith("openai"));

export const test = base.extend({
  clients: [async ({}, use) => {
    const all = fleet();
    // A program takes seconds until it is there. Nobody listens at that port.
    const request = { model: "none", messages: [{ role: "user", content: "none" }] };
    const first = Object.keys(PROGRAMS).map((program) => all.run({ program, mode: "stream" }, { url: "http://127.0.0.1:9/v1", request, retries: 0 }));
    for (const job of first) await job.outcome();
    await use(all);
    await all.end();
  }, { scope: "worker", timeout: 240_000 }],
  /** An edge that anybody may use, and its origin. */
  site: [async ({}, use) => {
    const origin = await spawnOrigin();
    const edge = await spawnWorkerd({ origins: { a: origin.url }, vars: { CHAT: "open" } });
    await use({ origin, edge, url: `${edge.url}/v1` });
    await edge.end();
    await origin.end();
  }, { scope: "worker", timeout: 240_000 }],
});

/**
 * Asks each reader for an answer by script.
 * @param {{ usage?: boolean, history?: object[], request?: object }} options what was said before, more of the request; and the job's own members
 */
export function ask(clients, readers, url, steps, { usage = false, history = [], request, ...job } = {}) {
  return readers.map((reader) => {
    const marker = `${reader.name} ${randomUUID()}`;
    const messages = [{ role: "system", content: "Be brief." }, ...history, { role: "user", content: `${marker} ${script(...steps)}` }];
    const options = usage && reader.mode !== "whole" ? { stream_options: { include_usage: true } } : {};
    return { ...reader, marker, job: clients.run(reader, { url, request: { model: "scripted", messages, ...options, ...request }, ...job }) };
  });
}

/** Does the client try again by itself? */
export const retries = (program) => !["curl", "naive"].includes(program);

/** Starts the programs as they get jobs. */
function fleet() {
  const running = new Map();
  const started = (program) => {
    if (!running.has(program)) running.set(program, start(PROGRAMS[program].command));
    return running.get(program);
  };
  return {
    /**
     * Gives a job to a program.
     * @param {{ program: string, mode: string }} reader
     * @param {{ url: string, key?: string, request?: object, headers?: object, retries?: number, idempotent?: boolean, leave?: boolean, body?: string }} job
     */
    run: ({ program, mode }, job) => started(program).run({ key: "unused", mode, ...job }),
    end: () => Promise.all([...running.values()].map(({ end }) => end())),
  };
}

function start([program, file, ...args]) {
  // A proxy of this machine is none for these.
  const quiet = { no_proxy: "*", NO_PROXY: "*", PYTHONDONTWRITEBYTECODE: "1", OPENAI_API_KEY: undefined, OPENAI_BASE_URL: undefined };
  const group = spawnGroup(program, [FOLDER + file, ...args], quiet, "pipe");
  const jobs = [];
  const stray = [];
  let rest = "";
  // It may end before it has read a job.
  group.stdin.on("error", () => {});
  group.stdout.on("data", (part) => {
    const lines = (rest + part).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith('{"job":')) {
        stray.push(line);
        continue;
      }
      const { job, text, end } = JSON.parse(line);
      if (text !== undefined) jobs[job].texts.push(text);
      if (end) jobs[job].end = end;
    }
  });
  return {
    run(job) {
      const state = { texts: [], end: undefined };
      const number = jobs.push(state) - 1;
      group.stdin.write(`${JSON.stringify({ job: number, ...job })}\n`);
      const holds = (condition, what) => until(() => {
        if (condition()) return true;
        if (group.ended()) throw new Error(`${file} has ended: ${group.output().slice(-2_000)}`);
        return false;
      }, () => `${what} of ${file} ${args}, ${job.mode}: ${[...stray, group.output().slice(-500)].join("\n")}`, 150_000);
      return {
        /** The texts so far. */
        get text() { return state.texts.join(""); },
        /** Waits for the first text. */
        reads: () => holds(() => state.texts.length || state.end, "text"),
        /** Waits for the end, and gives all that the client has told. */
        async outcome() {
          await holds(() => state.end, "the end");
          const { usage, ...end } = state.end;
          return { ...end, text: state.texts.join(""), usage: tokens(usage) };
        },
      };
    },
    end: group.end,
  };
}

/** Each client has words of its own for it: `[input, output]`. */
function tokens(usage) {
  if (!usage) return undefined;
  const { prompt_tokens, inputTokens, input_tokens, input, completion_tokens, outputTokens, output_tokens, output } = usage;
  return [prompt_tokens ?? inputTokens ?? input_tokens ?? input, completion_tokens ?? outputTokens ?? output_tokens ?? output];
}

/**
 * A proxy before a port, which records what passes. `cut()` breaks all that runs; `losesHeads()` makes it break the connection
 * when a body's first answer has its head; `lies(text)` makes it lie: it ends each answer cleanly once that text has passed.
 * @param {number} port
 */
export async function hop(port) {
  const passed = [];
  const sockets = new Set();
  let lie;
  let losing = false;
  const server = http.createServer(async (req, res) => {
    const exchange = { method: req.method, url: req.url, headers: req.headers, body: "", status: 0, answer: {} };
    passed.push(exchange);
    const parts = [];
    res.on("error", () => {});
    try {
      for await (const part of req) parts.push(part);
    } catch {
      return;
    }
    const body = Buffer.concat(parts);
    exchange.body = body.toString();
    const far = http.request({ host: "127.0.0.1", port, method: req.method, path: req.url, headers: req.headers, agent: false });
    far.once("error", () => res.destroy());
    far.once("response", (answer) => {
      Object.assign(exchange, { status: answer.statusCode, answer: answer.headers });
      if (losing && passed.filter(({ body }) => body === exchange.body).length === 1) return res.destroy();
      res.writeHead(answer.statusCode, answer.headers);
      res.flushHeaders();
      answer.on("data", (part) => {
        res.write(part);
        if (!lie || !part.includes(lie)) return;
        res.end();
        far.destroy();
      });
      answer.once("end", () => res.end());
      answer.once("error", () => { if (!res.writableEnded) res.destroy(); });
    });
    res.once("close", () => far.destroy());
    far.end(body);
  });
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  await new Promise((resolve) => { server.listen(0, "127.0.0.1", resolve); });
  const cut = () => sockets.forEach((socket) => socket.destroy());
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    /** The requests whose body holds a text. */
    passed: (text) => passed.filter(({ body }) => body.includes(text)),
    cut,
    losesHeads: () => { losing = true; },
    lies: (after) => { lie = after; },
    end() {
      server.close();
      cut();
    },
  };
}
