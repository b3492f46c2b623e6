/**
 * Judges a fault test by its witnesses alone: the ledger, the client's log, the
 * log of the faults, and the histories that the public API gives afterwards.
 * Runs are classed as Jepsen does: attempted, acknowledged, seen.
 */
import type { ClientRecord } from "./client-log.ts";
import type { Fault } from "./fault-driver.ts";
import type { LedgerRecord } from "./ledger.ts";

/** A run as the public API tells it in the end. */
export interface RunHistory {
  readonly id: string;
  readonly state: "succeeded" | "failed" | "cancelled" | "open";
  /** Why it failed; for the report. */
  readonly reason?: string;
  /** The numbers of all its entries or events, in the order in which they came. */
  readonly seqs: readonly number[];
  /** How many terminal events it has. */
  readonly ends: number;
  /** When the terminal event was stored; undefined while there is none. */
  readonly endedAtMs: number | undefined;
  /** When each step was stored as ended, by the test's name of it. */
  readonly stepEndedAtMs: ReadonlyMap<string, number>;
}

export interface Evidence {
  readonly ledger: readonly LedgerRecord[];
  readonly client: readonly ClientRecord[];
  /** By the test's name of the run. A run that the API does not know is absent. */
  readonly histories: ReadonlyMap<string, RunHistory>;
  readonly faults: readonly Fault[];
  /** The steps whose effect each run has. */
  readonly steps: readonly string[];
  /** Acknowledged runs without which the test says nothing. */
  readonly floor: number;
  /** The state that runs are to reach. Default `succeeded`. */
  readonly expected?: RunHistory["state"];
}

/** What was found, and each finding that breaks a promise as a line of `problems`. */
export interface Verdict {
  readonly attempted: number;
  readonly acked: number;
  /** Attempted, without an answer, and there. */
  readonly recovered: number;
  readonly succeeded: number;
  /** Acknowledged and not there, or without the state or an effect that it should have. */
  readonly lost: number;
  /** There, though it was never asked for, or was refused. */
  readonly unexpected: number;
  /** Effects beyond the first of a step. */
  readonly doubled: number;
  /** Handlers that were called for a step that was stored as ended, or for a run that was. */
  readonly late: number;
  /** Histories with a gap, a repetition, or not exactly one end. */
  readonly broken: number;
  /** Handlers that were called again for a step in flight, under the same key. */
  readonly retried: number;
  /** Faults at whose moment a step was in flight. */
  readonly inFlight: number;
  /**
   * How long it took, at most, until the first of the steps that were in flight
   * at a fault was called again or ended, in milliseconds; by the kind of fault.
   */
  readonly longestResumeMs: Readonly<Record<string, number>>;
  /** The same until the last of them was; of the faults after which the system was left alone. */
  readonly longestFullResumeMs: Readonly<Record<string, number>>;
  /** Steps that were not seen again within ten seconds of a fault after which the system was left alone. */
  readonly slow: readonly string[];
  readonly problems: readonly string[];
}

/** What is promised of a step that was cut off, in milliseconds. */
const resumeWithinMs = 10_000;
const shownProblems = 20;

