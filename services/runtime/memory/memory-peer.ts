import type { ConnectError } from "@connectrpc/connect";
import type { ServedMethod } from "../rpc/invoke.ts";
import type { Roster } from "../rpc/roster.ts";
import type { Handed } from "./memory-codec.ts";

/** A served peer, as its callers in the same process find it. */
export interface MemoryPeer {
  /** Its methods by path. */
  readonly methods: ReadonlyMap<string, ServedMethod<Handed>>;
  /** The calls that run; the peer cuts them when it has waited long enough for them. */
  readonly running: Roster<{ cut(failure: ConnectError): void }>;
  /** Is told when a call has ended. */
  onCallEnd(): void;
}
