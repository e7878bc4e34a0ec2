// Vercel's `ai` with two of its providers: `ai.js openai`, whose default is another API than chat completions, and
// `ai.js openai-compatible`.

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";
import { run } from "./jobs.js";

const PROVIDERS = {
  "openai": (settings) => createOpenAI(settings).chat,
  "openai-compatible": (settings) => createOpenAICompatible({ name: "headwater", includeUsage: true, ...settings }),
};
const provider = PROVIDERS[process.argv[2]];

const call = ({ url, key, headers, retries, request }) => ({
  model: provider({ baseURL: url, apiKey: key, headers })(request.model),
  instructions: request.messages.find(({ role }) => role === "system")?.content,
  messages: request.messages.filter(({ role }) => role !== "system"),
  temperature: request.temperature,
  maxRetries: retries,
});

run({
  async stream(job, say, end) {
    const leaving = new AbortController();
    const { fullStream } = streamText({ ...call(job), abortSignal: leaving.signal, onError() {} });
    for await (const part of fullStream) {
      if (part.type === "error") end.error = describe(part.error);
      if (part.type === "finish-step") Object.assign(end, { id: part.response.id, model: part.response.modelId });
      if (part.type === "finish") Object.assign(end, { finish: part.finishReason, usage: part.totalUsage });
      if (part.type !== "text-delta" || !part.text) continue;
      say(part.text);
      if (job.leave) leaving.abort();
    }
  },

  async whole(job, say, end) {
    const { text, finishReason, usage, response } = await generateText(call(job));
    Object.assign(end, { id: response.id, model: response.modelId, finish: finishReason, usage });
    say(text);
  },
}, describe);

/** It keeps the last of several tries, and what the server said in OpenAI's shape. */
function describe(error) {
  const last = error.lastError ?? error;
  const { code, type, param } = last.data?.error ?? last;
  return { name: last.name, message: last.message ?? String(last), status: last.statusCode, code, type, param };
}
