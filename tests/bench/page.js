// What a token costs the page, scripting, style and layout, early and late in a long answer: `node tests/bench/page.js [PUBLIC]`.
// Prints the medians and their ratio.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { chromium } from "@playwright/test";

const PUBLIC = process.argv[2] ?? fileURLToPath(new URL("../../public", import.meta.url));
const ID = "a-0123456789ABCDEFabcdef";
const TYPES = { ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html" };
const RUNS = 5;
const EARLY = 50;
const LATE = 20_000;
/** Tokens that are measured, one each 5 ms, at both places. */
const WINDOW = 200;
const PACE_MS = 5;
/** Tokens in one write on the way to `LATE`. */
const BULK = 500;
const TOKENS_PER_LINE = 12;

const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];

let answer;
const server = createServer(async (req, res) => {
  const { pathname } = new URL(req.url, "http://localhost");
  if (pathname === "/simple") {
    res.writeHead(200, { "content-type": "text/event-stream" });
    res.write(`event: stream\nid: ${ID}\ndata: {"id":"${ID}","next":0}\n\n`);
    answer = res;
    return;
  }
  const file = join(PUBLIC, pathname === "/" ? "index.html" : pathname);
  const body = await readFile(file).catch(() => undefined);
  if (body) res.writeHead(200, { "content-type": TYPES[extname(file)] ?? "text/plain" }).end(body);
  else res.writeHead(404).end();
});
await new Promise((resolve) => { server.listen(0, "127.0.0.1", resolve); });

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });
const runs = [];
for (let run = 0; run < RUNS; run++) runs.push(await measure());
const [early, late] = [0, 1].map((at) => median(runs.map((costs) => costs[at])));
console.log(`token ${EARLY}: ${early.toFixed(0)} us, token ${LATE}: ${late.toFixed(0)} us, ratio ${median(runs.map(([a, b]) => b / a)).toFixed(2)}`);
await browser.close();
server.closeAllConnections();
server.close();

/** @returns {Promise<number[]>} microseconds a token, early and late */
async function measure() {
  const page = await browser.newPage();
  const cdp = await page.context().newCDPSession(page);
  await cdp.send("Performance.enable");
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  await page.click("#btnSubmit");
  while (!answer) await sleep(10);
  let sent = 0;
  const send = (count) => {
    let out = "";
    for (const end = sent + count; sent < end; sent++) {
      const chunk = `token ${sent}${sent % TOKENS_PER_LINE ? " " : "\n"}`;
      out += `id: ${ID}.${sent}\ndata: ${JSON.stringify({ chunk })}\n\n`;
    }
    answer.write(out);
  };
  const spent = async () => {
    const { metrics } = await cdp.send("Performance.getMetrics");
    return ["ScriptDuration", "LayoutDuration", "RecalcStyleDuration"].reduce((sum, name) => sum + metrics.find((m) => m.name === name).value, 0);
  };
  const costs = [];
  for (const from of [EARLY, LATE]) {
    while (sent < from) {
      send(Math.min(BULK, from - sent));
      await sleep(20);
    }
    await sleep(1_000);
    const before = await spent();
    for (let n = 0; n < WINDOW; n++) {
      send(1);
      await sleep(PACE_MS);
    }
    costs.push((await spent() - before) / WINDOW * 1e6);
  }
  answer.end();
  answer = undefined;
  await page.close();
  return costs;
}
