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
  timeoutMs: 60_000,
};
