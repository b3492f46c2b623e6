import { defineConfig } from "vitest/config";

// The suites against real components, which `npm run test:backends` runs.
export default defineConfig({
  test: {
    include: ["test/backends/*.backend.test.ts"],
    globalSetup: ["test/support/postgres-server.ts", "test/backends/kafka-brokers.ts"],
    testTimeout: 120_000,
    hookTimeout: 240_000,
    // Each has the brokers, and two cores, to itself.
    maxWorkers: 1,
    reporters: ["default"],
  },
});
