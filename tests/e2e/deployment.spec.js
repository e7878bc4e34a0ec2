// The deployment as wrangler reads it: the rate limit. (The page is in poem.spec.js.)

import { expect, test } from "./fixtures.js";
import { problem, simple } from "./streams.js";

const stream = (response) => response.writeHead(200, { "content-type": "text/event-stream" }).end('data: {"chunk":"fine"}\n\n');

test("starts are counted by address, and over the limit they are a 429 with Retry-After", async ({ limited, fake }) => {
  const { requests } = await fake(stream, { behind: limited });
  const start = (address) => problem(simple(limited, "a"), { headers: { "cf-connecting-ip": address } });
  let refused;
  // 30 in 60 s; a period may end in between.
  for (let n = 0; n <= 60 && !refused; n++) {
    const answer = await start("192.0.2.7");
    if (answer.status === 429) refused = answer;
  }
  expect(refused.document).toMatchObject({ type: "/problems/rate-limited", status: 429, instance: "/simple", retryable: true });
  expect(refused.headers.get("retry-after")).toBe("60");
  const { length } = requests;
  expect(length).toBeGreaterThanOrEqual(30);
  expect((await start("192.0.2.8")).status, "another address").toBe(200);
  expect((await fetch(`${limited.url}/streams/a-0123456789ABCDEFabcdef`, { headers: { "cf-connecting-ip": "192.0.2.7" } })).status, "not a start").toBe(200);
  expect(requests).toHaveLength(length + 2);
});

test("with a limit but without an address nothing starts", async ({ limited, fake }) => {
  const { requests } = await fake(stream, { behind: limited });
  const { status, document } = await problem(simple(limited, "a"), { headers: { "cf-connecting-ip": "nonsense" } });
  expect([status, document.status]).toEqual([503, 503]);
  expect(requests).toEqual([]);
});
