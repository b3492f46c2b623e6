import type { Payloads } from "../../store/payloads.ts";
import type { TurnServices } from "../turn-context.ts";

/** What the steps of graphs work with. */
export interface GraphServices extends TurnServices {
  readonly payloads: Payloads;
  /** Milliseconds since the epoch, on the database's clock. */
  readonly now: () => number;
}
