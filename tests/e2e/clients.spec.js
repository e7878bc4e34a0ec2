// Clients of OpenAI's API, unmodified, through real workerd to a scripted origin: what each makes of whole answers, of failures
// and of cut connections. The programs are in `tests/clients`; a test runs all of them at once, in every mode that they have.

import { randomUUID } from "node:crypto";
import { READERS, SDKS, STREAMED, ask, expect, hop, retries, test } from "./clients.js";
import { SECRET, spawnOrigin, until } from "./servers.js";
import { numbers, open, post, script, whole } from "./streams.js";
import { spawnWorkerd } from "./workerd.js";

/** Three heartbeats, nearly. */
const SILENCE_MS = 30_000;
/** The origin waits so long for a first token before it answers. */
const START_WINDOW_MS = 2_000;
/** An answer in one piece has its head by then. */
const WHOLE_WINDOW_MS = 8_000;
/** What ends a line for some readers, and text that looks like a frame. */
const HOSTILE = '"\\" \u2028 \u2029 \u0085 \t \r\n \u{1f9a6} \u{c5}\n\ndata: [DONE]\n\ndata: {"error":{"message":"no"}}\n\n';
/** Over the limit of one stream. */
const TOO_LONG = { repeat: "x", times: 2 * 1024 * 1024 };

test.describe("a whole answer", () => {
  test("is the journal's text, to the byte", async ({ clients, site }) => {
    const steps = ["one, ", HOSTILE, 100, "two, ", ...HOSTILE, "three"];
    const text = steps.filter((step) => typeof step === "string").join("");
    for (const { name, job, mode, program } of ask(clients, READERS, site.url, steps, { usage: true })) {
      const { id, model, request, ...outcome } = await job.outcome();
      const done = program === "curl" && mode === "stream" ? { done: true } : {};
      expect(outcome, name).toEqual({ text, finish: "stop", usage: [3, 7], ...done });
      expect(model ?? "scripted", name).toBe("scripted");
      // LangChain keeps the id of a streamed answer to itself.
      if (program === "langchain-openai" && mode !== "whole") continue;
      expect(id, name).toMatch(/^chatcmpl-a-[0-9A-Za-z]{22}$/);
      if (request) expect(`chatcmpl-${request}`, name).toBe(id);
      for (const place of [id, id.slice("chatcmpl-".length)]) {
        const stream = await whole(`${site.edge.url}/streams/${place}`);
        expect([stream.text, stream.terminal.data.finish], name).toEqual([text, "stop"]);
      }
    }
  });

  test("comes through silence, before its first token and in the middle", async ({ clients, site }) => {
    const scripts = [[SILENCE_MS, "one, ", "two"], ["one, ", SILENCE_MS, "two"]];
    const jobs = scripts.map((steps) => ask(clients, READERS, site.url, steps));
    for (const [silent, jobsOf] of [["at first", jobs[0]], ["in the middle", jobs[1]]]) {
      for (const { name, job, mode, program } of jobsOf) {
        const { text, finish, error, usage } = await job.outcome();
        // Who splits at blank lines finds comments and a frame in one block, and takes all for comments.
        const heard = program !== "naive" ? "one, two" : silent === "at first" ? "two" : "one, ";
        expect({ text, finish, error }, `${name}, ${silent}`).toEqual({ text: heard, finish: "stop" });
        if (program.startsWith("openai") && mode === "stream") expect(usage, `${name}: not asked for`).toBeUndefined();
      }
    }
  });

  test("ends with `length` where it is over the limit of a stream", async ({ clients, site }) => {
    for (const { name, job, program, mode } of ask(clients, READERS, site.url, [TOO_LONG])) {
      const { text, finish, error } = await job.outcome();
      // Python's helper hands out the text, and then raises.
      if (mode === "helper" && program.includes("Python")) expect(error.name, name).toBe("LengthFinishReasonError");
      else expect({ finish, error }, name).toEqual({ finish: "length" });
      expect(text.length, name).toBeGreaterThan(900 * 1024);
      expect(text.length, name).toBeLessThan(1024 * 1024);
      expect(/^x+$/.test(text), name).toBe(true);
    }
  });

  test("may be empty", async ({ clients, site }) => {
    for (const { name, job, program } of ask(clients, READERS, site.url, [])) {
      const { text, finish, error } = await job.outcome();
      // pydantic-ai's agent wants words: it asks once more, and gives up.
      if (program === "pydantic-ai") expect([text, error.name], name).toEqual(["", "UnexpectedModelBehavior"]);
      else expect({ text, finish, error }, name).toEqual({ text: "", finish: "stop" });
    }
  });

  test("is one to a conversation whose turns come through as they are", async ({ clients, start }) => {
    const origin = await start(spawnOrigin());
    const far = await start(hop(origin.port));
    const edge = await start(spawnWorkerd({ origins: { a: far.url }, vars: { CHAT: "open" } }));
    const history = [{ role: "user", content: "Name a river." }, { role: "assistant", content: "The Rhine." }];
    for (const { name, job, marker } of ask(clients, READERS, `${edge.url}/v1`, ["fine"], { history })) {
      expect(await job.outcome(), name).toMatchObject({ text: "fine", finish: "stop" });
      const [{ body }] = far.passed(marker);
      expect(JSON.parse(body).messages, name).toEqual([
        { role: "system", content: "Be brief." }, ...history, { role: "user", content: expect.stringContaining(marker) },
      ]);
    }
  });

  test("that the own dialect has begun is theirs too who show its key", async ({ clients, site }) => {
    const key = randomUUID();
    const before = await site.origin.streams();
    const request = { model: "scripted", messages: [{ role: "user", content: `own ${script("one, ", { tokens: 20, every_ms: 100 })}` }] };
    const own = await open(`${site.edge.url}/chat`, post(request, { "idempotency-key": key }));
    await own.reach(1);
    for (const { name, job } of READERS.map((reader) => ({ ...reader, job: clients.run(reader, { url: site.url, request, headers: { "Idempotency-Key": key } }) }))) {
      const { text, finish, error } = await job.outcome();
      expect({ text, finish, error }, name).toEqual({ text: `one, ${numbers(20)}`, finish: "stop" });
    }
    await own.end;
    expect([own.text, own.terminal.data.finish]).toEqual([`one, ${numbers(20)}`, "stop"]);
    expect((await site.origin.streams()).started - before.started).toBe(1);
  });

  test("is the same for all who show one key, in whatever mode, and is generated once", async ({ clients, site }) => {
    const key = randomUUID();
    const before = await site.origin.streams();
    const content = `once ${script("one, ", 2_500, { tokens: 20, every_ms: 20 })}`;
    const request = { model: "scripted", messages: [{ role: "user", content }] };
    const jobs = READERS.map((reader) => ({ ...reader, job: clients.run(reader, { url: site.url, request, headers: { "Idempotency-Key": key } }) }));
    const ids = new Set();
    for (const { name, job } of jobs) {
      const { text, finish, error, id } = await job.outcome();
      expect({ text, finish, error }, name).toEqual({ text: `one, ${numbers(20)}`, finish: "stop" });
      if (id?.startsWith("chatcmpl-")) ids.add(id);
    }
    expect([...ids]).toHaveLength(1);
    expect((await site.origin.streams()).started - before.started).toBe(1);
  });
});

