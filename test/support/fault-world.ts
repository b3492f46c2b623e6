import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type Cadre, CadreError, createCadre } from "@cadre/sdk";
import { type RunningCadre, type StartCadreOptions, startCadre } from "./cadre.ts";
import { check, type RunHistory, type Verdict } from "./checker.ts";
import { type Child, startChild } from "./child.ts";
import { type ClientLog, openClientLog } from "./client-log.ts";
import { eachAtOnce, type Fault, InfrastructureError, say, witnessDirectory } from "./fault-driver.ts";
import { insist } from "./insist.ts";
import { type Ledger, startLedger } from "./ledger.ts";
import { childrenOf } from "./process-tree.ts";
import type { Workload } from "./workload.ts";

/** A whole Cadre with workers and witnesses, to be hurt. */
export interface FaultWorld {
  readonly cadre: Cadre;
  readonly ledger: Ledger;
  readonly client: ClientLog;
  readonly faults: readonly Fault[];
  readonly server: RunningCadre;
  /** The server's processes that run the orchestrator: the server itself, or its children in the mesh. */
  orchestrators(): readonly number[];
  /** Asks for a run until it is stored, over whatever happens meanwhile. Its key is its name. */
  start(workload: Workload, run: string): Promise<string>;
  /** Notes that something is about to be done to the system. */
  note(what: string, more?: Pick<Fault, "isQuiet">): void;
  /** Kills the server with SIGKILL and starts it again; resolves when it serves. */
  killServer(more?: Pick<Fault, "isQuiet">): Promise<void>;
  /** Starts the server again that was killed, or is killed now; again if it dies while it starts. */
  restartServer(): Promise<void>;
  /** Kills a worker with SIGKILL and starts another one; resolves when it is dead. */
  killWorker(which: number, more?: Pick<Fault, "isQuiet">): Promise<void>;
  /** Why callers got no run, with how often. */
  refusals(): Readonly<Record<string, number>>;
  /** Reads what became of all runs that were asked for, waiting for their end, and judges. */
  judge(workload: Workload, options: JudgeOptions): Promise<Verdict>;
  /** Stops everything; keeps the witnesses if `keep` says so. */
  dispose(keep?: boolean): Promise<void>;
}

export interface JudgeOptions {
  readonly floor: number;
  /** How long runs may take to end once nothing is hurt any more. Default 120 s. */
  readonly healMs?: number;
  readonly expected?: RunHistory["state"];
  /** Which runs are judged, by their names. Default: all. */
  readonly only?: (run: string) => boolean;
}

export interface FaultWorldOptions extends StartCadreOptions {
  readonly name: string;
  /** Starts the server in another way than `startCadre` with these options would. */
  readonly launch?: () => Promise<RunningCadre>;
  /** Default 2. */
  readonly workers?: number;
  /** Calls that a worker has at once. Default 1,000. */
  readonly concurrency?: number;
}

/** So many times a run is asked for before the server counts as gone for good. */
const maxTries = 1_200;
const retryMs = 100;
const maxRestarts = 3;

