import { setTimeout as delay } from "node:timers/promises";
import { fromJson, type JsonValue } from "@bufbuild/protobuf";
import { GetHealthResponseSchema, ServingState } from "@cadre/gen/cadre/gateway/v1/health_pb";
import type { Logger } from "../../services/runtime/log/log.ts";

const askTimeoutMs = 5_000;
const askEveryMs = 50;
const tellEveryMs = 5_000;
const startTimeoutMs = 120_000;

/**
 * What does not serve, as the gateway behind an admin port says: `<service>: <dependency>: <why>` each.
 *
 * @throws Error if the gateway does not answer within 5 s
 */
export async function readTroubles(adminUrl: string): Promise<readonly string[]> {
  const response = await fetch(`${adminUrl}/health`, { signal: AbortSignal.timeout(askTimeoutMs) });
  const { services } = fromJson(GetHealthResponseSchema, (await response.json()) as JsonValue);
  return services
    .filter(({ state }) => state !== ServingState.SERVING)
    .flatMap(({ service, dependencies }) =>
      dependencies
        .filter(({ state, servesWithout }) => state !== ServingState.SERVING && !servesWithout)
        .map(({ name, detail }) => `${service}: ${name}: ${detail}`),
    );
}

/**
 * Resolves when each gateway says that everything behind it serves: that each process listens does not say that the
 * others have reached it. Logs every 5 s what is still waited for.
 *
 * @throws Error naming what does not serve after two minutes; AbortError with the signal
 */
export async function awaitServing(adminUrls: readonly string[], log: Logger, signal: AbortSignal): Promise<void> {
  const startedAt = performance.now();
  let toldAt = startedAt;
  for (;;) {
    const troubles = new Set((await Promise.all(adminUrls.map(troublesNow))).flat());
    if (troubles.size === 0) return;
    const now = performance.now();
    if (now - startedAt > startTimeoutMs) throw new Error(`the mesh does not serve: ${[...troubles].join("; ")}`);
    if (now - toldAt > tellEveryMs) {
      log.warn({ troubles: [...troubles] }, "waiting until everything serves");
      toldAt = now;
    }
    await delay(askEveryMs, undefined, { signal });
  }
}

async function troublesNow(adminUrl: string): Promise<readonly string[]> {
  try {
    return await readTroubles(adminUrl);
  } catch (thrown) {
    return [`gateway: ${adminUrl} does not answer: ${String(thrown)}`];
  }
}
