import type { Json } from "../json.ts";

/** What references and conditions see of a run. */
export interface Scope {
  readonly input: Json;
  /** The output of a step that has ended; null if it was skipped. */
  output(step: string): Json;
  /** The element, in the body of a fan-out. */
  readonly item?: Json;
  /** Its position, from 0. */
  readonly index?: number;
  /** What `output` is: in a compensation what it undoes, in a condition what the edge's step gave. */
  readonly own?: Json;
}

/** What a reference or condition may name besides `input` and `steps`. */
export type OwnName = "item" | "index" | "output";
