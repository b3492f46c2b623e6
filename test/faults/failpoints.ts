import { type Failpoint, failpoints as places } from "../../services/runtime/failpoint/failpoint.ts";
import type { Topology } from "../support/cadre.ts";
import { describeVerdict, type Verdict } from "../support/checker.ts";
import { connectToEmbedded } from "../support/embedded-witness.ts";
import { type Armed, type FailpointAction, type Failpoints, openFailpoints } from "../support/failpoints.ts";
import { InfrastructureError, type Random, reach, say, seededRandom } from "../support/fault-driver.ts";
import { type FaultWorld, startFaultWorld } from "../support/fault-world.ts";
import { insist } from "../support/insist.ts";
import { changeByte, readStoredRuns } from "../support/journal-damage.ts";
import { openAiTestKey, startOpenAiServer } from "../support/openai-server.ts";
import { runWorkload, waitingWorkload } from "../support/run-workload.ts";
import { modelWorkload, turnWorkload } from "../support/turn-workload.ts";
import type { Workload } from "../support/workload.ts";

/**
 * What brings a process to a place:
 *
 * - `run`: a run of a graph; time alone, too, for what is done every few seconds.
 * - `turn`: a turn of a session.
 * - `wait`: a run that waits for a time and for a child, and carries a large value.
 * - `cancel`: a run that is cancelled while a tool works that does not heed it.
 * - `model`: a turn that asks a model over the network.
 * - `lost-commit`: a commit whose answer got lost.
 * - `damage`: the start of the server with a run whose journal is damaged.
 * - `start`, `stop`: the start or stop of the server while runs are open.
 * - `worker`: a worker that dies.
 * - `two-owners`: a command that comes to a process that does not own its shard.
 * - `share`: a second owner that comes, with which shards are shared.
 */
type Trigger = Kind | "lost-commit" | "damage" | "start" | "stop" | "worker" | "two-owners" | "share";

/** What runs, and by what name. */
type Kind = "run" | "turn" | "wait" | "cancel" | "model";

/** Every place there is, so that none is forgotten. */
const triggers: Readonly<Record<Failpoint, Trigger>> = {
  "journal.append": "run",
  "journal.position": "lost-commit",
  "journal.heads": "lost-commit",
  "journal.load": "turn",
  "journal.list-open": "start",
  "session.create": "turn",
  "run.load": "start",
  "run.list-running": "start",
  "run.list-due": "wait",
  "run.next-due": "start",
  "run.park": "damage",
  "payload.keep": "wait",
  "payload.load": "wait",
  "writer.register": "start",
  "writer.claim": "run",
  "writer.release": "share",
  "writer.retire": "stop",
  "writer.purge": "run",
  "inbox.put": "two-owners",
  "inbox.reply": "two-owners",
  "inbox.waiting": "two-owners",
  "principal.check": "start",
  "model.call": "model",
  "tool.resolve": "run",
  "tool.execute": "run",
  "tool.cancel": "cancel",
  "relay.read": "run",
  "relay.publish": "run",
  "relay.mark": "run",
  "call.begin": "run",
  "call.dispatch": "run",
  "call.read": "run",
  "call.cancel": "cancel",
  "call.end-cancelled": "cancel",
  "call.output": "run",
  "call.end": "run",
  "call.sweep": "run",
  "worker.connect": "start",
  "worker.disconnect": "worker",
  "worker.heartbeat": "run",
  "worker.news": "run",
  "worker.fill": "run",
  "worker.end-expired": "run",
};

/** The places that a process of a topology can come to: all but two in one process, the others in the mesh. */
export function placesOf(topology: Topology): readonly Failpoint[] {
  const all = Object.keys(places) as Failpoint[];
  return all.filter((name) => ["two-owners", "share"].includes(triggers[name]) === (topology === "mesh"));
}

