import { setTimeout as delay } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { AuditDecision, type AuditEvent, AuditEventSchema } from "@cadre/gen/cadre/credentials/v1/audit_pb";
import { type Meter, metrics } from "@opentelemetry/api";
import { newId } from "../ids/id.ts";
import type { Logger } from "../log/log.ts";
import type { AuditSink } from "./audit-sink.ts";

// Invariants:
// 1. The first denial of a kind is durable before its caller is answered, if the
//    log takes it within a quarter of a second; the further ones of the same
//    minute are counted, and written as one row. Nobody waits for a flood to be
//    written down: limits and abuse are noted on the side.
// 2. No denial is forgotten while the process lives: what could not be written
//    is counted with the next row. Only a crash loses counts, of a minute at most.
// 3. The kinds that are held at once are bounded, those that strangers can make
//    more tightly; beyond that, a denial is counted under its type alone. So is
//    what a flood can have written: a row a kind and minute.

/** What was refused, or was allowed and failed. */
export interface Denial {
  /** `auth.failed`, `authz.denied`, `tool.failed`, … */
  readonly type: string;
  /** DENIED unless said. */
  readonly decision?: AuditDecision;
  /** The true reason. */
  readonly reason: string;
  readonly orgId: string;
  readonly actor: string;
  readonly action: string;
  readonly resource: string;
  /** Whether another resource makes another kind, which gets a row of its own. Who sets it bounds the resources. */
  readonly perResource?: boolean;
  readonly source: string;
  readonly requestId: string;
  readonly traceId: string;
}

/** Writes denials to the audit log, floods of the same kind as one row a minute. */
export interface DenialLog {
  /** Notes a denial. Resolves when it is durable or counted; never rejects, as what was denied stays denied. */
  record(denial: Denial): Promise<void>;
  /** Writes what is counted now. */
  flush(): Promise<void>;
  /** Writes what is counted, and ends. */
  stop(): Promise<void>;
}

export interface DenialLogOptions {
  readonly sink: AuditSink;
  readonly log: Logger;
  /** Where what was merged, and what could not be written, is counted; the process's own by default. */
  readonly meter?: Meter;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

interface Kind {
  denial: Denial;
  /** How many are not in the audit log yet. */
  unwritten: number;
  windowEndsMs: number;
}

const windowMs = 60_000;
const flushEveryMs = 5_000;
const maxKinds = 10_000;
/** Of these, kinds of denials that belong to no org. */
const maxStrangerKinds = 1_000;
/** What was denied stays denied, so nobody waits long to be told while the log is down. */
const maxWaitMs = 250;

/** What was refused because credentials could not be asked: the audit log is there, too, so waiting for it is in vain. */
const vainReason = "NOT_CHECKED";

/** What is denied for what it costs, not for who asks: one kind for each subject and limit, and nobody waits. */
const floodTypes: ReadonlySet<string> = new Set(["limit.exceeded", "quota.exceeded", "conn.abuse"]);

export function createDenialLog(options: DenialLogOptions): DenialLog {
  const { now = Date.now, meter = metrics.getMeter("cadre") } = options;
  const kinds = new Map<string, Kind>();
  let strangerKinds = 0;
  const merged = meter.createCounter("cadre_audit_merged_total", {
    description: "Denials that were counted under their type alone, because too many kinds were held",
  });
  const failed = meter.createCounter("cadre_audit_write_failures_total", {
    description: "Rows of denials that could not be written; their counts go into the next row",
  });

  async function write(kind: Kind): Promise<void> {
    const count = kind.unwritten;
    kind.unwritten = 0;
    try {
      await options.sink.append(toEvent(kind.denial, count, now()));
    } catch (thrown) {
      kind.unwritten += count;
      failed.add(1, { type: kind.denial.type });
      options.log.error(
        { err: thrown, type: kind.denial.type, count },
        "a denial could not be written to the audit log",
      );
    }
  }

  async function writeAll(isDue: (kind: Kind) => boolean): Promise<void> {
    const due = [...kinds].filter(([, kind]) => isDue(kind));
    await Promise.all(
      due.map(async ([key, kind]) => {
        if (kind.unwritten > 0) await write(kind);
        if (kind.unwritten > 0 || kind.windowEndsMs > now() || !kinds.delete(key)) return;
        if (kind.denial.orgId === "") strangerKinds -= 1;
      }),
    );
  }

  const timer = setInterval(() => void writeAll((kind) => kind.windowEndsMs <= now()), flushEveryMs).unref();

  /** Counts a denial with its like; returns its kind if it is the first of one. */
  function count(denial: Denial): Kind | undefined {
    const key = keyOf(denial);
    const kind = kinds.get(key);
    if (kind !== undefined) {
      kind.unwritten += 1;
      kind.denial = denial;
      return undefined;
    }
    const first: Kind = { denial, unwritten: 1, windowEndsMs: now() + windowMs };
    kinds.set(key, first);
    if (denial.orgId === "") strangerKinds += 1;
    return first;
  }

  function hasRoomFor(denial: Denial): boolean {
    if (kinds.has(keyOf(denial))) return true;
    return kinds.size < maxKinds && (denial.orgId !== "" || strangerKinds < maxStrangerKinds);
  }

  return {
    async record(denial) {
      let kept = denial;
      if (!hasRoomFor(denial)) {
        // What tells them apart is given up, not the count.
        merged.add(1, { type: denial.type });
        kept = { ...denial, reason: "MANY", actor: "", action: "", resource: "", source: "" };
      }
      const first = count(kept);
      if (first === undefined) return;
      const written = write(first);
      if (floodTypes.has(denial.type) || denial.reason === vainReason) return;
      const waited = new AbortController();
      await Promise.race([written, delay(maxWaitMs, undefined, waited).catch(() => {})]); // aborted when written
      waited.abort();
    },
    flush: () => writeAll(() => true),
    async stop() {
      clearInterval(timer);
      await writeAll(() => true);
    },
  };
}

function keyOf({ type, reason, orgId, actor, action, resource, perResource, source }: Denial): string {
  const like = floodTypes.has(type)
    ? [resource, actor === "" ? source : actor]
    : [actor, action, source, perResource === true ? resource : ""];
  return JSON.stringify([type, reason, orgId, ...like]);
}

function toEvent(denial: Denial, count: number, nowMs: number): AuditEvent {
  return create(AuditEventSchema, {
    ...denial,
    eventId: newId("evt"),
    at: timestampFromMs(nowMs),
    decision: denial.decision ?? AuditDecision.DENIED,
    count,
  });
}