/** Judges. */
export function check(evidence: Evidence): Verdict {
  const { ledger, client, histories, faults, steps, floor, expected = "succeeded" } = evidence;
  const problems: string[] = [];
  const complain = (text: string): void => void problems.push(text);

  const attempted = new Set<string>();
  const acked = new Map<string, string>();
  const refused = new Set<string>();
  for (const { run, phase, id = "" } of client) {
    if (phase === "attempted") attempted.add(run);
    if (phase === "refused") refused.add(run);
    if (phase !== "acked") continue;
    const before = acked.get(run);
    if (before !== undefined && before !== id) complain(`run ${run} was acknowledged as ${before} and as ${id}`);
    acked.set(run, id);
  }

  const effects = new Map<string, LedgerRecord[]>();
  const called = new Map<string, LedgerRecord[]>();
  for (const record of ledger) {
    const place = `${record.run}/${record.step}`;
    if (record.type === "called") push(called, place, record);
    else if (record.applied) push(effects, place, record);
  }

  let doubled = 0;
  for (const [place, records] of effects) {
    if (records.length === 1) continue;
    doubled += records.length - 1;
    complain(`the effect of ${place} happened ${records.length} times, under ${records.map(({ key }) => key).join()}`);
  }
  let retried = 0;
  for (const [place, records] of called) {
    retried += records.length - 1;
    const keys = new Set(records.map(({ key }) => key));
    if (keys.size > 1) complain(`${place} was called under ${keys.size} keys`);
  }

  let late = 0;
  for (const record of ledger) {
    const history = histories.get(record.run);
    if (record.type !== "called" || history === undefined) continue;
    const endedAtMs = history.stepEndedAtMs.get(record.step);
    if (history.endedAtMs !== undefined && record.atMs > history.endedAtMs) {
      late += 1;
      complain(
        `${record.run}/${record.step} was called ${record.atMs - history.endedAtMs} ms after the end of its run`,
      );
    } else if (endedAtMs !== undefined && record.atMs > endedAtMs) {
      late += 1;
      complain(`${record.run}/${record.step} was called ${record.atMs - endedAtMs} ms after it was stored as ended`);
    }
  }

  const lost = new Set<string>();
  for (const [run, id] of acked) {
    const history = histories.get(run);
    if (history === undefined) {
      lost.add(run);
      complain(`run ${run} (${id}) was acknowledged and is not there`);
    } else if (history.id !== id) {
      complain(`run ${run} was acknowledged as ${id} and is there as ${history.id}`);
      lost.add(run);
    }
  }
  let succeeded = 0;
  let recovered = 0;
  let unexpected = 0;
  let broken = 0;
  for (const [run, history] of histories) {
    if (!attempted.has(run) || refused.has(run)) {
      unexpected += 1;
      complain(`run ${run} (${history.id}) is there and was ${refused.has(run) ? "refused" : "never asked for"}`);
    }
    if (!acked.has(run)) recovered += 1;
    if (history.state === "succeeded") succeeded += 1;
    if (history.state !== expected) {
      lost.add(run);
      complain(
        `run ${run} (${history.id}) is ${history.state}${history.reason === undefined ? "" : `: ${history.reason}`}`,
      );
    } else if (expected === "succeeded") {
      const missing = steps.filter((step) => !effects.has(`${run}/${step}`) || !history.stepEndedAtMs.has(step));
      if (missing.length > 0) {
        lost.add(run);
        complain(`run ${run} (${history.id}) succeeded without ${missing.join(", ")}`);
      }
    }
    const gap = history.seqs.findIndex((seq, index) => seq !== index + 1);
    const ends = history.state === "open" ? 0 : 1;
    if (gap >= 0 || history.ends !== ends) {
      broken += 1;
      complain(
        gap >= 0
          ? `the history of run ${run} (${history.id}) has ${history.seqs[gap]} where ${gap + 1} should be`
          : `the history of run ${run} (${history.id}) has ${history.ends} ends`,
      );
    }
  }
  for (const place of effects.keys()) {
    const run = place.slice(0, place.indexOf("/"));
    if (!histories.has(run) && !acked.has(run)) complain(`${place} has an effect, and its run is not there`);
  }
  if (acked.size < floor) complain(`only ${acked.size} runs were acknowledged, and less than ${floor} say nothing`);

  const resumes = faults
    .map((fault) => ({ fault, steps: resumesMs(fault, ledger, histories) }))
    .filter((resume) => resume.steps.size > 0);
  const quiet = resumes.filter(({ fault }) => fault.isQuiet === true);
  const slow = quiet.flatMap((resume) =>
    [...resume.steps].flatMap(([place, ms]) =>
      ms > resumeWithinMs ? [`${place} was seen again ${ms} ms after ${resume.fault.what}`] : [],
    ),
  );
  return {
    attempted: attempted.size,
    acked: acked.size,
    recovered,
    succeeded,
    lost: lost.size,
    unexpected,
    doubled,
    late,
    broken,
    retried,
    inFlight: resumes.length,
    longestResumeMs: longestByKind(resumes.map((resume) => ({ ...resume, ms: Math.min(...resume.steps.values()) }))),
    longestFullResumeMs: longestByKind(quiet.map((resume) => ({ ...resume, ms: Math.max(...resume.steps.values()) }))),
    slow,
    problems,
  };
}

/** The longest time of each kind of fault, which is the first word of what was hurt. */
function longestByKind(times: readonly { readonly fault: Fault; readonly ms: number }[]): Record<string, number> {
  const longest: Record<string, number> = {};
  for (const { fault, ms } of times) {
    const [kind = ""] = fault.what.split(" ");
    longest[kind] = Math.max(longest[kind] ?? 0, ms);
  }
  return longest;
}

/** How long after a fault each of the steps that were in flight was called again or stored as ended, by `run/step`. */
function resumesMs(
  fault: Fault,
  ledger: readonly LedgerRecord[],
  histories: ReadonlyMap<string, RunHistory>,
): ReadonlyMap<string, number> {
  const seenAtMs = new Map<string, number>();
  for (const { type, atMs, run, step } of ledger) {
    if (type !== "called") continue;
    const place = `${run}/${step}`;
    if (atMs <= fault.atMs) {
      const endedAtMs = histories.get(run)?.stepEndedAtMs.get(step) ?? Number.POSITIVE_INFINITY;
      if (endedAtMs > fault.atMs) seenAtMs.set(place, endedAtMs);
    } else if (seenAtMs.has(place)) {
      seenAtMs.set(place, Math.min(seenAtMs.get(place) ?? Number.POSITIVE_INFINITY, atMs));
    }
  }
  // What was never seen again is lost, which is counted elsewhere.
  return new Map([...seenAtMs].flatMap(([place, atMs]) => (Number.isFinite(atMs) ? [[place, atMs - fault.atMs]] : [])));
}

/** The verdict as lines for people: the figures, then the first problems. */
export function describeVerdict({ problems, slow, ...figures }: Verdict): string {
  const lines = [JSON.stringify(figures), ...[...slow, ...problems].slice(0, shownProblems).map((line) => `  ${line}`)];
  if (problems.length > shownProblems) lines.push(`  … and ${problems.length - shownProblems} more`);
  return lines.join("\n");
}

function push<T>(map: Map<string, T[]>, key: string, value: T): void {
  const values = map.get(key);
  if (values === undefined) map.set(key, [value]);
  else values.push(value);
}
