import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import type { Logger } from "../log/log.ts";
import type { ConnectGate } from "./connect-gate.ts";
import { clientConfig, type SessionOptions } from "./connection-pool.ts";
import { describeError } from "./database-error.ts";

/** Listens on the channels of a service, all on one connection. */
export interface Listener {
  /** See `Database.listen`. Resolves at once; `onConnect` is called when notifications come in from then on. */
  listen(channel: string, onNotify: (payload: string) => void, onConnect: () => void): Promise<() => Promise<void>>;
  close(): Promise<void>;
}

interface Subscription {
  readonly channel: string;
  readonly onNotify: (payload: string) => void;
  readonly onConnect: () => void;
}

const pingIntervalMs = 15_000;
const pingTimeoutMs = 5_000;

/** The connection is made with the first subscription, rebuilt when it breaks, and ended with the last one. */
export function createListener(
  session: SessionOptions & { readonly role: string },
  gate: ConnectGate,
  log: Logger,
): Listener {
  const subscriptions = new Set<Subscription>();
  const closing = new AbortController();
  let client: pg.Client | undefined;
  let loop: Promise<void> | undefined;

  async function run(): Promise<void> {
    while (!closing.signal.aborted) {
      try {
        await stayConnected();
      } catch (error) {
        log.warn(describeError(error), "the connection that listens to postgres broke");
      }
      client = undefined;
      // The gate's back-off is no wait; without this the loop would spin on its refusals.
      await delay(250, undefined, { signal: closing.signal }).catch(() => undefined);
    }
  }

  async function stayConnected(): Promise<void> {
    const connection = new pg.Client({ ...clientConfig({ ...session }), query_timeout: pingTimeoutMs });
    const ended = new Promise<Error | undefined>((resolve) => {
      connection.once("error", resolve);
      connection.once("end", () => resolve(undefined));
    });
    connection.on("error", () => undefined); // the first one tells; later ones follow from it
    connection.on("notification", ({ channel, payload }) => {
      for (const subscription of subscriptions) {
        if (subscription.channel === channel) subscription.onNotify(payload ?? "");
      }
    });
    try {
      await gate.attempt(() => connection.connect());
      const listening = [...subscriptions];
      for (const channel of new Set(listening.map((subscription) => subscription.channel))) {
        await connection.query(`listen ${channel}`);
      }
      client = connection;
      // Those that came meanwhile are not in the list yet.
      for (const subscription of subscriptions) {
        if (!listening.includes(subscription)) await connection.query(`listen ${subscription.channel}`);
        subscription.onConnect();
      }
      for (;;) {
        const stop = new AbortController();
        const pause = delay(pingIntervalMs, "ping" as const, { signal: stop.signal, ref: false }).catch(() => "ping");
        const event = await Promise.race([ended, pause]);
        stop.abort();
        if (event !== "ping") {
          if (closing.signal.aborted) return;
          throw event ?? new Error("the connection ended");
        }
        // Finds a connection whose other side is gone without a word.
        await connection.query("select 1");
      }
    } finally {
      client = undefined;
      await connection.end().catch(() => undefined); // broken already
    }
  }

  return {
    async listen(channel, onNotify, onConnect) {
      if (!/^[a-z][a-z0-9_]{0,62}$/.test(channel)) {
        throw new TypeError(`not a channel's name: ${JSON.stringify(channel)}`);
      }
      if (closing.signal.aborted) throw new Error("the database is closed");
      const subscription: Subscription = { channel, onNotify, onConnect };
      subscriptions.add(subscription);
      const current = client;
      if (current !== undefined) {
        // If this fails the connection is broken, and the next one takes the subscription along.
        current.query(`listen ${channel}`).then(
          () => subscriptions.has(subscription) && onConnect(),
          (error: unknown) => log.debug(describeError(error), "listening waits for the next connection"),
        );
      }
      loop ??= run();
      return async () => {
        subscriptions.delete(subscription);
        const isLast = ![...subscriptions].some((other) => other.channel === channel);
        if (isLast) await client?.query(`unlisten ${channel}`).catch(() => undefined); // broken: forgotten with it
      };
    },
    async close() {
      closing.abort();
      await client?.end().catch(() => undefined); // broken already
      await loop;
    },
  };
}
