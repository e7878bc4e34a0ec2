// OpenAI's API at the edge, asked by its real clients: models, keys, what is refused and with what words, pages of other sites,
// and the README's examples.

import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { build } from "esbuild";
import { PROGRAMS, READERS, SDKS, ask, expect, hop, retries, test } from "./clients.js";
import { KEY, OTHER_KEY, ROOT, digest, spawnEdge, spawnGroup, spawnOrigin } from "./servers.js";
import { whole } from "./streams.js";
import { spawnWorkerd } from "./workerd.js";

/** OpenAI's own libraries, once each. */
const LIBRARIES = Object.keys(PROGRAMS).filter((program) => program.startsWith("openai"));
/** What the scripted model says without a script. */
const LINE = "In a line, and then one more.";
/** What the message for a conversation over the model's context says. */
const TOO_LONG = "the prompt is longer than the model's context; send a shorter one";
const bearer = (key) => ({ authorization: `Bearer ${key}` });

test.describe("models", () => {
  test("are listed, and found by name and alias", async ({ clients, start }) => {
    const origin = await start(spawnOrigin({ flags: ["--model-alias", "vendor/odd:name=scripted"] }));
    const edge = await start(spawnWorkerd({ origins: { a: origin.url }, vars: { CHAT: "open" } }));
    const url = `${edge.url}/v1`;
    for (const program of LIBRARIES) {
      const list = await clients.run({ program, mode: "models" }, { url }).outcome();
      expect(list.error, program).toBeUndefined();
      expect(list.text.split("\n"), program).toContain("scripted");
      for (const model of ["scripted", "default", "vendor/odd:name"]) {
        const found = await clients.run({ program, mode: "model" }, { url, request: { model } }).outcome();
        expect(found, program).toMatchObject({ id: model, object: "model", owned_by: "headwater" });
        const [{ job }] = ask(clients, [{ program, mode: "stream" }], url, ["x"], { request: { model } });
        expect(await job.outcome(), program).toMatchObject({ text: "x", finish: "stop", model });
      }
      const none = await clients.run({ program, mode: "model" }, { url, request: { model: "gpt-none" } }).outcome();
      expect(none.error, program).toMatchObject({ status: 404, code: "model_not_found", message: expect.stringContaining("scripted") });
    }
  });
});

