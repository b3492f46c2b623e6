import type { Admin, Kafka } from "kafkajs";
import type { Logger } from "../../log/log.ts";
import { toKafkaProblem } from "./kafka-problem.ts";

/** Asks Kafka about topics, groups and offsets. Connects when it is first used, and anew after a failure. */
export interface KafkaAdmin {
  /**
   * @param question gets the client as well, for what Kafka tells members of a group only
   * @throws KafkaProblem
   */
  ask<T>(question: (admin: Admin, kafka: Kafka) => Promise<T>): Promise<T>;
  close(): Promise<void>;
}

interface Connected {
  readonly admin: Admin;
  readonly kafka: Kafka;
}

/** @param connect makes a client from the connection as it is configured now */
export function createKafkaAdmin(connect: () => Promise<Kafka>, log: Logger): KafkaAdmin {
  let current: Promise<Connected> | undefined;

  async function open(): Promise<Connected> {
    const kafka = await connect();
    const admin = kafka.admin();
    await admin.connect();
    return { admin, kafka };
  }

  async function discard(opened: Promise<Connected>): Promise<void> {
    if (current === opened) current = undefined;
    try {
      await (await opened).admin.disconnect();
    } catch (error) {
      log.debug({ err: error }, "an admin client did not disconnect");
    }
  }

  return {
    async ask(question) {
      current ??= open();
      const opened = current;
      try {
        const { admin, kafka } = await opened;
        return await question(admin, kafka);
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
