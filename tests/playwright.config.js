// End to end: real workerd, real origins, real Chromium. `cargo xtask test e2e` sets up what this needs, and runs it.

import { defineConfig } from "@playwright/test";

export default defineConfig({
  testDir: "e2e",
  outputDir: "../target/e2e/results",
  workers: 1, // servers and browsers take the machine as it is
  timeout: 240_000, // generous, because a machine may be busy
  expect: { timeout: 60_000 }, // a condition that comes true ends the wait at once
  forbidOnly: !!process.env.CI,
  reporter: [["list"]],
  use: {
    browserName: "chromium",
    launchOptions: {
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      args: [
        "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
      ],
    },
  },
});
