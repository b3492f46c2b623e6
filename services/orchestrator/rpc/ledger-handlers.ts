import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { RunErrorSchema } from "@cadre/gen/cadre/orchestrator/v1/run_event_pb";
import {
  CheckpointSchema,
  ExportRunResponseSchema,
  ReplayRunsResponseSchema,
  RunService,
} from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { AppError } from "../../runtime/errors/app-error.ts";
import { reasonNumber } from "../../runtime/errors/failure.ts";
import { fromUuid, toUuid } from "../../runtime/ids/id.ts";
import type { PageTokens } from "../../runtime/page/page-token.ts";
import { requestContext, requirePrincipal } from "../../runtime/rpc/request-context.ts";
import { chainHash, emptyChain } from "../domain/chain.ts";
import { checkpointsOf } from "../ledger/checkpoint.ts";
import { type ForkRunDeps, forkRun } from "../ledger/fork-run.ts";
import type { LedgerKeys } from "../ledger/ledger-keys.ts";
import { readHistory } from "../ledger/read-history.ts";
import { type ReplayDeps, type ReplayResult, replayExported, replayStored } from "../ledger/replay-run.ts";
import type { RunReadStore, RunRow } from "../store/run-read-store.ts";
import { pageSize } from "./page-size.ts";
import { runNotFound } from "./read-run.ts";
import { toSelection } from "./run-filter.ts";

export interface LedgerHandlerDeps extends ForkRunDeps, Omit<ReplayDeps, keyof ForkRunDeps> {
  readonly runs: Pick<RunReadStore, "find" | "list">;
  readonly pages: PageTokens;
  readonly keys: LedgerKeys;
}

/** The methods of RunService about the ledgers of runs. */
export type LedgerHandlers = Pick<
  ServiceImpl<typeof RunService>,
  "exportRun" | "listLedgerKeys" | "replayRuns" | "listCheckpoints" | "forkRun"
>;

const checkpointsMethod = `${RunService.typeName}/ListCheckpoints`;
/** How many entries, and how many runs, are read at once. */
const pageEntries = 500;
const pageRuns = 100;