export interface FailpointsOptions {
  readonly topology: Topology;
  readonly names: readonly Failpoint[];
  readonly actions: readonly FailpointAction[];
  readonly times: number;
  /** Whether the places of a start fail in one and the same start; for actions that a process survives. */
  readonly startsTogether?: boolean;
  /** Settings and environment of the server. */
  readonly settings?: Readonly<Record<string, string>>;
}

/** What was done how often, and the verdict on each kind of run. */
export interface FailpointsResult {
  /** By `place action`. */
  readonly fired: ReadonlyMap<string, number>;
  readonly verdicts: readonly Verdict[];
  /** Runs that had not ended two minutes after what was done to them, and what that was. */
  readonly stalled: readonly string[];
}

const workloads: Readonly<Record<Kind, Workload>> = {
  run: runWorkload({ stepMs: 10 }),
  turn: turnWorkload({ rounds: 2, fanOut: 3, stepMs: 10 }),
  wait: waitingWorkload({ stepMs: 10 }),
  // Its tool works longer than a cancellation waits.
  cancel: runWorkload({ shape: "one", stepMs: 4_000 }),
  model: modelWorkload("remote"),
};
const kinds = Object.keys(workloads) as Kind[];
/** How long a place may take to be reached. */
const firedWithinMs = 150_000;
/** What one meets who tells something to a process that dies. */
const killedMeanwhile: ReadonlySet<string> = new Set(["ENOENT", "ECONNREFUSED", "ECONNRESET", "EPIPE"]);
/** How long an owner may take to give shards to one that joined, and the one that joined to start. */
const sharedWithinMs = 30_000;

/** Has every named place fail in every named way, so often each, under runs that must not mind. */
export async function failpoints(options: FailpointsOptions): Promise<FailpointsResult> {
  const { topology, names, actions, times, startsTogether = false, settings = {} } = options;
  const random = seededRandom(`failpoints ${topology}`);
  const startedMs = performance.now();
  await using opened = new AsyncDisposableStack();
  const points = openFailpoints();
  opened.defer(() => points.dispose());
  const model = await startOpenAiServer();
  opened.defer(() => model.close());
  let keep = true;
  const world = await startFaultWorld({
    name: "failpoints",
    topology,
    // Fewer places than a fan-out has calls: one waits, and is handed out by itself.
    concurrency: 1,
    settings: {
      ...joined(points.environment, settings),
      CADRE_OPENAI_BASE_URL: model.baseUrl,
      CADRE_OPENAI_API_KEY: openAiTestKey,
      CADRE_OPENAI_MODELS: "test",
    },
  });
  opened.defer(() => world.dispose(keep));
  await world.cadre.agents.register({ name: "remote", model: "openai/test", instructions: "Answer." });

  const scene = new Scene(world, points, topology, random);
  const atStart = names.filter((name) => startsTogether && triggers[name] === "start");
  const others = names.filter((name) => !atStart.includes(name));
  const plays = [...(atStart.length > 0 ? [atStart] : []), ...others.map((name) => [name])];
  for (let time = 0; time < times; time += 1) {
    for (const places of plays) {
      for (const action of actions) {
        const trigger = triggerOf(places);
        if (trigger === "model") {
          // One for each attempt that there may be.
          model.answers.splice(0, Infinity, ...Array.from({ length: 8 }, () => ({ parts: [{ text: "done" }] })));
        }
        await scene.play(places, action, random.between(1, trigger === "run" ? 3 : 1));
      }
    }
  }
  const verdicts: Verdict[] = [];
  for (const kind of kinds) {
    const only = (run: string): boolean => run.startsWith(`${kind}-`);
    const expected = kind === "cancel" ? ("cancelled" as const) : ("succeeded" as const);
    verdicts.push(await world.judge(workloads[kind], { floor: scene.counts[kind], only, expected }));
  }
  const fired = new Map<string, number>();
  for (const { name, action } of points.fired()) {
    fired.set(`${name} ${action}`, (fired.get(`${name} ${action}`) ?? 0) + 1);
  }
  say(`${points.fired().length} failures in ${Math.round((performance.now() - startedMs) / 1_000)} s`);
  for (const verdict of verdicts) say(describeVerdict(verdict));
  for (const run of scene.stalled) say(`  stalled: ${run}`);
  keep = scene.stalled.length > 0 || verdicts.some(({ problems }) => problems.length > 0);
  return { fired, verdicts, stalled: scene.stalled };
}

