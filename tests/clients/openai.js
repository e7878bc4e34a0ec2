// `openai` for JavaScript. `openai.js PACKAGE`, because two majors are installed.

import { run } from "./jobs.js";

const { default: OpenAI } = await import(process.argv[2]);

function connect({ url, key, headers, retries, idempotent }) {
  const client = new OpenAI({ baseURL: url, apiKey: key, defaultHeaders: headers, maxRetries: retries });
  if (idempotent) client.idempotencyHeader = "Idempotency-Key";
  return client;
}

run({
  async stream(job, say, end) {
    const stream = await connect(job).chat.completions.create({ ...job.request, stream: true });
    for await (const { id, model, choices, usage } of stream) {
      Object.assign(end, { id, model });
      if (usage) end.usage = usage;
      if (choices[0]?.finish_reason) end.finish = choices[0].finish_reason;
      const text = choices[0]?.delta.content;
      if (text) say(text);
      if (text && job.leave) break;
    }
  },

  async helper(job, say, end) {
    const stream = connect(job).chat.completions.stream(job.request);
    stream.on("chunk", ({ id }) => { end.id = id; });
    stream.on("content", (text) => {
      if (text) say(text);
      if (text && job.leave) stream.abort();
    });
    const { model, choices: [{ finish_reason }], usage } = await stream.finalChatCompletion();
    Object.assign(end, { model, finish: finish_reason, usage });
  },

  async whole(job, say, end) {
    const completion = await connect(job).chat.completions.create(job.request);
    const { id, model, choices: [{ message, finish_reason }], usage, _request_id } = completion;
    Object.assign(end, { id, model, finish: finish_reason, usage, request: _request_id });
    say(message.content);
  },

  async models(job, say) {
    for await (const { id } of connect(job).models.list()) say(`${id}\n`);
  },

  async model(job, say, end) {
    const { id, object, owned_by } = await connect(job).models.retrieve(job.request.model);
    Object.assign(end, { id, object, owned_by });
  },
});
