import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import type { EdgeLimits } from "../../services/runtime/edge/edge-limits.ts";
import type { EdgeStats } from "../../services/runtime/edge/edge-server.ts";
import { leastOfThree } from "../support/least-of-three.ts";
import { callConnect, sessionMethod } from "./wire-client.ts";

/** What stands behind the port: the edge's own handler, or the gateway that is built on it. */
export const doors = ["edge", "gateway"] as const;
export type Door = (typeof doors)[number];

export interface TargetOptions {
  /** `edge` unless said. */
  readonly door?: Door;
  readonly limits?: Partial<EdgeLimits>;
  readonly tls?: { readonly key: string; readonly cert: string };
}

/** What the target saw of itself. */
export interface TargetReport {
  readonly unhandled: readonly string[];
  readonly warnings: readonly string[];
  readonly lines: readonly string[];
  /** Handlers that began. */
  readonly entered: number;
  /** Events that stream handlers produced. */
  readonly streamed: number;
  readonly stats: EdgeStats;
  readonly inFlightBytes: number;
  /** The longest time that its event loop was held since the last reset, in CPU time. */
  readonly maxStallMs: number;
  /** What is left on the heap and beside it after a collection. */
  readonly heldBytes: number;
  readonly rssBytes: number;
  readonly maxRssBytes: number;
}

/** A process to attack. */
export interface Target {
  readonly port: number;
  readonly pid: number;
  report(): Promise<TargetReport>;
  /** Begins a new measurement of stalls and memory. */
  reset(): Promise<TargetReport>;
  /**
   * What holds after every attack: the same process, nothing unhandled, no
   * warning, none of the given texts in its log, and a good call answered
   * within a second, if not at once, then again.
   */
  assertUnharmed(secrets?: readonly string[]): Promise<TargetReport>;
  stop(): Promise<void>;
}

/** Forks a target and waits until it listens. */
export async function startTarget(options: TargetOptions = {}): Promise<Target> {
  const child = fork(fileURLToPath(new URL("./target-process.ts", import.meta.url)), [JSON.stringify(options)], {
    stdio: ["ignore", "inherit", "inherit", "ipc"],
    execArgv: ["--expose-gc"],
  });
  const [{ port }] = (await once(child, "message")) as [{ port: number }];
  const ask = async (message: "report" | "reset"): Promise<TargetReport> => {
    child.send({ ask: message });
    const [report] = (await once(child, "message")) as [TargetReport];
    return report;
  };
  return {
    port,
    pid: child.pid ?? 0,
    report: () => ask("report"),
    reset: () => ask("reset"),
    async assertUnharmed(secrets = []) {
      expect(child.exitCode).toBeNull();
      const goodCallMs = async (): Promise<number> => {
        const startMs = performance.now();
        const secure = options.tls !== undefined;
        const answer = await callConnect(port, sessionMethod("SendTurn"), { text: "good" }, { secure });
        expect(answer).toMatchObject({ status: 200, body: { turn: { text: "4" } } });
        return performance.now() - startMs;
      };
      expect(await leastOfThree(1_000, goodCallMs)).toBeLessThan(1_000);
      const report = await ask("report");
      expect(report.unhandled).toEqual([]);
      expect(report.warnings).toEqual([]);
      for (const secret of secrets) expect(report.lines.join("\n")).not.toContain(secret);
      return report;
    },
    stop: () => stop(child),
  };
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return;
  child.disconnect();
  await once(child, "exit");
}
