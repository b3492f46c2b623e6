import { configDefaults, defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["{services,sdk,cli,registry,test,scripts}/**/*.test.ts"],
    // Minutes each: `npm run test:faults` runs these.
    exclude: [...configDefaults.exclude, "test/faults/**"],
    globalSetup: ["test/support/postgres-server.ts"],
    testTimeout: 20_000,
    hookTimeout: 60_000,
    // Two cores: suites that start servers get one worker each.
    maxWorkers: 2,
    reporters: ["default"],
  },
});
