import { defineConfig } from "vitest/config";

// The full sets of fault tests, which `npm run test:faults` runs one by one:
// each has the machine to itself and takes minutes.
export default defineConfig({
  test: {
    globalSetup: ["test/support/postgres-server.ts"],
    include: ["test/faults/*.full.test.ts"],
    testTimeout: 540_000,
    hookTimeout: 60_000,
    maxWorkers: 1,
    reporters: ["default"],
    disableConsoleIntercept: true,
  },
});
