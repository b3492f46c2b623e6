import { expect, test } from "vitest";
import type { Database } from "../../runtime/postgres/database.ts";
import type { ToolsSchema } from "./schema.ts";
import { callTopic, stopTopic, WakeUps, workerTopic } from "./wake-ups.ts";

/** What a replica hears of, from a connection that the test drives. */
async function listening() {
  const wakeUps = new WakeUps("here");
  let notify: (payload: string) => void = () => undefined;
  let connect: () => void = () => undefined;
  const listen: Database<ToolsSchema>["listen"] = async (_, onNotify, onConnect) => {
    notify = onNotify;
    connect = onConnect;
    return async () => undefined;
  };
  await wakeUps.listen({ listen } as Database<ToolsSchema>);
  const woken: string[] = [];
  const topics = { call: callTopic("1"), worker: workerTopic("2"), stop: stopTopic("3", "key") };
  for (const [name, topic] of Object.entries(topics)) wakeUps.subscribe(topic, () => woken.push(name));
  return { woken, notify, connect, topics };
}

test("a connection that broke wakes all who can look again, and stops no call", async () => {
  const { woken, connect } = await listening();
  connect();
  expect(woken).toEqual(["call", "worker"]);
});

test("what another replica announces is heard, what this one announced is not heard twice", async () => {
  const { woken, notify, topics } = await listening();
  notify(`${topics.stop} there`);
  notify(`${topics.call} here`);
  expect(woken).toEqual(["stop"]);
});
