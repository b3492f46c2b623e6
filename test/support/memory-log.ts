import type { BusEvent } from "../../services/runtime/bus/event-bus.ts";
import type { RelayBatch, RelaySource } from "../../services/runtime/bus/relay.ts";

/** A log in memory that keeps what a killed relay would find again. */
export class MemoryLog implements RelaySource {
  /** By position less one; some entries state nothing. */
  readonly entries: (BusEvent | undefined)[] = [];
  relayed = 0n;

  add(made: BusEvent | undefined): void {
    this.entries.push(made);
  }

  async read(limit: number): Promise<RelayBatch | undefined> {
    const end = Math.min(Number(this.relayed) + limit, this.entries.length);
    if (end === Number(this.relayed)) return undefined;
    const events = this.entries.slice(Number(this.relayed), end).filter((made) => made !== undefined);
    return { events, position: BigInt(end), more: end < this.entries.length };
  }

  async markRelayed(position: bigint): Promise<void> {
    this.relayed = position;
  }

  async lag(): Promise<bigint> {
    return BigInt(this.entries.length) - this.relayed;
  }
}
