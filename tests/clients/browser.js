// `openai` for JavaScript in a page of another site. `ask()` is what a test calls.

import OpenAI from "openai";

globalThis.ask = async (baseURL, request) => {
  const client = new OpenAI({ baseURL, apiKey: "unused", dangerouslyAllowBrowser: true, maxRetries: 0 });
  const texts = [];
  try {
    const stream = client.chat.completions.stream(request, { headers: { "Idempotency-Key": crypto.randomUUID() } });
    stream.on("content", (text) => texts.push(text));
    const { data: models } = await client.models.list();
    const { id, choices } = await stream.finalChatCompletion();
    return { id, text: texts.join(""), finish: choices[0].finish_reason, models: models.map(({ id }) => id) };
  } catch ({ constructor, message, status, code, param, headers }) {
    return { name: constructor.name, message, status, code, param, retry: headers?.get("x-should-retry") };
  }
};
