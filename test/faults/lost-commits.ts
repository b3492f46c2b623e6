import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pino from "pino";
import { startEmbeddedPostgres } from "../../services/runtime/postgres/embedded-server.ts";
import { describeVerdict, type Verdict } from "../support/checker.ts";
import { eachAtOnce, InfrastructureError, say, seededRandom } from "../support/fault-driver.ts";
import { startFaultWorld } from "../support/fault-world.ts";
import { type CommitKind, startPostgresCutProxy } from "../support/postgres-cut-proxy.ts";
import type { Workload } from "../support/workload.ts";

export interface LostCommitsOptions {
  readonly workload: Workload;
  /** Runs at least. */
  readonly runs: number;
  /** Connections to cut, by what was committed. */
  readonly cuts: Readonly<Record<CommitKind, number>>;
  readonly settings?: Readonly<Record<string, string>>;
}

export interface LostCommitsResult {
  readonly cuts: Readonly<Record<CommitKind, number>>;
  readonly verdict: Verdict;
}

const atOnce = 8;
/** Of so many commits one loses its answer. */
const oneOf: Readonly<Record<CommitKind, number>> = { append: 8, commit: 12 };
/** If it takes more than that often the runs that were wanted, something is wrong with the cutting. */
const maxRunsTimes = 10;

/**
 * Cuts connections to PostgreSQL at the moment at which it has committed and
 * says so: by `append`, which writes the journal, and by transactions of all services.
 */
export async function lostCommits(options: LostCommitsOptions): Promise<LostCommitsResult> {
  const { workload, runs, cuts: wanted } = options;
  const random = seededRandom("lost commits");
  const startedMs = performance.now();
  await using opened = new AsyncDisposableStack();
  const directory = mkdtempSync(join(tmpdir(), "cadre lost "));
  opened.defer(() => rmSync(directory, { recursive: true, force: true }));
  const postgres = await startEmbeddedPostgres({ dataDirectory: directory, log: pino({ level: "silent" }) });
  opened.defer(() => postgres.stop());
  const url = new URL(postgres.url);
  let isCutting = false;
  const proxy = await startPostgresCutProxy(
    { host: url.hostname, port: Number(url.port) },
    (kind) => isCutting && proxy.cuts[kind] < wanted[kind] && random.between(1, oneOf[kind]) === 1,
  );
  opened.defer(() => proxy.close());
  url.port = String(proxy.port);
  let keep = true;
  const world = await startFaultWorld({
    name: "lost commits",
    settings: { ...options.settings, CADRE_DATABASE_URL: url.href },
  });
  opened.defer(() => world.dispose(keep));
  isCutting = true;
  const isDone = (): boolean => proxy.cuts.append >= wanted.append && proxy.cuts.commit >= wanted.commit;
  let started = 0;
  function* names(): Generator<string> {
    while (started < runs || !isDone()) {
      if (started === runs * maxRunsTimes) {
        throw new InfrastructureError(`only ${JSON.stringify(proxy.cuts)} were cut in ${started} runs`);
      }
      yield `run-${started++}`;
    }
  }
  await eachAtOnce(names(), atOnce, async (run) => {
    const id = await world.start(workload, run);
    await workload.history(world.cadre, id, AbortSignal.timeout(60_000));
  });
  isCutting = false;
  const verdict = await world.judge(workload, { floor: runs });
  say(`${JSON.stringify(proxy.cuts)} cut in ${Math.round((performance.now() - startedMs) / 1_000)} s`);
  say(describeVerdict(verdict));
  keep = verdict.problems.length > 0;
  return { cuts: { ...proxy.cuts }, verdict };
}
