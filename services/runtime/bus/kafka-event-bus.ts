import { setTimeout as delay } from "node:timers/promises";
import { ServingState } from "@cadre/gen/cadre/gateway/v1/health_pb";
import type { Meter, ObservableResult } from "@opentelemetry/api";
import type { Kafka } from "kafkajs";
import { AppError } from "../errors/app-error.ts";
import type { Logger } from "../log/log.ts";
import type { Dependency } from "../platform/platform.ts";
import type { BusEvent, EventBus, SubscribeOptions, Subscription } from "./event-bus.ts";
import { createKafkaAdmin, type KafkaAdmin } from "./kafka/kafka-admin.ts";
import { createKafkaClient } from "./kafka/kafka-client.ts";
import type { KafkaConnection } from "./kafka/kafka-connection.ts";
import { kafkaGroupOf, lagOf } from "./kafka/kafka-offsets.ts";
import { type KafkaProblem, toKafkaProblem } from "./kafka/kafka-problem.ts";
import { KafkaPublisher } from "./kafka/kafka-publisher.ts";
import { KafkaSubscription } from "./kafka/kafka-subscription.ts";
import { findTopicProblem } from "./kafka/kafka-topics.ts";
import { busTopics, type Topic } from "./topics.ts";

export interface KafkaEventBusOptions {
  /** Reads how Kafka is reached; asked for each new connection, so that a password can change. */
  readonly connection: () => Promise<KafkaConnection>;
  readonly log: Logger;
  readonly meter?: Meter;
  /** The topics that are to be there. Default: all of `topics.ts`, with their dead-letter topics. */
  readonly topics?: readonly Pick<Topic, "name" | "partitions">[];
  /** How long a member of a group may be silent before others take its partitions, in milliseconds. Default 15,000. */
  readonly sessionMs?: number;
}

/** A bus that can say how it is. */
export interface KafkaEventBus extends EventBus {
  /** `kafka`, for readiness: names what is wrong, and the remedy. */
  readonly dependency: Dependency;
}

const lookEveryMs = 5_000;

/**
 * Opens the bus that lives in Kafka. Does not wait for the brokers: `publish`
 * answers UNAVAILABLE, and subscriptions wait, until they can be reached. Makes
 * no topics; `cadre topics apply` does.
 */
export function openKafkaEventBus(options: KafkaEventBusOptions): KafkaEventBus {
  return new KafkaBus(options);
}

class KafkaBus implements KafkaEventBus {
  readonly #options: KafkaEventBusOptions;
  readonly #partitions: ReadonlyMap<string, number>;
  readonly #publisher: KafkaPublisher;
  readonly #admin: KafkaAdmin;
  readonly #subscriptions = new Map<KafkaSubscription, SubscribeOptions>();
  readonly #closing = new AbortController();
  readonly #looking: Promise<void>;
  /** Undefined until Kafka was looked at for the first time. */
  #state: { readonly problem: KafkaProblem | undefined } | undefined;
  #closed: Promise<void> | undefined;

  constructor(options: KafkaEventBusOptions) {
    this.#options = options;
    const { log, meter, topics = busTopics } = options;
    this.#partitions = new Map(topics.map(({ name, partitions }) => [name, partitions]));
    this.#publisher = new KafkaPublisher({ connect: this.#connect, partitions: this.#partitions, log });
    this.#admin = createKafkaAdmin(this.#connect, log);
    this.#looking = this.#look();
    const isUp = meter?.createObservableGauge("cadre.bus.up", { description: "1 if Kafka is there as it should be." });
    isUp?.addCallback((result) => result.observe(this.#problem === undefined && this.#state !== undefined ? 1 : 0));
    meter
      ?.createObservableGauge("cadre.bus.lag", { description: "Events that a group has not acknowledged." })
      .addCallback(this.#observeLag);
  }

  readonly #connect = async (): Promise<Kafka> =>
    createKafkaClient(await this.#options.connection(), this.#options.log);

  get #problem(): KafkaProblem | undefined {
    return (
      this.#state?.problem ?? [...this.#subscriptions.keys()].find(({ problem }) => problem !== undefined)?.problem
    );
  }

  readonly dependency: Dependency = {
    name: "kafka",
    // Facts wait in their outbox, up to its bound; nobody who calls need wait for them.
    servesWithout: true,
    check: async () => {
      const problem = this.#problem;
      if (problem !== undefined) {
        return { state: ServingState.NOT_SERVING, detail: `${problem.message}. ${problem.remedy}` };
      }
      if (this.#state === undefined) return { state: ServingState.NOT_SERVING, detail: "connects to Kafka" };
      return { state: ServingState.SERVING, detail: "" };
    },
  };

  async publish(events: readonly BusEvent[]): Promise<void> {
    if (this.#closing.signal.aborted) throw new AppError("SHUTTING_DOWN", "the bus is closed");
    const unknown = events.find(({ topic }) => !this.#partitions.has(topic));
    if (unknown !== undefined) throw new TypeError(`no topic ${unknown.topic}`);
    await this.#publisher.publish(events);
  }

  subscribe(options: SubscribeOptions): Subscription {
    if (this.#closing.signal.aborted) throw new AppError("SHUTTING_DOWN", "the bus is closed");
    const { topic, group } = options;
    if (!this.#partitions.has(topic)) throw new TypeError(`no topic ${topic}`);
    const subscription = new KafkaSubscription(options, {
      connect: this.#connect,
      groupId: kafkaGroupOf(group, topic),
      log: this.#options.log.child({ component: "bus", topic, group }),
      sessionMs: this.#options.sessionMs ?? 15_000,
    });
    this.#subscriptions.set(subscription, options);
    return {
      stop: async () => {
        await subscription.stop();
        this.#subscriptions.delete(subscription);
      },
    };
  }

  close(): Promise<void> {
    this.#closed ??= (async () => {
      this.#closing.abort();
      await Promise.all([...this.#subscriptions.keys()].map((subscription) => subscription.stop()));
      this.#subscriptions.clear();
      await this.#looking;
      await Promise.all([this.#publisher.close(), this.#admin.close()]);
    })();
    return this.#closed;
  }

  /** Looks every few seconds whether Kafka is there, and its topics with it. */
  async #look(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      const before = this.#state?.problem?.message;
      this.#state = { problem: await this.#findProblem() };
      const { problem } = this.#state;
      if (problem !== undefined && problem.message !== before) {
        this.#options.log.warn({ err: problem, remedy: problem.remedy }, "Kafka is not as it should be");
      }
      await delay(lookEveryMs, undefined, { signal }).catch(() => undefined); // closing
    }
  }

  async #findProblem(): Promise<KafkaProblem | undefined> {
    try {
      return await this.#admin.ask((admin) => findTopicProblem(admin, this.#partitions));
    } catch (error) {
      return toKafkaProblem(error);
    }
  }

  readonly #observeLag = async (result: ObservableResult): Promise<void> => {
    for (const { topic, group } of this.#subscriptions.values()) {
      try {
        result.observe(await this.#admin.ask((admin) => lagOf(admin, group, topic)), { topic, group });
      } catch (error) {
        this.#options.log.debug({ err: error, topic, group }, "the group's lag is not known now");
      }
    }
  };
}