/** Starts it all, with the limits of the org raised to what a load needs. */
export async function startFaultWorld(options: FaultWorldOptions): Promise<FaultWorld> {
  const directory = witnessDirectory(options.name);
  await using opened = new AsyncDisposableStack();
  const ledger = await startLedger(directory.path);
  opened.defer(() => ledger.stop());
  const client = openClientLog(directory.path);
  const faults: Fault[] = [];
  let server = await (options.launch?.() ?? startCadre(options));
  opened.defer(() => server.dispose());
  const connect = (retry = {}) => createCadre({ baseUrl: server.url, apiKey: server.adminKey, ...retry });
  const cadre = connect();
  const impatient = connect({ retry: { maxAttempts: 1 }, timeoutMs: 10_000 });
  await raiseLimits(cadre);
  const workers: Child[] = [];
  const killed = new Set<Child>();
  opened.defer(async () => {
    await Promise.all(workers.map((worker) => worker.crash()));
  });
  const starting: Promise<void>[] = [];
  const startWorker = async (place: number): Promise<void> => {
    const args = [server.url, server.adminKey, ledger.url, String(options.concurrency ?? 1_000)];
    const child = startChild(join(import.meta.dirname, "ledger-worker-process.ts"), args);
    workers[place] = child;
    try {
      await child.line();
    } catch (error) {
      // Killed before it was registered: nothing is wrong with that.
      if (!killed.has(child)) throw error;
    }
  };
  await Promise.all(Array.from({ length: options.workers ?? 2 }, (_, place) => startWorker(place)));

  const world: FaultWorld = {
    cadre,
    ledger,
    client,
    faults,
    get server() {
      return server;
    },
    orchestrators() {
      if (options.topology !== "mesh") return [server.pid];
      return childrenOf(server.pid).flatMap(({ pid, command }) =>
        command.includes("serve orchestrator") ? [pid] : [],
      );
    },
    async start(workload, run) {
      client.write(run, "attempted");
      for (let tries = 1; ; tries += 1) {
        try {
          const id = await workload.start(impatient, run);
          client.write(run, "acked", { id });
          return id;
        } catch (error) {
          if (!(error instanceof CadreError)) throw error;
          const reason = `${error.reason}: ${error.message}`;
          if (!error.retryable) {
            client.write(run, "refused", { reason });
            throw new InfrastructureError(`run ${run} was refused`, { cause: error });
          }
          client.write(run, "unknown", { reason });
          if (tries === maxTries) throw new InfrastructureError(`run ${run} was never acknowledged`, { cause: error });
        }
        await delay(retryMs);
      }
    },
    note(what, more = {}) {
      faults.push({ atMs: Date.now(), what, ...more });
    },
    async killServer(more) {
      world.note(`server ${server.pid}`, more);
      await world.restartServer();
    },
    async restartServer() {
      await server.kill();
      for (let tries = 1; ; tries += 1) {
        try {
          server = await server.restart();
          return;
        } catch (error) {
          // It may have been told to die while it starts.
          if (tries === maxRestarts) throw new InfrastructureError("the server does not start", { cause: error });
        }
      }
    },
    async killWorker(which, more) {
      const worker = workers[which];
      if (worker === undefined) throw new InfrastructureError(`no worker ${which}`);
      world.note(`worker ${worker.pid}`, more);
      killed.add(worker);
      await worker.crash();
      // Not waited for: it connects when the server is there.
      const started = startWorker(which);
      started.catch(() => undefined); // thrown at the end
      starting.push(started);
    },
    refusals() {
      const counts: Record<string, number> = {};
      for (const { reason } of client.records()) {
        const name = reason?.split(":")[0];
        if (name !== undefined) counts[name] = (counts[name] ?? 0) + 1;
      }
      return counts;
    },
    async judge(workload, { floor, healMs = 120_000, expected, only = () => true }) {
      const records = client.records().filter(({ run }) => only(run));
      const ids = new Map<string, string>();
      for (const { run, id } of records) if (id !== undefined) ids.set(run, id);
      const histories = new Map<string, RunHistory>();
      const signal = AbortSignal.timeout(healMs);
      await eachAtOnce(ids, 16, async ([run, id]) => {
        const history = await workload.history(cadre, id, signal);
        if (history !== undefined) histories.set(run, history);
      });
      return check({
        ledger: ledger.records().filter(({ run }) => only(run)),
        client: records,
        histories,
        faults,
        steps: workload.steps,
        floor,
        ...(expected === undefined ? {} : { expected }),
      });
    },
    async dispose(keep = false) {
      for (const worker of workers) killed.add(worker);
      if (keep) keepOutput(directory.path, server, workers);
      await resources.disposeAsync();
      const outcomes = await Promise.allSettled(starting);
      if (keep) say(`the witnesses are in ${directory.path}`);
      else directory.remove();
      const failed = outcomes.find((outcome) => outcome.status === "rejected");
      if (failed !== undefined) throw new InfrastructureError("a worker did not start", { cause: failed.reason });
    },
  };
  // What was opened is the caller's from here on.
  const resources = opened.move();
  return world;
}

/** Puts beside the witnesses what the server and the workers that run wrote to standard error. */
function keepOutput(directory: string, server: RunningCadre, workers: readonly Child[]): void {
  writeFileSync(join(directory, "server.log"), server.stderr());
  for (const { pid, errors } of workers) writeFileSync(join(directory, `worker-${pid}.log`), errors());
}

/** Whatever limits there are: it is not they that are tested. */
async function raiseLimits(cadre: Cadre): Promise<void> {
  for (const { name, maxValue } of await insist(() => cadre.limits.list())) {
    await insist(() => cadre.limits.set(name, maxValue));
  }
}
