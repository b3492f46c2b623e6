import { type Failpoint, failpoints as places } from "../../services/runtime/failpoint/failpoint.ts";
import type { Topology } from "../support/cadre.ts";
import { describeVerdict, type Verdict } from "../support/checker.ts";
import { type FailpointAction, type Failpoints, openFailpoints } from "../support/failpoints.ts";
import { reach, say, seededRandom } from "../support/fault-driver.ts";
import { type FaultWorld, startFaultWorld } from "../support/fault-world.ts";
import { insist } from "../support/insist.ts";
import { openAiTestKey, startOpenAiServer } from "../support/openai-server.ts";
import { modelWorkload, turnWorkload } from "../support/turn-workload.ts";

/**
 * What brings a process to a place:
 *
 * - `run`: a run; time alone, too, for what is done every few seconds.
 * - `cancel`: a run that is cancelled while a tool works that does not heed it.
 * - `lost-commit`: a commit whose answer got lost.
 * - `model`: a run that asks a model over the network.
 * - `start`, `stop`: the start or stop of the server while a run is open.
 * - `worker`: a worker that dies.
 * - `two-owners`: a command that comes to a process that does not own its shard.
 * - `share`: a second owner that comes, with which shards are shared.
 */
type Trigger = "run" | "cancel" | "lost-commit" | "model" | "start" | "stop" | "worker" | "two-owners" | "share";

/** Every place there is, so that none is forgotten. */
const triggers: Readonly<Record<Failpoint, Trigger>> = {
  "journal.append": "run",
  "journal.position": "lost-commit",
  "journal.heads": "lost-commit",
  "journal.load": "run",
  "journal.list-open": "start",
  "session.create": "run",
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
}

/** What was done how often, and the verdict on each kind of run. */
export interface FailpointsResult {
  /** By `place action`. */
  readonly fired: ReadonlyMap<string, number>;
  readonly verdicts: readonly Verdict[];
}

const short = turnWorkload({ rounds: 2, fanOut: 3, stepMs: 10 });
/** Its tools work longer than a cancellation waits. */
const slow = turnWorkload({ rounds: 1, fanOut: 1, stepMs: 4_000 });
const remote = modelWorkload("remote");
/** How long a place may take to be reached. */
const firedWithinMs = 30_000;

/** Has every named place fail in every named way, so often each, under runs that must not mind. */
export async function failpoints(options: FailpointsOptions): Promise<FailpointsResult> {
  const { topology, names, actions, times } = options;
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
    settings: {
      ...points.environment,
      CADRE_OPENAI_BASE_URL: model.baseUrl,
      CADRE_OPENAI_API_KEY: openAiTestKey,
      CADRE_OPENAI_MODELS: "test",
    },
  });
  opened.defer(() => world.dispose(keep));
  await world.cadre.agents.register({ name: "remote", model: "openai/test", instructions: "Answer." });

  const scene = new Scene(world, points, topology);
  for (let time = 0; time < times; time += 1) {
    for (const name of names) {
      for (const action of actions) {
        if (triggers[name] === "model") {
          // One for each attempt that there may be.
          model.answers.splice(0, Infinity, ...Array.from({ length: 8 }, () => ({ parts: [{ text: "done" }] })));
        }
        await scene.play(name, action, random.between(1, triggers[name] === "run" ? 3 : 1));
      }
    }
  }
  const verdicts = [
    await world.judge(short, { floor: scene.counts.run, only: (run) => run.startsWith("run-") }),
    await world.judge(slow, {
      floor: scene.counts.cancel,
      only: (run) => run.startsWith("cancel-"),
      expected: "cancelled",
    }),
    await world.judge(remote, { floor: scene.counts.model, only: (run) => run.startsWith("model-") }),
  ];
  const fired = new Map<string, number>();
  for (const { name, action } of points.fired()) {
    fired.set(`${name} ${action}`, (fired.get(`${name} ${action}`) ?? 0) + 1);
  }
  say(`${points.fired().length} failures in ${Math.round((performance.now() - startedMs) / 1_000)} s`);
  for (const verdict of verdicts) say(describeVerdict(verdict));
  keep = verdicts.some(({ problems }) => problems.length > 0);
  return { fired, verdicts };
}

/** Brings the server to one place after the other. */
class Scene {
  readonly counts = { run: 0, cancel: 0, model: 0 };
  readonly #world: FaultWorld;
  readonly #points: Failpoints;
  readonly #topology: Topology;

  constructor(world: FaultWorld, points: Failpoints, topology: Topology) {
    this.#world = world;
    this.#points = points;
    this.#topology = topology;
  }

  /** Has a place fail, and waits until the server serves again and the runs of the scene have ended. */
  async play(name: Failpoint, action: FailpointAction, nth: number): Promise<void> {
    const what = `${name} ${action}`;
    const before = this.#points.fired().length;
    const isDone = (): boolean =>
      this.#points
        .fired()
        .slice(before)
        .some((fired) => fired.name === name);
    const order = { name, action, nth };
    const trigger = triggers[name];
    this.#world.note(what);
    const pids = trigger === "start" ? [] : await this.#owners();
    for (const pid of pids) {
      if (trigger === "lost-commit") await this.#points.arm(pid, { name: "journal.append", action: "lose", nth: 1 });
      await this.#points.arm(pid, order);
    }
    let run: Promise<void> = Promise.resolve();
    switch (trigger) {
      case "start":
        this.#points.armAtStart(order);
        run = this.#run("run");
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
      case "share": {
        const [victim] = pids;
        if (victim !== undefined) process.kill(victim, "SIGKILL");
        break;
      }
      default:
        await this.#runUntil(trigger === "cancel" || trigger === "model" ? trigger : "run", what, isDone);
    }
    await reach(what, isDone, { timeoutMs: firedWithinMs, everyMs: 5 });
    await this.#revive();
    await run;
    // Of two that were told one may not have come there.
    for (const pid of this.#topology === "mesh" ? this.#world.orchestrators() : []) {
      await this.#points.arm(pid, { ...order, nth: 0 }).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== "ENOENT" && error.code !== "ECONNREFUSED") throw error; // killed meanwhile
      });
    }
  }

  /** Starts runs, one after the other, until the place was reached. */
  async #runUntil(kind: keyof Scene["counts"], what: string, isDone: () => boolean): Promise<void> {
    const deadline = performance.now() + firedWithinMs;
    while (!isDone() && performance.now() < deadline) {
      const run = this.#run(kind);
      run.catch(() => undefined); // thrown below
      await Promise.race([run, reach(what, isDone, { timeoutMs: firedWithinMs, everyMs: 5 })]);
      if (isDone()) await this.#revive();
      await run;
    }
  }

  /** Starts the server again if it has died of what it was told. */
  async #revive(): Promise<void> {
    const last = this.#points.fired().at(-1);
    if (last?.pid === this.#world.server.pid && last.action.startsWith("exit")) await this.#world.restartServer();
  }

  /** One run from its start to its end. */
  async #run(kind: keyof Scene["counts"]): Promise<void> {
    const { cadre } = this.#world;
    const workload = { run: short, cancel: slow, model: remote }[kind];
    const run = `${kind}-${this.counts[kind]}`;
    this.counts[kind] += 1;
    const id = await this.#world.start(workload, run);
    if (kind === "cancel") {
      await reach(`the tool of ${run}`, () => this.#world.ledger.records().some((record) => record.run === run));
      await insist(() => workload.cancel(cadre, id));
    }
    const { state } = (await workload.history(cadre, id, AbortSignal.timeout(60_000))) ?? { state: "gone" };
    if (state === "open") say(`${run} has not ended after a minute`);
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