/** Both environments; each may have a hook for Node's start. */
function joined(
  first: Readonly<Record<string, string>>,
  second: Readonly<Record<string, string>>,
): Readonly<Record<string, string>> {
  const hooks = [first["NODE_OPTIONS"], second["NODE_OPTIONS"]].filter((options) => options !== undefined);
  return { ...first, ...second, NODE_OPTIONS: hooks.join(" ") };
}

/** What brings a process to all of these places. */
function triggerOf([name]: readonly Failpoint[]): Trigger {
  if (name === undefined) throw new InfrastructureError("no place is named");
  return triggers[name];
}

/** Brings the server to one place after the other. */
class Scene {
  readonly counts: Record<Kind, number> = { run: 0, turn: 0, wait: 0, cancel: 0, model: 0 };
  readonly #world: FaultWorld;
  readonly #points: Failpoints;
  readonly #topology: Topology;
  readonly #random: Random;
  readonly stalled: string[] = [];
  #damaged = 0;
  #doing = "";

  constructor(world: FaultWorld, points: Failpoints, topology: Topology, random: Random) {
    this.#world = world;
    this.#points = points;
    this.#topology = topology;
    this.#random = random;
  }

  /** Has places fail, and waits until the server serves again and the runs of the scene have ended. */
  async play(names: readonly Failpoint[], action: FailpointAction, nth: number): Promise<void> {
    const what = `${names.join(" and ")} ${action}`;
    const before = this.#points.fired().length;
    const isDone = (): boolean => {
      const fired = this.#points.fired().slice(before);
      return names.every((name) => fired.some((one) => one.name === name));
    };
    const orders = names.map((name) => ({ name, action, nth }));
    const trigger = triggerOf(names);
    this.#world.note(what);
    this.#doing = what;
    const pids = trigger === "start" || trigger === "damage" ? [] : await this.#owners();
    for (const pid of pids) {
      if (trigger === "lost-commit") await this.#points.arm(pid, { name: "journal.append", action: "lose", nth: 1 });
      for (const order of orders) await this.#tell(pid, order);
    }
    let run: Promise<unknown> = Promise.resolve();
    switch (trigger) {
      case "start":
        this.#points.armAtStart(...orders);
        run = Promise.all((await this.#open()).map((end) => end()));
        await this.#world.restartServer();
        break;
      case "damage":
        await this.#damage();
        this.#points.armAtStart(...orders);
        await this.#world.restartServer();
        break;
      case "stop":
        run = this.#run("run");
        await this.#world.server.stop();
        await this.#world.restartServer();
        break;
      case "worker":
        await this.#world.killWorker(0);
        break;
      case "share":
        await this.#shareUntil(pids[1], what, isDone);
        break;
      default:
        await this.#runUntil(kinds.find((kind) => kind === trigger) ?? "turn", what, isDone);
    }
    await reach(what, isDone, { timeoutMs: firedWithinMs, everyMs: 5 });
    await this.#revive();
    await run;
    // Of two that were told one may not have come there.
    for (const pid of this.#topology === "mesh" ? this.#world.orchestrators() : []) {
      for (const order of orders) await this.#tell(pid, { ...order, nth: 0 });
    }
  }

  /** Tells a process what to do; it may do it, and be dead by that, before it answers. */
  async #tell(pid: number, order: Armed): Promise<void> {
    await this.#points.arm(pid, order).catch((error: NodeJS.ErrnoException) => {
      if (!killedMeanwhile.has(error.code ?? "")) throw error;
    });
  }

  /** Starts runs, one after the other, until the place was reached. */
  async #runUntil(kind: Kind, what: string, isDone: () => boolean): Promise<void> {
    const deadline = performance.now() + firedWithinMs;
    while (!isDone() && performance.now() < deadline) {
      const run = this.#run(kind);
      run.catch(() => undefined); // thrown below
      await Promise.race([run, reach(what, isDone, { timeoutMs: firedWithinMs, everyMs: 5 })]);
      if (isDone()) await this.#revive();
      await run;
    }
  }

  /**
   * Kills the other owner until the first has to give shards to its successor: the successor may also be there in time
   * to take over what the dead one had, and then there is nothing to give.
   */
  async #shareUntil(giver: number | undefined, what: string, isDone: () => boolean): Promise<void> {
    const deadline = performance.now() + firedWithinMs;
    while (!isDone() && performance.now() < deadline) {
      const owners = await this.#owners();
      if (giver === undefined || !owners.includes(giver))
        throw new InfrastructureError(`${what}: the one that was told is gone`);
      for (const pid of owners) {
        if (pid !== giver) process.kill(pid, "SIGKILL");
      }
      const again = performance.now() + sharedWithinMs;
      await reach(what, () => isDone() || performance.now() > again, { everyMs: 5 });
    }
  }

  /** Starts the server again if it has died of what it was told. */
  async #revive(): Promise<void> {
    const last = this.#points.fired().at(-1);
    if (last?.pid === this.#world.server.pid && last.action.startsWith("exit")) await this.#world.restartServer();
  }

  /** One run from its start to its end. */
  async #run(kind: Kind): Promise<void> {
    const end = await this.#begin(kind);
    await end();
  }

  /** Runs that are stored and have not ended; each resolves at its end. */
  async #open(): Promise<readonly (() => Promise<void>)[]> {
    return [await this.#begin("run"), await this.#begin("turn")];
  }

  /** Begins a run; resolves when it is stored. */
  async #begin(kind: Kind): Promise<() => Promise<void>> {
    const { cadre } = this.#world;
    const workload = workloads[kind];
    const run = `${kind}-${this.counts[kind]}`;
    this.counts[kind] += 1;
    const id = await this.#world.start(workload, run);
    return async () => {
      if (kind === "cancel") {
        await reach(`the tool of ${run}`, () => this.#world.ledger.records().some((record) => record.run === run));
        await insist(() => workload.cancel(cadre, id));
      }
      const { state } = (await workload.history(cadre, id, AbortSignal.timeout(120_000))) ?? { state: "gone" };
      if (state === "open") this.stalled.push(`${run} after ${this.#doing}`);
    };
  }

  /** Damages the journal of a run that is open, and leaves the server killed. */
  async #damage(): Promise<void> {
    this.#damaged += 1;
    const run = `damaged-${this.#damaged}`;
    const id = await this.#world.start(workloads.cancel, run);
    await reach(`the tool of ${run}`, () => this.#world.ledger.records().some((record) => record.run === run));
    await this.#world.server.kill();
    const database = await connectToEmbedded(this.#world.server.dataDirectory);
    try {
      const stored = (await readStoredRuns(database, [id])).get(id);
      if (stored === undefined) throw new InfrastructureError(`${run} is not stored`);
      await changeByte(database, this.#random, stored);
    } finally {
      await database.end();
    }
  }

  /** The processes that own shards and can be told something: the server, or both orchestrators of the mesh. */
  async #owners(): Promise<readonly number[]> {
    if (this.#topology === "dev") return [this.#world.server.pid];
    let pids: readonly number[] = [];
    await reach("two orchestrators", async () => {
      pids = this.#world.orchestrators();
      const asked = await Promise.allSettled(pids.map((pid) => this.#points.hits(pid)));
      const owning = asked.filter(({ status, ...rest }) => {
        const value = "value" in rest ? (rest.value as Awaited<ReturnType<Failpoints["hits"]>>) : {};
        return status === "fulfilled" && (value["writer.claim"] ?? 0) > 0;
      });
      return owning.length === 2;
    });
    return pids;
  }
}
