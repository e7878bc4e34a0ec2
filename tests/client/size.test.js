import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { gzipSync } from "node:zlib";

import { transform } from "esbuild";

/** Bytes, without the parser that it imports. */
const LIMIT = 3_500;

test("stream.js, minified and gzipped, is smaller than 3.5 kB", async (t) => {
  const source = readFileSync(new URL("../../public/stream.js", import.meta.url), "utf8");
  const { code } = await transform(source, { minify: true, format: "esm" });
  const size = gzipSync(code, { level: 9 }).length;
  t.diagnostic(`${size} bytes`);
  assert.ok(size < LIMIT, `${size} bytes`);
});
