// The reader that people write in ten lines: it splits at blank lines, and takes the blocks that begin with `data:`.

import { run } from "./jobs.js";

run({
  async stream({ url, key, headers, request, leave }, say, end) {
    const response = await fetch(`${url}/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json", ...(key && { authorization: `Bearer ${key}` }), ...headers },
      body: JSON.stringify({ ...request, stream: true }),
    });
    if (!response.ok) throw Object.assign(new Error(await response.text()), { status: response.status });
    let rest = "";
    for await (const part of response.body.pipeThrough(new TextDecoderStream())) {
      const blocks = (rest + part).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        if (!block.startsWith("data: ")) continue;
        if (block === "data: [DONE]") return;
        const { id, choices, usage, error } = JSON.parse(block.slice("data: ".length));
        if (error) throw Object.assign(new Error(error.message), error);
        end.id = id;
        if (usage) end.usage = usage;
        if (choices[0]?.finish_reason) end.finish = choices[0].finish_reason;
        const text = choices[0]?.delta.content;
        if (text) say(text);
        if (text && leave) return;
      }
    }
  },
});