test.describe("what is refused, and in what words", () => {
  const said = (content) => ({ messages: [{ role: "user", content }] });
  const tool = { type: "function", function: { name: "look", strict: true, parameters: { type: "object", properties: {}, required: [], additionalProperties: false } } };
  const image = { type: "image_url", image_url: { url: "https://app.example/cat.png" } };
  for (const [what, request, expected, words] of [
    ["no messages", { messages: [] }, { status: 400, param: "messages" }, "messages is a list of 1 to"],
    ["a wrong role", { messages: [{ role: "owner", content: "x" }] }, { status: 400, param: "messages[0].role" }, "is one of system, developer, user and assistant"],
    ["an image", said([{ type: "text", text: "What is it?" }, image]), { status: 400, param: "messages[0].content[1]", code: "unsupported_value" }, "images aren't supported"],
    ["tools", { tools: [tool] }, { status: 400, param: "tools", code: "unsupported_parameter" }, "tools aren't supported"],
    ["n = 2", { n: 2 }, { status: 400, param: "n", code: "unsupported_value" }, "one answer at a time"],
    ["logprobs", { logprobs: true, top_logprobs: 2 }, { status: 400, param: "logprobs", code: "unsupported_parameter" }, "probabilities aren't told"],
    ["temperature 3", { temperature: 3 }, { status: 400, param: "temperature" }, "temperature is a number from 0 to 2"],
    ["an unknown model", { model: "gpt-none" }, { status: 404, param: "model", code: "model_not_found" }, "the names are"],
    ["a body over 1 MiB", said("x".repeat(1_100 * 1024)), { status: 413, code: "request_too_large" }, "over 1024 KiB"],
    ["a conversation too long for the model", said('[{"fail":"too-long"}]'), { status: 400, code: "context_length_exceeded" }, TOO_LONG],
  ]) {
    test(what, async ({ clients, site, start }) => {
      const way = await start(hop(site.edge.port));
      const before = (await site.origin.streams()).started;
      for (const { name, job, marker } of ask(clients, SDKS, `${way.url}/v1`, ["x"], { request })) {
        const { error, text } = await job.outcome();
        expect(error, `${name} ${marker}`).toMatchObject({ type: "invalid_request_error", ...expected });
        expect(error.message, name).toContain(words);
        expect(text, name).toBe("");
      }
      expect(way.passed("")).toHaveLength(SDKS.length);
      if (expected.code !== "context_length_exceeded") expect((await site.origin.streams()).started).toBe(before);
    });
  }

  test("temperature 3 and an unknown model, by those that hide the API", async ({ clients, site }) => {
    const readers = READERS.filter(({ program }) => !program.startsWith("openai") && retries(program));
    for (const [request, status, words] of [[{ temperature: 3 }, 400, "temperature is a number from 0 to 2"], [{ model: "gpt-none" }, 404, "the names are"]]) {
      for (const { name, job } of ask(clients, readers, site.url, ["x"], { request })) {
        const { error } = await job.outcome();
        expect(error?.message, name).toContain(words);
        expect(error.status, name).toBe(status);
      }
    }
  });

  test("what only a hand-made request can have: broken JSON, another content type, a page of another site", async ({ clients, site }) => {
    const request = { model: "scripted", messages: [{ role: "user", content: "x" }] };
    for (const [job, status, words] of [
      [{ body: '{"model":"scripted","messages":[' }, 400, "the body is no JSON"],
      [{ headers: { "Content-Type": "text/plain" } }, 415, "application/json"],
      [{ headers: { Origin: "https://evil.example", "Sec-Fetch-Site": "cross-site" } }, 403, "ALLOWED_ORIGINS"],
    ]) {
      for (const mode of PROGRAMS.curl.modes) {
        const { error, refusal } = await clients.run({ program: "curl", mode }, { url: site.url, request, ...job }).outcome();
        expect(error?.status, `${words} ${mode}`).toBe(status);
        expect(refusal.message, mode).toContain(words);
        expect(refusal, mode).toEqual({ message: expect.any(String), type: expect.stringMatching(/^(invalid_request|permission)_error$/), param: null, code: status === 403 ? "cross_site" : null });
      }
    }
  });

  test("but what only tunes an answer is ignored, and told in a header", async ({ clients, site, start }) => {
    const way = await start(hop(site.edge.port));
    const readers = READERS.filter(({ program }) => program.endsWith("JavaScript") || program === "curl");
    for (const { name, job, marker } of ask(clients, readers, `${way.url}/v1`, ["fine"], { request: { top_k: 5, min_p: 0.1, user: "me", store: true, tools: [], n: 1 } })) {
      expect(await job.outcome(), name).toMatchObject({ text: "fine", finish: "stop" });
      const [{ answer }] = way.passed(marker);
      expect(answer["headwater-ignored"]?.split(", ").toSorted(), name).toEqual(["min_p", "top_k"]);
    }
  });

  test("a key that stands for another conversation", async ({ clients, site, start }) => {
    const way = await start(hop(site.edge.port));
    const keyed = SDKS.map((reader) => ({ reader, headers: { "Idempotency-Key": randomUUID() } }));
    const asked = (text) => keyed.map(({ reader, headers }) => ask(clients, [reader], `${way.url}/v1`, [text], { headers })[0]);
    for (const { name, job } of asked("first")) expect(await job.outcome(), name).toMatchObject({ text: "first", finish: "stop" });
    for (const { name, job, marker } of asked("second")) {
      const { error, text } = await job.outcome();
      expect(error, name).toMatchObject({ status: 422, code: "idempotency_key_reused", type: "invalid_request_error" });
      expect(text, name).toBe("");
      expect(way.passed(marker), `${name}: not asked again`).toHaveLength(1);
    }
  });
});

