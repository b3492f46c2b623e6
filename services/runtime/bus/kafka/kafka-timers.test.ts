import { createRequire } from "node:module";
import { expect, test } from "vitest";
import { calmKafkaTimers } from "./kafka-timers.ts";

interface Queue {
  /** Set while a look for waiting requests is planned. */
  readonly throttleCheckTimeoutId: NodeJS.Timeout | null;
  readonly pending: unknown[];
  checkPendingRequests(): void;
  destroy(): void;
}
const RequestQueue: new (options: object) => Queue = createRequire(import.meta.url)(
  "kafkajs/src/network/requestQueue/index.js",
);

function newQueue(): Queue {
  const logger = { namespace: () => ({ debug: () => undefined }) };
  return new RequestQueue({ maxInFlightRequests: 0, requestTimeout: 1_000, logger, isConnected: () => true });
}

test("a connection of kafkajs on which nothing waits plans no look for what waits, and one on which something waits does", () => {
  const restless = newQueue();
  restless.checkPendingRequests();
  expect(restless.throttleCheckTimeoutId, "kafkajs does so by itself by now: remove kafka-timers.ts").not.toBe(null);
  restless.destroy();

  calmKafkaTimers();
  const calm = newQueue();
  calm.checkPendingRequests();
  expect(calm.throttleCheckTimeoutId).toBe(null);
  calm.pending.push({});
  calm.checkPendingRequests();
  expect(calm.throttleCheckTimeoutId).not.toBe(null);
  calm.destroy();
});
