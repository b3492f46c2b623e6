import { configDefaults, defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["{services,sdk,cli,registry,test,scripts}/**/*.test.ts"],
    // Minutes each, and real components: `npm run test:faults` and `npm run test:backends` run these.
    exclude: [...configDefaults.exclude, "test/faults/**", "test/backends/**"],
    globalSetup: ["test/support/postgres-server.ts"],
    testTimeout: 20_000,
    hookTimeout: 60_000,
    // Two cores: suites that start servers get one worker each.
    maxWorkers: 2,
    reporters: ["default"],
  },
});
