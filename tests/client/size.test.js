import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { gzipSync } from "node:zlib";

import { build } from "esbuild";

/** Bytes, without the parser that they import. EventSource's transport is loaded where it is asked for. */
const LIMITS = { stream: 3_700, eventsource: 400 };

for (const [name, limit] of Object.entries(LIMITS)) {
  test(`${name}.js with what it imports, minified and gzipped, is smaller than ${limit} bytes`, async (t) => {
    const { outputFiles: [{ contents }] } = await build({
      entryPoints: [fileURLToPath(new URL(`../../public/${name}.js`, import.meta.url))],
      external: ["./vendor/*", "./eventsource.js", ...name === "stream" ? [] : ["./error.js"]],
      bundle: true, minify: true, format: "esm", write: false,
    });
    const size = gzipSync(contents, { level: 9 }).length;
    t.diagnostic(`${size} bytes`);
    assert.ok(size < limit, `${size} bytes`);
  });
}
