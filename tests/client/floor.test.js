// The oldest supported browsers: Chrome and Edge 98, Firefox 97, Safari 15.4 (iOS 15.4). The youngest feature that is needed is
// `AbortSignal.reason`; then come `addEventListener`'s `signal` (90, 86, 15), `??=` (85, 79, 14) and class fields (74, 69, 14.1).
// Here the syntax is checked, by esbuild. The language's own APIs are checked by `tsc`, because tsconfig.json's `lib` is es2022.

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

import { transform } from "esbuild";

const FLOOR = ["chrome98", "firefox97", "safari15.4"];
const PUBLIC = new URL("../../public/", import.meta.url);
const modules = readdirSync(PUBLIC, { recursive: true }).filter((path) => path.endsWith(".js"));

for (const path of modules) {
  test(`${path} has no syntax that the oldest supported browsers can't read`, async () => {
    const source = readFileSync(new URL(path, PUBLIC), "utf8");
    const [newest, oldest] = await Promise.all(["esnext", FLOOR].map((target) => transform(source, { target })));
    assert.deepEqual(oldest.warnings, []);
    assert.equal(oldest.code, newest.code, "esbuild had to rewrite it");
  });
}

test("a lookbehind would be found", async () => {
  const [newest, oldest] = await Promise.all(["esnext", FLOOR].map((target) => transform("export default /(?<=a)b/", { target })));
  assert.notEqual(oldest.code, newest.code);
});