test.describe("a failure is one for every client", () => {
  for (const [fail, tries, error] of [
    ["refused", 1, { status: 424, code: "model_refused", type: "server_error" }],
    ["too-long", 1, { status: 400, code: "context_length_exceeded", type: "invalid_request_error", param: "messages" }],
    ["broke-off", 3, { status: 502, code: "model-broke-off", type: "server_error" }],
  ]) {
    test(`before its first token: ${fail} is its status, and asked for ${tries} times`, async ({ clients, site, start }) => {
      const way = await start(hop(site.edge.port));
      for (const { name, job, program, marker, mode } of ask(clients, READERS, `${way.url}/v1`, [{ fail }])) {
        const outcome = await job.outcome();
        expectFailure({ name, program, mode }, outcome, error);
        expect(outcome.text, name).toBe("");
        const passed = way.passed(marker);
        expect(passed.map(({ status }) => status), name).toEqual(Array(retries(program) ? tries : 1).fill(error.status));
        for (const { answer } of passed) expect(answer["x-should-retry"], name).toBe(String(tries > 1));
      }
    });
  }

  test("of the edge's, a 500 that won't mend, is asked for once", async ({ clients, start }) => {
    const edge = await start(spawnWorkerd({ origins: {}, vars: { CHAT: "open", ORIGINS: "a" } }));
    const way = await start(hop(edge.port));
    // Vercel's looks at the status alone.
    const readers = READERS.filter(({ program }) => !program.startsWith("ai,"));
    for (const { name, job, program, mode, marker } of ask(clients, readers, `${way.url}/v1`, ["x"])) {
      expectFailure({ name, program, mode }, await job.outcome(), { status: 500, code: "internal", type: "server_error" });
      expect(way.passed(marker).map(({ answer }) => answer["x-should-retry"]), name).toEqual(["false"]);
    }
  });

  test("a wait that the model's provider asks for is a 429 with Retry-After", async ({ clients, site, start }) => {
    const way = await start(hop(site.edge.port));
    for (const { name, job, program, marker, mode } of ask(clients, READERS, `${way.url}/v1`, [{ fail: "rate-limited" }], { retries: 0 })) {
      expectFailure({ name, program, mode }, await job.outcome(), { status: 429, code: "rate_limit_exceeded", type: "rate_limit_error" });
      const [{ answer }] = way.passed(marker);
      expect([answer["retry-after"], answer["x-should-retry"]], name).toEqual(["7", "true"]);
    }
  });

  test("behind the head, before the first text", async ({ clients, site }) => {
    for (const { name, job, program, mode } of ask(clients, STREAMED, site.url, [START_WINDOW_MS + 500, { fail: "broke-off" }], { retries: 0 })) {
      const outcome = await job.outcome();
      // This one takes it for an answer's status, and would ask again.
      const error = program === "ai, openai" ? { status: 500 } : { code: "model-broke-off", type: "server_error" };
      expectFailure({ name, program, mode }, outcome, error);
      expect(outcome.text, name).toBe("");
    }
  });

  test("behind its first text, which stays", async ({ clients, site, start }) => {
    const way = await start(hop(site.edge.port));
    for (const { name, job, program, mode, marker } of ask(clients, STREAMED, `${way.url}/v1`, ["one, ", 300, { fail: "broke-off" }])) {
      const outcome = await job.outcome();
      expectFailure({ name, program, mode }, outcome, { code: "model-broke-off", type: "server_error" });
      expect(outcome.text, name).toBe("one, ");
      expect(way.passed(marker), `${name}: not asked again`).toHaveLength(1);
    }
  });

  test("in an answer in one piece: its status, or a body that breaks off", async ({ clients, site }) => {
    const readers = READERS.filter(({ mode }) => mode === "whole");
    const early = ask(clients, readers, site.url, ["one, ", 300, { fail: "broke-off" }], { retries: 0 });
    const late = ask(clients, readers, site.url, ["one, ", WHOLE_WINDOW_MS + 1_000, { fail: "broke-off" }], { retries: 0 });
    for (const { name, job, program, mode } of early) {
      expectFailure({ name, program, mode }, await job.outcome(), { status: 502, code: "model-broke-off", type: "server_error" });
    }
    for (const { name, job } of late) {
      const { error, text } = await job.outcome();
      expect(error, name).toBeDefined();
      expect(text, name).toBe("");
    }
  });
});