/** The handlers about the ledgers of runs. */
export function ledgerHandlers(deps: LedgerHandlerDeps): LedgerHandlers {
  const { runs, pages } = deps;

  async function rowOf(context: HandlerContext, runId: string): Promise<RunRow> {
    const row = await runs.find(orgOf(context), toUuid("run", runId));
    if (row === undefined) throw runNotFound();
    return row;
  }

  return {
    async *exportRun({ runId }, context) {
      const row = await rowOf(context, runId);
      // As it is stored, damaged or not: whoever verifies it is told where. Only what is intact is signed.
      let chain: Uint8Array = emptyChain;
      let intact = 0;
      for (let last = 0; last < row.head && !context.signal.aborted; ) {
        const page = await deps.engine
          .selectFrom("entry")
          .select(["seq", "kind", "body", "hash"])
          .where("run_id", "=", row.runId)
          .where("seq", ">", last)
          .where("seq", "<=", row.head)
          .orderBy("seq")
          .limit(pageEntries)
          .execute();
        for (const { seq, kind, body, hash } of page) {
          const isNext = seq === intact + 1 && isEqual(chainHash(chain, row.runId, seq, kind, body), hash);
          if (isNext) intact = seq;
          chain = hash;
          const isSigned = intact === row.head && isEqual(hash, row.chain);
          yield create(ExportRunResponseSchema, {
            seq: BigInt(seq),
            kind,
            body: Uint8Array.from(body),
            hash: Uint8Array.from(hash),
            signature: isSigned ? deps.keys.sign({ runId, entries: seq, hash }) : "",
          });
        }
        const end = page.at(-1)?.seq;
        if (end === undefined) return;
        last = end;
      }
    },

    async listLedgerKeys() {
      const keys = deps.keys.published().map(({ kid, x }) => ({
        kty: "OKP",
        crv: "Ed25519",
        kid,
        x,
        use: "sig",
        alg: "EdDSA",
      }));
      return { keys };
    },

    async listCheckpoints(request, context) {
      const row = await rowOf(context, request.runId);
      assertOfGraph(row);
      const { orgId } = requirePrincipal(context);
      const scope = { orgId, method: checkpointsMethod, filter: request.runId };
      const after = Number(pages.open(scope, request.pageToken) ?? 0);
      const size = pageSize(request.pageSize);
      const checkpoints = checkpointsOf(await readHistory(deps, row)).slice(after, after + size + 1);
      const page = checkpoints.slice(0, size);
      const versions = await hashesOf(
        deps,
        row,
        page.map(({ seq }) => seq),
      );
      return {
        checkpoints: page.map(({ number, seq, step, atMs }) =>
          create(CheckpointSchema, {
            number,
            seq: BigInt(seq),
            step,
            version: versions.get(seq) ?? "",
            at: timestampFromMs(atMs),
          }),
        ),
        nextPageToken: checkpoints.length > size ? pages.seal(scope, String(after + size)) : "",
      };
    },

    async forkRun(request, context) {
      const row = await rowOf(context, request.runId);
      assertOfGraph(row);
      const asking = { ...requestContext(context.values), principal: requirePrincipal(context) };
      const { outcome } = await forkRun(deps, row, request, asking, context.signal);
      if (outcome.case !== "forkRun") throw new TypeError("a reply to another command");
      return outcome.value;
    },

    async *replayRuns({ selection }, context) {
      const org = orgOf(context);
      if (selection.case === "exported") {
        const { runId, entries } = selection.value;
        const parts = entries.map(({ seq, kind, body, hash }) => ({ seq: Number(seq), kind, body, hash }));
        yield toResponse(runId, await replayExported(deps, org, runId, parts));
        return;
      }
      const caller = { ...requestContext(context.values), principal: requirePrincipal(context) };
      const wanted = toSelection(selection.case === "filter" ? selection.value : undefined);
      for (let before: string | undefined; !context.signal.aborted; ) {
        const page = await runs.list(org, wanted, before, pageRuns);
        for (const row of page) {
          if (context.signal.aborted) return;
          const runId = fromUuid("run", row.runId);
          yield toResponse(runId, await replayStored(deps, row, runId, caller, context.signal));
        }
        before = page.at(-1)?.runId;
        if (page.length < pageRuns) return;
      }
    },
  };
}

/** The hashes of entries, in hexadecimal. */
async function hashesOf(
  { engine }: LedgerHandlerDeps,
  { runId }: RunRow,
  seqs: readonly number[],
): Promise<ReadonlyMap<number, string>> {
  if (seqs.length === 0) return new Map();
  const rows = await engine
    .selectFrom("entry")
    .select(["seq", "hash"])
    .where("run_id", "=", runId)
    .where("seq", "in", seqs)
    .execute();
  return new Map(rows.map(({ seq, hash }) => [seq, Buffer.from(hash).toString("hex")]));
}

function toResponse(runId: string, { entries, error, diff }: ReplayResult) {
  return create(ReplayRunsResponseSchema, {
    runId,
    entries: BigInt(entries),
    diff: [...diff],
    ...(error === undefined
      ? {}
      : { error: create(RunErrorSchema, { reason: reasonNumber(error.reason), message: error.message }) }),
  });
}

function isEqual(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

/** A turn is its session's business. */
function assertOfGraph(row: RunRow): void {
  if (row.sessionId === undefined) return;
  throw new AppError("RUN_OF_SESSION", "the run is a turn of a session", {
    metadata: { session_id: fromUuid("ses", row.sessionId) },
  });
}

/** The UUID of the caller's org. */
function orgOf(context: HandlerContext): string {
  return toUuid("org", requirePrincipal(context).orgId);
}
