import type { JsonObject } from "@bufbuild/protobuf";
import type { RegistrationLimits } from "../domain/limit.ts";
import type { DigestedDefinition } from "./tool-store.ts";

/** Who acts for a worker: only the principal that connected it may. Ids are UUIDs. */
export interface WorkerIdentity {
  readonly orgId: string;
  readonly workerId: string;
  readonly subject: string;
}

export interface ConnectWorker {
  readonly orgId: string;
  readonly subject: string;
  readonly name: string;
  readonly concurrency: number;
  readonly definitions: readonly DigestedDefinition[];
  /** Whether definitions may be registered that the org does not have. */
  readonly mayAddDefinitions: boolean;
  /** The registration to continue; `undefined` for a new one. */
  readonly workerId: string | undefined;
  /** The new stream; it takes over from one that is there. */
  readonly streamId: string;
  /** The hand-outs that the worker still runs. */
  readonly running: readonly string[];
  /** Workers that the org may have at once, with a new one. */
  readonly maxWorkers: number;
  readonly limits: RegistrationLimits;
}

/** A call that a worker is to be told of. */
export interface HandedCall {
  readonly callId: string;
  readonly handoutId: string;
  readonly toolId: string;
  readonly digest: string;
  readonly arguments: JsonObject;
  /** As the caller gave it. */
  readonly key: string;
  readonly attempt: number;
  readonly deadline: Date;
  /** How long the worker may say nothing of the call; `undefined` for as long as its lease. */
  readonly heartbeatTimeoutMs: number | undefined;
  readonly runId: string;
  readonly traceparent: string;
  readonly requestId: string;
}

/** What a worker's stream has to say. */
export type WorkerNews =
  | {
      readonly type: "calls";
      /** Calls that are the worker's and that the stream has not sent. */
      readonly handed: readonly HandedCall[];
      /** Hand-outs that the stream has sent and that should stop. */
      readonly cancelled: readonly string[];
      /** Hand-outs that the stream has not sent and that should not begin. */
      readonly unsent: readonly string[];
      /** All hand-outs that take a place at the worker. */
      readonly held: readonly string[];
      readonly draining: boolean;
    }
  /** Another stream of the same worker has taken over. */
  | { readonly type: "superseded" }
  /** The registration has ended. */
  | { readonly type: "gone" };

/** The workers that are connected, and the calls they hold. */
export interface WorkerStore {
  /**
   * Registers a worker with its definitions, or gives a registration another
   * stream, in one transaction. A new worker's definitions become those in
   * force; one that continues leaves them as they are, unless they are new.
   *
   * @throws AppError WORKER_NOT_FOUND if the registration to continue has ended
   * or is another principal's; SCOPE_MISSING; LIMIT_EXCEEDED
   */
  connect(worker: ConnectWorker): Promise<{ readonly workerId: string }>;
  /** Says that a stream has ended. The registration stays until its lease ends. */
  disconnect(workerId: string, streamId: string): Promise<void>;
  /**
   * Renews the lease. Calls that were handed out longer than a lease ago and
   * are not in `running` are the worker's no more.
   *
   * @returns the hand-outs in `running` that should stop
   * @throws AppError WORKER_NOT_FOUND
   */
  heartbeat(worker: WorkerIdentity, running: readonly string[]): Promise<readonly string[]>;
  /** Gives the worker no more calls. Throws AppError WORKER_NOT_FOUND. */
  drain(worker: WorkerIdentity): Promise<void>;
  /** What to tell a worker, beyond the hand-outs that its stream has `sent`. */
  news(workerId: string, streamId: string, sent: readonly string[]): Promise<WorkerNews>;
  /** Hands queued calls to a worker, as many as it has places for. Returns how many. */
  fill(workerId: string): Promise<number>;
  /**
   * Ends the registrations whose lease is over, by the database's clock. Their
   * calls are queued again, or end if they were cancelled or lost too often.
   */
  endExpired(): Promise<void>;
}
