import type { Admin, Kafka } from "kafkajs";
import type { Logger } from "../../log/log.ts";
import { toKafkaProblem } from "./kafka-problem.ts";

/** Asks Kafka about topics, groups and offsets. Connects when it is first used, and anew after a failure. */
export interface KafkaAdmin {
  /** @throws KafkaProblem */
  ask<T>(question: (admin: Admin) => Promise<T>): Promise<T>;
  close(): Promise<void>;
}

/** @param connect makes a client from the connection as it is configured now */
export function createKafkaAdmin(connect: () => Promise<Kafka>, log: Logger): KafkaAdmin {
  let current: Promise<Admin> | undefined;

  async function open(): Promise<Admin> {
    const admin = (await connect()).admin();
    await admin.connect();
    return admin;
  }

  async function discard(opened: Promise<Admin>): Promise<void> {
    if (current === opened) current = undefined;
    try {
      await (await opened).disconnect();
    } catch (error) {
      log.debug({ err: error }, "an admin client did not disconnect");
    }
  }

  return {
    async ask(question) {
      current ??= open();
      const opened = current;
      try {
        return await question(await opened);
      } catch (error) {
        await discard(opened);
        throw toKafkaProblem(error);
      }
    },
    async close() {
      if (current !== undefined) await discard(current);
    },
  };
}