test.describe("keys", () => {
  const keyed = (start, vars) => start(spawnOrigin()).then(async (origin) => {
    const edge = await start(spawnWorkerd({ origins: { a: origin.url }, vars }));
    const way = await start(hop(edge.port));
    return { origin, edge, way, url: `${way.url}/v1` };
  });
  const KEYS = { EDGE_KEYS: `${digest(KEY)}, ${digest(OTHER_KEY)}` };

  test("a right one is needed where there are some, and the message says so", async ({ clients, start }) => {
    const { origin, way, url } = await keyed(start, KEYS);
    for (const { name, job } of ask(clients, READERS, url, ["fine"], { key: KEY })) {
      expect(await job.outcome(), name).toMatchObject({ text: "fine", finish: "stop" });
    }
    const { started } = await origin.streams();
    for (const { name, job, marker, program } of ask(clients, READERS, url, ["no"], { key: "wrong" })) {
      const { error, refusal } = await job.outcome();
      expect(error?.status, name).toBe(401);
      if (program !== "naive") expect(refusal ?? error, name).toMatchObject({ code: "invalid_api_key", type: "invalid_request_error" });
      const passed = way.passed(marker);
      expect(passed, `${name}: not asked again`).toHaveLength(1);
      expect(passed[0].answer, name).toMatchObject({ "www-authenticate": "Bearer", "x-should-retry": "false" });
    }
    const request = { model: "scripted", messages: [{ role: "user", content: "x" }] };
    for (const mode of PROGRAMS.curl.modes) {
      const { error, refusal } = await clients.run({ program: "curl", mode }, { url, request, key: null }).outcome();
      expect([error?.status, refusal?.code], mode).toEqual([401, "invalid_api_key"]);
      const other = await clients.run({ program: "curl", mode }, { url, request, key: null, headers: { "X-API-Key": KEY } }).outcome();
      expect(other, mode).toMatchObject({ text: LINE, finish: "stop" });
    }
    expect((await origin.streams()).started).toBe(started + PROGRAMS.curl.modes.length);
  });

  test("none is needed where CHAT is open; where neither is set, the message says what to set", async ({ clients, site, start }) => {
    const { origin, url } = await keyed(start, {});
    const readers = [...SDKS, { name: "curl", program: "curl", mode: "whole" }];
    for (const { name, job } of ask(clients, readers, url, ["no"], { key: KEY })) {
      const { error, refusal } = await job.outcome();
      expect(error?.status, name).toBe(401);
      const { message } = refusal ?? error;
      for (const setting of ["CHAT", "EDGE_KEYS"]) expect(message, name).toContain(setting);
    }
    expect((await origin.streams()).started).toBe(0);
    const request = { model: "scripted", messages: [{ role: "user", content: "x" }] };
    expect(await clients.run({ program: "curl", mode: "whole" }, { url: site.url, request, key: null }).outcome()).toMatchObject({ text: LINE });
  });

  test("a caller's streams are nobody else's: neither to read, nor to stop, nor by their key", async ({ clients, start }) => {
    const { origin, edge, url } = await keyed(start, KEYS);
    const headers = { "Idempotency-Key": randomUUID() };
    const request = { model: "scripted", messages: [{ role: "user", content: "one key" }] };
    const id = async (key, program) => (await clients.run({ program, mode: "whole" }, { url, key, request, headers }).outcome()).id;
    for (const program of LIBRARIES) {
      const [first, again, other] = [await id(KEY, program), await id(KEY, program), await id(OTHER_KEY, program)];
      expect(first, program).toMatch(/^chatcmpl-a-/);
      expect([again === first, other === first], program).toEqual([true, false]);
      const place = `${edge.url}/streams/${first}`;
      expect((await whole(place, { headers: { accept: "text/event-stream", ...bearer(KEY) } })).text, program).toBe(LINE);
      expect((await fetch(place, { headers: bearer(OTHER_KEY) })).status, program).toBe(404);
      expect((await fetch(place)).status, program).toBe(404);
      expect((await fetch(place, { method: "DELETE", headers: bearer(OTHER_KEY) })).status, program).toBe(404);
    }
    expect((await origin.streams()).started).toBe(2);
  });

  test("starts are counted, and over the limit they are a 429", async ({ clients, start }) => {
    const origin = await start(spawnOrigin());
    const edge = await start(spawnEdge({ origins: { a: origin.url }, vars: { RATE_LIMIT: "on", ...KEYS } }));
    const url = `${edge.url}/v1`;
    const fill = () => fetch(`${url}/chat/completions`, {
      method: "POST", headers: { "content-type": "application/json", "cf-connecting-ip": "192.0.2.7", ...bearer(KEY) },
      body: JSON.stringify({ model: "scripted", messages: [{ role: "user", content: "x" }] }),
    }).then((answer) => answer.text());
    const run = (key) => ask(clients, [{ program: "openai 3, Python", mode: "whole" }], url, ["x"], { key, retries: 0, headers: { "CF-Connecting-IP": "192.0.2.7" } })[0].job.outcome();
    let refused;
    // 30 in 60 s; a period may end in between.
    for (let period = 0; period < 2 && !refused; period++) {
      await Promise.all(Array.from({ length: 30 }, fill));
      refused = (await run(KEY)).error;
    }
    expect(refused).toMatchObject({ status: 429, code: "rate_limit_exceeded", type: "rate_limit_error" });
    expect(await run(OTHER_KEY), "another key at the same address").toMatchObject({ text: "x" });
  });
});