test.describe("a connection that breaks", () => {
  /** The silence lasts until the connection is cut. */
  const FOREVER = ["one, ", 50_000, "two"];

  test("between the client and the edge is an error of every client's", async ({ clients, site, start }) => {
    const way = await start(hop(site.edge.port));
    const jobs = ask(clients, STREAMED, `${way.url}/v1`, FOREVER, { retries: 0 });
    for (const { job } of jobs) await job.reads();
    way.cut();
    await expectBroken(jobs);
  });

  test("between the edge and the origin too, and so is an origin that dies", async ({ clients, start }) => {
    const origin = await start(spawnOrigin());
    const far = await start(hop(origin.port));
    const edges = [];
    for (const url of [far.url, origin.url]) edges.push(await start(spawnWorkerd({ origins: { a: url }, vars: { CHAT: "open" } })));
    const way = await start(hop(edges[1].port));
    const [cut, killed] = [`${edges[0].url}/v1`, `${way.url}/v1`].map((url) => ask(clients, READERS, url, FOREVER, { retries: 0 }));
    for (const reader of cut) await reads(reader, far);
    for (const reader of killed) await reads(reader, way);
    far.cut();
    await expectBroken(cut);
    origin.kill("SIGKILL");
    await expectBroken(killed);
  });

  test("behind the head of an answer in one piece is an error as well", async ({ clients, site, start }) => {
    const way = await start(hop(site.edge.port));
    const jobs = ask(clients, READERS.filter(({ mode }) => mode === "whole"), `${way.url}/v1`, FOREVER, { retries: 0 });
    for (const reader of jobs) await reads(reader, way);
    way.cut();
    await expectBroken(jobs);
  });

  test("before the head, and the client's own key on both tries: one generation", async ({ clients, site, start }) => {
    const way = await start(hop(site.edge.port));
    const before = await site.origin.streams();
    way.losesHeads();
    const jobs = ask(clients, SDKS, `${way.url}/v1`, ["one, ", { tokens: 10, every_ms: 200 }], { idempotent: true });
    for (const { name, job, marker } of jobs) {
      const { text, finish, error } = await job.outcome();
      expect({ text, finish, error }, name).toEqual({ text: `one, ${numbers(10)}`, finish: "stop" });
      const [first, second, ...more] = way.passed(marker);
      expect(more, name).toEqual([]);
      expect(second.answer["x-request-id"], name).toBe(first.answer["x-request-id"]);
      expect(first.headers["idempotency-key"], name).toMatch(/^stainless-/);
      expect(second.headers["idempotency-key"], name).toBe(first.headers["idempotency-key"]);
      expect(second.headers["x-stainless-retry-count"], name).toBe("1");
    }
    expect((await site.origin.streams()).started).toBe(before.started + jobs.length);
  });

  /**
   * What this project never does, but a proxy may. Those that can't tell are named, because nothing that a server does helps
   * them: the end is all that they look at. The fields are what each says of the finish.
   */
  test("but ends cleanly, as a proxy pretends, deceives some clients", async ({ clients, site, start }) => {
    const way = await start(hop(site.edge.port));
    way.lies("one, ");
    const told = {};
    for (const { name, job } of ask(clients, STREAMED, `${way.url}/v1`, FOREVER, { retries: 0 })) {
      const { text, error, finish } = await job.outcome();
      expect(text, name).toBe("one, ");
      told[name] = error ? "error" : finish ?? "nothing";
    }
    expect(told).toEqual({
      ...Object.fromEntries(STREAMED.map(({ name }) => [name, "nothing"])),
      "openai 7, JavaScript, helper": "error",
      "openai 6, JavaScript, helper": "error",
      "ai, openai, stream": "interrupted",
      "ai, openai-compatible, stream": "error",
      "pydantic-ai, stream": "stop",
    });
  });
});

