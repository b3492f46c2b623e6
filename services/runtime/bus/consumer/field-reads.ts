import type { Message } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { FieldUseService } from "@cadre/gen/cadre/registry/v1/field_use_pb";
import type { Client } from "@connectrpc/connect";
import { BoundedMap } from "../../cache/bounded-map.ts";
import type { Logger } from "../../log/log.ts";
import { envelopeHeader } from "../envelope.ts";
import type { BusEvent } from "../event-bus.ts";
import type { Topic } from "../topics.ts";
import { watchFields } from "./watch-fields.ts";

/** Chooses among the events of a consumer, and has what is read of a chosen one told. */
export type FieldSampler = (event: Pick<BusEvent, "headers">, fact: Message) => void;

/** Gathers which fields of events are read, and tells the registry. */
export interface FieldReads {
  /** The sampler of a consumer. Of each version of the schema it takes one event in 256, and at least one a minute. */
  sampler(topic: Pick<Topic, "message">, group: string): FieldSampler;
  /** Ends it; what was not reported is lost. */
  stop(): void;
}

export interface FieldReadsOptions {
  readonly registry: Pick<Client<typeof FieldUseService>, "reportFieldReads">;
  readonly log: Logger;
  /** Milliseconds since the epoch. Default: `Date.now`. */
  readonly now?: () => number;
  /** From the first read to the first report, in milliseconds. Default 1,000. */
  readonly firstMs?: number;
}

const sampledOneOf = 256;
const sampledEveryMs = 60_000;
const reportEveryMs = 60_000;
const reportTimeoutMs = 5_000;
/** Fields times groups between two reports, which is also what a report may hold; what is more is not reported. */
const maxPending = 2_000;
/** Ids come from frames, which strangers may have written. */
const maxVersions = 16;

interface Pending {
  readonly typeName: string;
  /** Empty for that the group samples the message. */
  readonly field: string;
  readonly group: string;
  readonly lastReadMs: number;
}

/**
 * Gathers reads and reports them at most once a minute. A registry that is away
 * is no error: what it was not told is told with the next report.
 */
export function createFieldReads(options: FieldReadsOptions): FieldReads {
  const { registry, log, now = Date.now, firstMs = 1_000 } = options;
  let pending = new Map<string, Pending>();
  let reportedMs = Number.NEGATIVE_INFINITY;
  let timer: NodeJS.Timeout | undefined;
  let isStopped = false;

  function note(read: Pending): void {
    const key = `${read.typeName} ${read.field} ${read.group}`;
    if (isStopped || (pending.size >= maxPending && !pending.has(key))) return;
    pending.set(key, read);
    if (timer !== undefined) return;
    timer = setTimeout(() => void report(), Math.max(firstMs, reportedMs + reportEveryMs - now()));
    timer.unref();
  }

  async function report(): Promise<void> {
    const batch = pending;
    pending = new Map();
    reportedMs = now();
    timer = undefined;
    try {
      const reads = [...batch.values()].map(({ lastReadMs, ...read }) => ({
        ...read,
        lastReadAt: timestampFromMs(lastReadMs),
      }));
      await registry.reportFieldReads({ reads }, { timeoutMs: reportTimeoutMs });
    } catch (error) {
      log.debug({ err: error, reads: batch.size }, "the registry could not be told which fields are read");
      for (const [key, read] of batch) if (!pending.has(key)) note(read);
    }
  }

  return {
    sampler({ message }, group) {
      const versions = new BoundedMap<string, { count: number; sampledMs: number }>(maxVersions);
      return (event, fact) => {
        const version = event.headers[envelopeHeader.schemaId] ?? "";
        const before = versions.get(version) ?? { count: 0, sampledMs: Number.NEGATIVE_INFINITY };
        const nowMs = now();
        before.count += 1;
        if (before.count % sampledOneOf !== 0 && nowMs - before.sampledMs < sampledEveryMs) return;
        before.sampledMs = nowMs;
        versions.set(version, before);
        note({ typeName: message.typeName, field: "", group, lastReadMs: nowMs });
        watchFields(message, fact, (field) => {
          note({ typeName: field.parent.typeName, field: field.name, group, lastReadMs: now() });
        });
      };
    },
    stop() {
      isStopped = true;
      clearTimeout(timer);
    },
  };
}
