// The built worker under `workerd serve`, in front of the real origin: what the edge adds to a first byte, how soon the
// embedded model is idle after a stop, and a thousand streams that are each cut three times.
// `node tests/bench/edge.js [first-byte] [stop] [cuts]`, from the repository's root, after `cargo xtask bench` has built.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import http from "node:http";
import { SECRET, sleep, spawnOrigin } from "../e2e/servers.js";
import { open, posted, resume, script, simple, whole } from "../e2e/streams.js";
import { spawnWorkerd } from "../e2e/workerd.js";

const wanted = process.argv.slice(2);
const benches = { "first-byte": firstByte, stop, cuts };
for (const [name, bench] of Object.entries(benches)) {
  if (!wanted.length || wanted.includes(name)) await bench();
}

/** Time to first byte, direct and through the edge in turn, each on one kept connection. */
async function firstByte() {
  const rounds = 1_000;
  const warmUp = 200;
  await withServers({ flags: ["--write-interval", "0s"] }, async (origin, edge) => {
    const ask = ({ url }) => {
      const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
      const body = JSON.stringify({ topic: script("x") });
      const headers = {
        accept: "text/event-stream", authorization: `Bearer ${SECRET}`,
        "content-type": "application/json", "content-length": Buffer.byteLength(body),
      };
      return () => new Promise((resolve, reject) => {
        const start = performance.now();
        let first = 0;
        const request = http.request(`${url}/prompts/simple`, { method: "POST", agent, headers }, (response) => {
          response.on("data", () => { first ||= performance.now() - start; }).on("end", () => resolve(first));
        });
        request.on("error", reject).end(body);
      });
    };
    const [direct, through] = [ask(origin), ask(edge)];
    const times = { direct: [], through: [], added: [] };
    for (let round = -warmUp; round < rounds; round += 1) {
      const [a, b] = [await direct(), await through()];
      if (round < 0) continue;
      times.direct.push(a);
      times.through.push(b);
      times.added.push(b - a);
    }
    const [direct50, through50, added50] = Object.values(times).map((all) => quantile(all, 0.5).toFixed(2));
    console.log(`time to first byte, median of ${rounds}: direct ${direct50} ms, through the edge ${through50} ms; `
      + `added ${added50} ms (p90 ${quantile(times.added, 0.9).toFixed(2)} ms)`);
  });
}

/** From `DELETE` at the edge until the origin's process computes no more. */
async function stop() {
  const rounds = 21;
  const watch = 400; // ms
  await withServers({ model: "embedded", flags: ["--max-tokens", "2000", "--temperature", "1.5"] }, async (origin, edge) => {
    const times = [];
    for (let round = 0; round < rounds; round += 1) {
      const stream = await open(simple(edge, "a very long story"));
      await stream.reach(10);
      const sent = performance.now();
      const stopped = fetch(edge.url + stream.place, { method: "DELETE" });
      let [idle, used] = [0, cpu(origin.pid)];
      while (performance.now() - sent < watch) {
        await sleep(2);
        const now = cpu(origin.pid);
        if (now > used) [idle, used] = [performance.now() - sent, now];
      }
      assert.equal((await stopped).status, 204);
      await stream.end;
      assert.equal(stream.terminal.data.finish, "stopped");
      times.push(idle);
    }
    console.log(`idle after DELETE through the edge, median of ${rounds}: ${quantile(times, 0.5).toFixed(0)} ms, `
      + `max ${Math.max(...times).toFixed(0)} ms (CPU time is counted in steps of 10 ms)`);
  });
}

/** A thousand streams, each cut three times at random places and resumed through the edge. */
async function cuts() {
  const streams = 1_000;
  const atOnce = 40;
  const tokens = 200;
  await withServers({}, async (origin, edge) => {
    let [next, compared] = [0, 0];
    const one = async () => {
      const events = [];
      // Some 60 bytes a frame: the cuts are anywhere, in frames and between them.
      const part = () => Math.ceil(Math.random() * tokens * 20);
      let stream = await open(`${edge.url}/simple`, posted({ tokens, every_ms: 2 }), part());
      const id = stream.place.split("/").at(-1);
      for (let cut = 0; ; cut += 1) {
        await stream.end;
        events.push(...stream.events);
        if (stream.terminal) break;
        stream = await resume(edge, events.at(-1)?.id ?? id, cut < 2 ? part() : Infinity);
      }
      const kept = await whole(`${origin.url}/streams/${id}`, { headers: { authorization: `Bearer ${SECRET}` } });
      const plain = (all) => all.map(({ id, event, data }) => ({ id, event, data }));
      assert.deepEqual(plain(events), plain(kept.events));
      assert.equal(events.length, tokens + 1);
      compared += 1;
    };
    const start = performance.now();
    await Promise.all(Array.from({ length: atOnce }, async () => {
      while (next < streams) {
        next += 1;
        await one();
      }
    }));
    assert.equal(compared, streams);
    assert.equal((await origin.streams()).started, streams);
    const seconds = ((performance.now() - start) / 1000).toFixed(0);
    console.log(`${streams} streams of ${tokens} tokens, each cut 3 times: all equal to the journal's, one generation each (${seconds} s)`);
  });
}

async function withServers(options, bench) {
  const origin = await spawnOrigin(options);
  try {
    const edge = await spawnWorkerd({ origins: { a: origin.url } });
    try {
      await bench(origin, edge);
    } finally {
      await edge.end();
    }
  } finally {
    await origin.end();
  }
}

/** User and system time of a process, in ticks of 10 ms: proc(5). */
function cpu(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1).split(" ");
  return Number(fields[11]) + Number(fields[12]);
}

function quantile(values, part) {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length * part)];
}
