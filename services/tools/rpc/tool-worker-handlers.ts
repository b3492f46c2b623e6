import { ToolWorkerService } from "@cadre/gen/cadre/tools/v1/tool_worker_pb";
import type { HandlerContext } from "@connectrpc/connect";
import { coversScope, coversTool } from "../../runtime/identity/scope.ts";
import { fromUuid, toUuid } from "../../runtime/ids/id.ts";
import { type Implementation, implement } from "../../runtime/rpc/implementation.ts";
import { requirePrincipal } from "../../runtime/rpc/request-context.ts";
import { connectWorker } from "../app/connect-worker.ts";
import type { ToolsDeps } from "../app/deps.ts";
import { reportResult } from "../app/report-result.ts";
import type { WorkerIdentity } from "../store/worker-store.ts";
import { toConnectResponse, toDefinition, toReported } from "./convert.ts";

/** What workers need. The ids that they are given for calls name hand-outs. */
export function toolWorkerHandlers(deps: ToolsDeps): Implementation<typeof ToolWorkerService> {
  return implement(ToolWorkerService, {
    async *connect(request, context) {
      const principal = requirePrincipal(context);
      const offer = {
        orgId: toUuid("org", principal.orgId),
        principal,
        name: request.name,
        concurrency: request.concurrency,
        definitions: request.tools.map(toDefinition),
        mayServe: (tool: string) => coversTool(principal, tool),
        mayRegister: coversScope(principal.scopes, "tools.write"),
        workerId: request.workerId === "" ? undefined : toUuid("wrk", request.workerId),
        running: request.callIds.map((callId) => toUuid("call", callId)),
      };
      for await (const message of connectWorker(deps, offer, context.signal)) yield toConnectResponse(message);
    },
    async reportOutput({ workerId, callId, seq, output }, context) {
      const report = { ...identity(workerId, context), handoutId: toUuid("call", callId) };
      return { cancelled: await deps.calls.appendOutput(report, seq, output) };
    },
    async reportResult({ workerId, callId, outcome }, context) {
      const report = { ...identity(workerId, context), handoutId: toUuid("call", callId) };
      await reportResult(deps, report, toReported(outcome));
      return {};
    },
    async heartbeat({ workerId, callIds }, context) {
      const worker = identity(workerId, context);
      const stop = await deps.workers.heartbeat(
        worker,
        callIds.map((callId) => toUuid("call", callId)),
      );
      await deps.workers.fill(worker.workerId);
      return { cancelledCallIds: stop.map((handoutId) => fromUuid("call", handoutId)) };
    },
    async drain({ workerId }, context) {
      await deps.workers.drain(identity(workerId, context));
      return {};
    },
  });
}

function identity(workerId: string, context: HandlerContext): WorkerIdentity {
  const { orgId, subject } = requirePrincipal(context);
  return { orgId: toUuid("org", orgId), workerId: toUuid("wrk", workerId), subject };
}
