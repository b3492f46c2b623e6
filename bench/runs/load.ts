import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import type { RunRequest } from "./contestant.ts";

/** What the driver is told. */
export interface DriverCommand {
  /** Runs that are under way at once. */
  readonly atOnce: number;
  /** Runs in all. */
  readonly runs: number;
  /** No run is asked for later than that; those under way are waited for. */
  readonly startWithinMs: number;
}

/** What the driver saw. */
export interface DriverAnswer {
  /** Of each run, from asking to the whole answer. */
  readonly durationsMs: readonly number[];
  /** From the first run's start to the last one's end. */
  readonly seconds: number;
  /** Time of the processor that the driver took itself. */
  readonly cpuSeconds: number;
}

/** A process that asks for runs. */
export interface Load {
  /** @throws Error if a run failed */
  drive(command: DriverCommand): Promise<DriverAnswer>;
  stop(): Promise<void>;
}

/** Starts the process that asks for runs of `steps` steps. */
export function startLoad(request: RunRequest, steps: number): Load {
  const child: ChildProcess = fork(new URL("./driver.ts", import.meta.url), [JSON.stringify(request), `${steps}`]);
  const ended = once(child, "exit");
  return {
    async drive(command) {
      const answer = once(child, "message");
      child.send(command);
      const [message] = (await Promise.race([answer, ended.then(() => [{ failed: "it ended" }])])) as [
        DriverAnswer | { readonly failed: string },
      ];
      if ("failed" in message) throw new Error(`the driver: ${message.failed}`);
      return message;
    },
    async stop() {
      child.disconnect();
      await ended;
    },
  };
}