test.describe("an end by hand", () => {
  const FOREVER = ["one, ", { tokens: 100_000, every_ms: 100 }];

  test("`DELETE /streams/ID` ends an answer, which is then whole", async ({ clients, site, start }) => {
    const way = await start(hop(site.edge.port));
    const jobs = ask(clients, READERS, `${way.url}/v1`, FOREVER);
    for (const { name, job, mode, marker } of jobs) {
      await reads({ job, mode, marker }, way);
      const [{ answer }] = way.passed(marker);
      expect(answer["content-location"], name).toBe(`/streams/${answer["x-request-id"]}`);
      expect((await fetch(site.edge.url + answer["content-location"], { method: "DELETE" })).status, name).toBe(204);
      const { text, finish, error } = await job.outcome();
      expect({ finish, error }, name).toEqual({ finish: "stop" });
      expect(text, name).toMatch(/^one, (\d+ )*$/);
      const stream = await whole(site.edge.url + answer["content-location"]);
      expect([stream.terminal.event, stream.terminal.data.finish], name).toEqual(["done", "stopped"]);
    }
  });

  test("a client that leaves ends its generation, but with a key it may come back", async ({ clients, start }) => {
    const origin = await start(spawnOrigin({ flags: ["--linger", "10m"] }));
    const edge = await start(spawnWorkerd({ origins: { a: origin.url }, vars: { CHAT: "open" } }));
    const way = await start(hop(edge.port));
    const url = `${way.url}/v1`;
    const keyless = ask(clients, STREAMED, url, FOREVER, { leave: true });
    for (const { name, job } of keyless) expect((await job.outcome()).text, name).toMatch(/^one, /);
    await origin.idle();
    const keyed = STREAMED.map((reader) => {
      const key = randomUUID();
      const request = { model: "scripted", messages: [{ role: "user", content: `${key} ${script(...FOREVER)}` }] };
      return { ...reader, key, run: (leave) => clients.run(reader, { url, request, leave, headers: { "Idempotency-Key": key } }) };
    });
    for (const { name, job } of keyed.map((reader) => ({ ...reader, job: reader.run(true) }))) {
      expect((await job.outcome()).text, name).toMatch(/^one, /);
    }
    for (const { name, key, job } of keyed.map((reader) => ({ ...reader, job: reader.run(false) }))) {
      await job.reads();
      const [first, second] = way.passed(key).map(({ answer }) => answer["content-location"]);
      expect(second, name).toBe(first);
      // It ends by this, and hasn't ended before.
      expect((await fetch(edge.url + second, { method: "DELETE" })).status, name).toBe(204);
      expect((await whole(edge.url + second)).terminal.data.finish, name).toBe("stopped");
      expect(await job.outcome(), name).toMatchObject({ text: expect.stringMatching(/^one, 0 1 /), finish: "stop" });
    }
    expect((await origin.streams()).started).toBe(keyless.length + keyed.length);
  });
});

