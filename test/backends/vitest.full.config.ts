import { defineConfig } from "vitest/config";

// The suites that take minutes or start more, which `npm run test:backends` runs
// by name, each in a command of its own.
export default defineConfig({
  test: {
    include: ["test/backends/*.full.test.ts"],
    globalSetup: ["test/support/postgres-server.ts"],
    testTimeout: 540_000,
    hookTimeout: 540_000,
    maxWorkers: 1,
    reporters: ["default"],
    disableConsoleIntercept: true,
  },
});
