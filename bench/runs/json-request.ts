import type { RunRequest } from "./contestant.ts";

/** A run that is asked for in JSON, and answers with its last step's output. */
export function jsonRequest(origin: string, path: string): RunRequest {
  return {
    origin,
    path,
    headers: { "content-type": "application/json" },
    body: Buffer.from(JSON.stringify({ text: "hello" })).toString("base64"),
    answer: "JSON",
  };
}
