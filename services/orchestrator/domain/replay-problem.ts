import { canonicalJson } from "../../runtime/json-schema/canonical-json.ts";
import type { EntryBody, Payload } from "./entry.ts";
import type { Json } from "./json.ts";

/** What is wrong with an entry. */
export interface Problem {
  readonly message: string;
  readonly expected: string;
  readonly found: string;
}

/** An entry that has to come next. */
export interface Expected {
  /** What it is, in words. */
  readonly what: string;
  matches(body: EntryBody): boolean;
}

/** An entry in a few words, without what it carries. */
export function wordsOf(body: EntryBody): string {
  const place = "place" in body ? placeWords(body.place) : "stepId" in body ? ` ${body.stepId}` : "";
  const attempt = "attempt" in body && body.attempt > 0 ? `, attempt ${body.attempt}` : "";
  switch (body.type) {
    case "graph.ended":
    case "run.ended":
      return `${body.type}: ${body.end.state}`;
    case "step.waiting":
      return `${body.type}${place} for ${body.wait.for}`;
    case "graph.step.failed":
      return `${body.type}${place}${attempt}: ${body.error.reason}${body.retryAtMs === undefined ? ", for good" : ""}`;
    case "run.failing":
      return `${body.type}: ${body.step} ${body.error.reason}`;
    default:
      return `${body.type}${place}${attempt}`;
  }
}

function placeWords({ name, index, compensation }: Extract<EntryBody, { place: unknown }>["place"]): string {
  return ` ${compensation ? "compensation of " : ""}${name}${index === undefined ? "" : `[${index}]`}`;
}

/** Whether two JSON values are the same. */
export function isSame(a: Json, b: Json): boolean {
  return canonicalJson(a as never) === canonicalJson(b as never);
}

/** The value of a payload that was read. */
export function valueOf(payload: Payload | undefined): Json {
  return payload?.value ?? null;
}
