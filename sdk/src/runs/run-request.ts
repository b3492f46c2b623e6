import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { TokenService } from "@cadre/gen/cadre/credentials/v1/token_pb";
import { RunRequestSchema } from "@cadre/gen/cadre/events/v1/run_request_pb";
import type { StartRunRequestSchema } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { type Caller, type CallOptions, newIdempotencyKey, required } from "../caller.ts";

/**
 * A request for a run, signed for who asked, ready for the topic
 * `agent.runs.requested.v1`: what `RunRequested` carries besides its metadata.
 */
export interface SignedRunRequest {
  /** The caller's org: the org of the fact, of its envelope and of its key. */
  readonly orgId: string;
  /** A `RunRequest` in Protobuf's bytes. Publish them as they are: the token is for them. */
  readonly request: Uint8Array<ArrayBuffer>;
  /** Good for these bytes only. A secret until it ends. */
  readonly token: string;
  /** Until when a server must have read the request. */
  readonly expiresAt: Date;
  /** Makes one run of it, however often it is published; the run has it as the label `cadre.request`. */
  readonly idempotencyKey: string;
}

/** Signs a request. @throws CadreError `SCOPE_MISSING` without the scope `runs.write` */
export async function signRunRequest(
  caller: Caller,
  run: MessageInitShape<typeof StartRunRequestSchema>,
  { idempotencyKey = newIdempotencyKey(), ...options }: CallOptions & { readonly idempotencyKey?: string | undefined },
): Promise<SignedRunRequest> {
  // Its end is stated with its output, and it is found by its key.
  const labels = { ...run.labels, "cadre.publish": "output", "cadre.request": idempotencyKey };
  const message = create(RunRequestSchema, { run: { ...run, labels }, idempotencyKey });
  const request = toBinary(RunRequestSchema, message);
  const requestSha256 = new Uint8Array(await crypto.subtle.digest("SHA-256", request));
  const signed = await caller.unary(TokenService.method.signRunRequest, { requestSha256 }, options);
  const expiresAt = timestampDate(required(signed.expiresAt, "the token's end"));
  return { orgId: signed.orgId, request, token: signed.token, expiresAt, idempotencyKey };
}