test.describe("a page of another site", () => {
  const page = async (start) => {
    const { outputFiles: [{ text: code }] } = await build({ entryPoints: [`${ROOT}tests/clients/browser.js`], bundle: true, format: "iife", write: false, logLevel: "silent" });
    const server = createServer((_, res) => res.writeHead(200, { "content-type": "text/html" }).end(`<!doctype html><meta charset="utf-8"><script>${code.replaceAll("</script", "<\\/script")}</script>`));
    await new Promise((resolve) => { server.listen(0, "127.0.0.1", resolve); });
    await start({ end: () => { server.close(); server.closeAllConnections(); } });
    return `http://127.0.0.1:${server.address().port}`;
  };
  const request = { model: "scripted", messages: [{ role: "user", content: "x" }] };

  test("that is allowed uses the library as any program does, and reads errors too", async ({ page: tab, start }) => {
    const [site, origin] = [await page(start), await start(spawnOrigin())];
    const edge = await start(spawnWorkerd({ origins: { a: origin.url }, vars: { CHAT: "open", ALLOWED_ORIGINS: site } }));
    await tab.goto(site);
    const run = (request) => tab.evaluate(([url, request]) => window.ask(url, request), [`${edge.url}/v1`, request]);
    expect(await run(request)).toEqual({ id: expect.stringMatching(/^chatcmpl-a-/), text: LINE, finish: "stop", models: expect.arrayContaining(["scripted"]) });
    expect(await run({ ...request, temperature: 3 })).toMatchObject({ status: 400, param: "temperature", retry: "false", message: expect.stringContaining("temperature is a number") });
  });

  test("that isn't gets nothing, and starts nothing", async ({ page: tab, start }) => {
    const [site, origin] = [await page(start), await start(spawnOrigin())];
    const edge = await start(spawnWorkerd({ origins: { a: origin.url }, vars: { CHAT: "open", ALLOWED_ORIGINS: "https://app.example" } }));
    await tab.goto(site);
    expect(await tab.evaluate(([url, request]) => window.ask(url, request), [`${edge.url}/v1`, request])).toMatchObject({ name: "APIConnectionError" });
    expect((await origin.streams()).started).toBe(0);
  });
});

/** As they stand there, but for the address. */
test("the README's examples run", async ({ start }) => {
  const [, section] = readFileSync(`${ROOT}README.md`, "utf8").split("\n## Any OpenAI client\n");
  expect(section, "the section").toBeDefined();
  const blocks = [...section.split("\n## ")[0].matchAll(/^```(\w+)\n([^]*?)^```$/gm)];
  const programs = {
    python: [`${ROOT}target/clients/bin/python`, "-c"],
    js: [process.execPath, "--input-type=module", "--eval"],
    sh: ["sh", "-c"],
  };
  expect(new Set(blocks.map(([, language]) => language))).toEqual(new Set(Object.keys(programs)));
  const origin = await start(spawnOrigin());
  const edge = await start(spawnEdge({ origins: { a: origin.url }, vars: { CHAT: "open" } }));
  for (const [, language, example] of blocks) {
    const [program, ...args] = programs[language];
    const code = example.replaceAll("http://127.0.0.1:8787", edge.url);
    expect(code).toContain(edge.url);
    const group = spawnGroup(program, [...args, code], { no_proxy: "*", NO_PROXY: "*" });
    expect(await group.exit, group.output()).toBe(0);
    if (language === "sh") for (const word of ["data: {", '"content":"line, "', "data: [DONE]"]) expect(group.output()).toContain(word);
    else expect(group.output().trim(), language).toBe(LINE);
  }
  expect((await origin.streams()).started).toBe(blocks.length);
});

test("the embedded model answers, and says when a conversation is too long for it", async ({ clients, start }) => {
  const origin = await start(spawnOrigin({ model: "embedded" }));
  const edge = await start(spawnWorkerd({ origins: { a: origin.url }, vars: { CHAT: "open" } }));
  const url = `${edge.url}/v1`;
  const said = (content) => ({ model: "default", max_tokens: 20, messages: [{ role: "user", content }] });
  const answer = await clients.run({ program: "curl", mode: "stream" }, { url, request: said("Name three rivers.") }).outcome();
  expect(answer).toMatchObject({ text: expect.stringMatching(/\w/), done: true });
  expect(answer.error).toBeUndefined();
  for (const { name, job } of ask(clients, SDKS, url, [], { request: said("river ".repeat(20_000)) })) {
    const { error, text } = await job.outcome();
    expect(error, name).toMatchObject({ status: 400, code: "context_length_exceeded", type: "invalid_request_error", param: "messages" });
    expect(error.message, name).toContain(TOO_LONG);
    expect(text, name).toBe("");
  }
});
