// Compiled, never run: the declarations as a user's code sees them.
import { openStream, resumeStream, StreamError, type Conversation, type State } from "../../public/stream.js";

export async function poem(output: Element, signal: AbortSignal): Promise<number | undefined> {
  const states: State[] = [];
  const stream = openStream("/simple", { topic: "cat" }, {
    signal,
    transport: "eventsource",
    key: "0123456789abcdef",
    onState: ({ state, delay = 0 }) => states.push(delay > 0 ? "reconnecting" : state),
  });
  try {
    for await (const text of stream) output.append(text.trim());
    const { finish, usage, timing } = await stream.result;
    if (finish === "length") await stream.stop();
    return usage?.output_tokens ?? timing?.total_ms;
  } catch (error) {
    if (error instanceof StreamError && error.retryable) return error.retryAfter ?? error.status;
    throw error;
  }
}

export const again = (id: string) => resumeStream(new URL(`https://example.com/streams/${id}`), { cursor: `${id}.7` });

export async function chat(question: string, thoughts: Element): Promise<Conversation> {
  const conversation: Conversation = { messages: [{ role: "user", content: question }], temperature: 0.7 };
  let answer = "";
  for await (const text of openStream("/chat", conversation, { onReasoning: (text) => thoughts.append(text.trim()) })) answer += text;
  conversation.messages.push({ role: "assistant", content: answer });
  return conversation;
}

// @ts-expect-error there is no such transport
openStream("/simple", {}, { transport: "websocket" });
// @ts-expect-error a stream is not a promise
openStream("/simple").then();
// @ts-expect-error getters only
openStream("/simple").id = "other";
// @ts-expect-error a message has a role
openStream("/chat", { messages: [{ content: "Hi" }] });
// @ts-expect-error a conversation has messages
openStream(`${"https://example.com"}/chat`, { topic: "cat" });
