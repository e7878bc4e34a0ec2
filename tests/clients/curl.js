// curl, as the README shows it. Its error is its exit code.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { lines, run } from "./jobs.js";

async function curl({ url, key, headers = {}, request, body = JSON.stringify(request), leave }, read) {
  const all = { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }), ...headers };
  const options = Object.entries(all).flatMap(([name, value]) => ["--header", `${name}: ${value}`]);
  const program = spawn("curl", ["--silent", "--show-error", "--no-buffer", "--fail-with-body", ...options, "--data-binary", "@-", `${url}/chat/completions`]);
  const ended = once(program, "close");
  program.stdin.on("error", () => {}).end(body);
  let complaint = "";
  program.stderr.setEncoding("utf8").on("data", (text) => { complaint += text; });
  for await (const line of lines(program.stdout)) {
    if (!read(line) || !leave) continue;
    program.kill();
    return;
  }
  const [code] = await ended;
  if (code) throw Object.assign(new Error(complaint), { code, status: Number(/error: (\d{3})/.exec(complaint)?.[1]) || undefined });
}

run({
  stream: (job, say, end) => curl({ ...job, body: job.body ?? JSON.stringify({ ...job.request, stream: true }) }, (line) => {
    if (line.startsWith("{")) end.refusal = JSON.parse(line).error;
    if (!line.startsWith("data: ")) return false;
    if (line === "data: [DONE]") {
      end.done = true;
      return false;
    }
    const { id, choices = [], usage, error } = JSON.parse(line.slice("data: ".length));
    if (error) end.error = error;
    else end.id = id;
    if (usage) end.usage = usage;
    if (choices[0]?.finish_reason) end.finish = choices[0].finish_reason;
    const text = choices[0]?.delta.content;
    if (text) say(text);
    return !!text;
  }),

  async whole(job, say, end) {
    let body = "";
    try {
      await curl(job, (line) => { body += line; });
    } finally {
      if (body.trimStart().startsWith("{") && body.endsWith("}")) end.answer = JSON.parse(body);
      end.refusal = end.answer?.error;
    }
    const { id, choices: [{ message, finish_reason }], usage } = JSON.parse(body);
    delete end.answer;
    Object.assign(end, { id, finish: finish_reason, usage });
    say(message.content);
  },
});
