import { createHash } from "node:crypto";
import { type QueryExecutorProvider, sql } from "kysely";
import type { Database } from "../../runtime/postgres/database.ts";
import type { ToolsSchema } from "./schema.ts";

/** Something that changed: whoever waits for it reads the database again. */
export type Topic = `worker ${string}` | `call ${string}` | `stop ${string}`;

/** The calls of a worker changed, or its stream did. */
export function workerTopic(workerId: string): Topic {
  return `worker ${workerId}`;
}

/** A call changed. */
export function callTopic(callId: string): Topic {
  return `call ${callId}`;
}

/** A call that has no record is to stop, wherever it runs. */
export function stopTopic(orgId: string, key: string): Topic {
  return `stop ${createHash("sha256").update(`${orgId} ${key}`).digest("hex")}`;
}

/** Collects what a transaction changes, to be told when it has committed. */
export type Announce = (topic: Topic) => void;

const channel = "tools_event";

/**
 * Wakes those who wait for a change, in this replica at once and in the others
 * by NOTIFY. State is in the database only: a wake-up says "look again", so one
 * too many does no harm, and after a lost connection everybody is woken. Only
 * `stop` is a command, as what it stops has no state there.
 */
export class WakeUps {
  readonly #replicaId: string;
  readonly #waiting = new Map<Topic, Set<() => void>>();

  /** @param replicaId unique for each start; without blanks */
  constructor(replicaId: string) {
    this.#replicaId = replicaId;
  }

  get replicaId(): string {
    return this.#replicaId;
  }

  /** Calls `wake` whenever the topic changed, until the returned function is called. */
  subscribe(topic: Topic, wake: () => void): () => void {
    const waiting = this.#waiting.get(topic) ?? new Set();
    this.#waiting.set(topic, waiting);
    waiting.add(wake);
    return () => {
      waiting.delete(wake);
      if (waiting.size === 0) this.#waiting.delete(topic);
    };
  }

  /** Wakes those of this replica. */
  publish(topic: Topic): void {
    for (const wake of this.#waiting.get(topic) ?? []) wake();
  }

  /** Runs a transaction for an org, and announces what it changed: to other replicas with the commit, here after it. */
  async asOrg<T>(
    database: Database<ToolsSchema>,
    orgId: string,
    work: (transaction: Parameters<Parameters<Database<ToolsSchema>["asOrg"]>[1]>[0], announce: Announce) => Promise<T>,
  ): Promise<T> {
    const topics = new Set<Topic>();
    try {
      return await database.asOrg(orgId, async (transaction) => {
        const done = await work(transaction, (topic) => topics.add(topic));
        await this.#notify(transaction, topics);
        return done;
      });
    } finally {
      // Also when it failed: of a commit only the answer may have been lost.
      for (const topic of topics) this.publish(topic);
    }
  }

  /** The same with the engine's role. */
  async asEngine<T>(
    database: Database<ToolsSchema>,
    work: (transaction: QueryExecutorProvider, announce: Announce) => Promise<T>,
  ): Promise<T> {
    const topics = new Set<Topic>();
    try {
      return await database.engine.transaction().execute(async (transaction) => {
        const done = await work(transaction, (topic) => topics.add(topic));
        await this.#notify(transaction, topics);
        return done;
      });
    } finally {
      for (const topic of topics) this.publish(topic);
    }
  }

  /** Announces what is not a change of the database. */
  async announce(database: Database<ToolsSchema>, topic: Topic): Promise<void> {
    this.publish(topic);
    await this.#notify(database.engine, new Set([topic]));
  }

  /** Takes in what other replicas announce. Returns a function that ends it. */
  listen(database: Database<ToolsSchema>): Promise<() => Promise<void>> {
    return database.listen(
      channel,
      (payload) => {
        const end = payload.lastIndexOf(" ");
        if (payload.slice(end + 1) !== this.#replicaId) this.publish(payload.slice(0, end) as Topic);
      },
      () => {
        // A stop is no state that could be read again: what was announced meanwhile is lost, and the tool's timeout
        // ends the call.
        for (const topic of [...this.#waiting.keys()]) if (!topic.startsWith("stop ")) this.publish(topic);
      },
    );
  }

  async #notify(executor: QueryExecutorProvider, topics: ReadonlySet<Topic>): Promise<void> {
    if (topics.size === 0) return;
    await sql`select pg_notify(${channel}, topic || ' ' || ${this.#replicaId}) from unnest(${[...topics]}::text[]) topic`.execute(
      executor,
    );
  }
}
