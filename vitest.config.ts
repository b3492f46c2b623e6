import { join } from "node:path";
import { configDefaults, defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["{services,sdk,cli,registry,test,scripts}/**/*.test.ts"],
    // Minutes each, and real components: `npm run test:faults` and `npm run test:backends` run these.
    exclude: [...configDefaults.exclude, "test/faults/**", "test/backends/**"],
    globalSetup: ["test/support/postgres-server.ts"],
    // The processes that tests start keep what they compiled, as the CLI does.
    env: { NODE_COMPILE_CACHE: join(import.meta.dirname, "node_modules/.cache/cadre") },
    // Bounds, not promises: a busy machine may take long, and a test that passes waits for none of them.
    testTimeout: 60_000,
    hookTimeout: 120_000,
    expect: { poll: { timeout: 30_000 } },
    // Two cores: suites that start servers get one worker each.
    maxWorkers: 2,
    reporters: ["default"],
  },
});
