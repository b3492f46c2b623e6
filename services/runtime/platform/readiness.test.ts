import { ServingState } from "@cadre/gen/cadre/gateway/v1/health_pb";
import { expect, test } from "vitest";
import type { Dependency } from "./platform.ts";
import { checkReadiness } from "./readiness.ts";

const { SERVING, NOT_SERVING } = ServingState;

function dependency(name: string, state: ServingState, more: Partial<Dependency> = {}): Dependency {
  return { name, check: async () => ({ state, detail: state === SERVING ? "" : `${name} is away` }), ...more };
}

test("a service serves as long as all serve that it cannot do without", async () => {
  const postgres = dependency("postgres", SERVING);
  const kafka = dependency("kafka", NOT_SERVING, { servesWithout: true });
  expect(await checkReadiness("orchestrator", "1", [postgres, kafka])).toMatchObject({
    state: SERVING,
    dependencies: [
      { name: "postgres", state: SERVING, servesWithout: false },
      { name: "kafka", state: NOT_SERVING, detail: "kafka is away", servesWithout: true },
    ],
  });
  const away = await checkReadiness("orchestrator", "1", [dependency("postgres", NOT_SERVING), kafka]);
  expect(away.state).toBe(NOT_SERVING);
});

test("a dependency that does not answer within a second does not serve", async () => {
  const silent: Dependency = { name: "postgres", check: () => new Promise(() => {}) };
  expect(await checkReadiness("tools", "1", [silent])).toMatchObject({
    state: NOT_SERVING,
    dependencies: [{ name: "postgres", state: NOT_SERVING, detail: "does not answer" }],
  });
});
