/** The definition of the tool of `ledger-worker-process.ts`. */
export const ledgerTool = {
  name: "record",
  description: "Writes a line into the ledger.",
  inputSchema: {
    type: "object",
    properties: { run: { type: "string" }, step: { type: "string" }, ms: { type: "number" } },
    required: ["run", "step", "ms"],
  },
  sideEffects: "effectful" as const,
  // Longer than the longest outage of a test, after which its result is taken.
  timeoutMs: 120_000,
};
