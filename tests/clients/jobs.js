// Runs the jobs of a client's program: see README.md.

/**
 * @param {Record<string, (job: any, say: (text: string) => void, end: any) => Promise<void>>} modes
 * @param {(error: any) => object} describe what the client says of an error
 */
export async function run(modes, describe = told) {
  const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
  const work = async (job) => {
    const end = {};
    try {
      await modes[job.mode](job, (text) => print({ job: job.job, text }), end);
    } catch (error) {
      end.error = describe(error);
    }
    print({ job: job.job, end });
  };
  for await (const line of lines(process.stdin)) work(JSON.parse(line));
}

/** Lines end with a line feed. (Those of `node:readline` also with U+2028.) @param {import("node:stream").Readable} input */
export async function* lines(input) {
  let rest = "";
  for await (const part of input.setEncoding("utf8")) {
    const whole = (rest + part).split("\n");
    rest = whole.pop();
    yield* whole;
  }
  if (rest) yield rest;
}

/** An error as OpenAI's clients have it. */
export const told = ({ name, constructor, message, status, code, type, param }) =>
  ({ name: constructor?.name ?? name, message, status, code, type, param });