test("a full origin is a 503, and the client's next try goes well", async ({ clients, start }) => {
  const count = READERS.length;
  const origin = await start(spawnOrigin({ flags: ["--generations", String(count), "--queue", "0"] }));
  const edge = await start(spawnWorkerd({ origins: { a: origin.url }, vars: { CHAT: "open" } }));
  const way = await start(hop(edge.port));
  const held = new AbortController();
  const request = { model: "scripted", stream: true, messages: [{ role: "user", content: script("held", { tokens: 100_000, every_ms: 50 }) }] };
  const init = { method: "POST", headers: { "content-type": "application/json", authorization: `Bearer ${SECRET}` }, body: JSON.stringify(request), signal: held.signal };
  for (let n = 0; n < count; n++) await fetch(`${origin.url}/v1/chat/completions`, init);
  const jobs = ask(clients, READERS, `${way.url}/v1`, ["one, ", "two"], { retries: 30 });
  for (const { marker, program } of jobs) {
    // Those that try once have had their answer.
    await until(() => way.passed(marker)[0]?.status === 503, `a 503 for ${program}`);
  }
  held.abort();
  for (const { name, job, program, mode, marker } of jobs) {
    const outcome = await job.outcome();
    const [{ answer }, ...more] = way.passed(marker);
    expect([answer["retry-after"], answer["x-should-retry"], answer["headwater-problem"]], name).toEqual(["1", "true", "overloaded"]);
    if (!retries(program)) {
      expectFailure({ name, program, mode }, outcome, { status: 503, code: "overloaded", type: "server_error" });
      continue;
    }
    const { text, finish, error } = outcome;
    expect({ text, finish, error }, name).toEqual({ text: "one, two", finish: "stop" });
    expect(more.at(-1).status, name).toBe(200);
  }
  await origin.idle();
  expect((await origin.streams()).started).toBe(count + jobs.filter(({ program }) => retries(program)).length);
});

/** Each client says that its answer failed, and the better ones why. */
function expectFailure({ name, program, mode }, { error, refusal, finish, done }, { status, ...rest }) {
  expect(error, name).toBeDefined();
  if (status) expect(error.status, name).toBe(status);
  expect(finish === "stop", name).toBe(false);
  if (program === "curl") {
    if (status) expect(refusal, name).toMatchObject(rest);
    else expect([error, done], name).toEqual([expect.objectContaining(rest), true]);
  } else if (program === "naive" && status) {
    expect(error.message, name).toContain(`"code":"${rest.code}"`);
  } else {
    expect(error, name).toMatchObject(rest);
  }
  expect(error.message, name).not.toContain("by script");
}

/** Waits for a client's first text. Of an answer in one piece it is given none: only the head comes by, after a while. */
const reads = ({ mode, marker, job }, way) => mode === "whole" ? until(() => way.passed(marker)[0]?.status, `the head for ${marker}`) : job.reads();

/** Each client says that its answer broke off, with what it has read. */
async function expectBroken(jobs) {
  for (const { name, job, mode } of jobs) {
    const { error, finish, text } = await job.outcome();
    expect(error, `${name}, finish ${finish}`).toBeDefined();
    expect(finish === "stop", name).toBe(false);
    expect(text, name).toBe(mode === "whole" ? "" : "one, ");
  }
}
