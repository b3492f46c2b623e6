/**
 * An orchestrator in a process of its own, for tests that kill it. Its tools
 * append to a witness file, each call as one line, and honour the step's key as
 * a tool does that keeps a record: a key that is in the witness is answered
 * without doing it again, unless `WITNESS_IGNORES_KEYS` is set.
 *
 * Started with DATABASE_URL, WITNESS, PRINCIPAL (JSON); reads commands from the
 * parent by IPC: `{ id, method, request, headers }`, and answers `{ id, ok, reason }`.
 */
import { appendFileSync, closeSync, existsSync, fsyncSync, openSync, readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { fromJsonString } from "@bufbuild/protobuf";
import { PrincipalSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { createScriptedModel } from "../../services/orchestrator/models/scripted.ts";
import { toAppError } from "../../services/runtime/errors/failure.ts";
import { FakeTools } from "./fake-tools.ts";
import { startTestOrchestrator } from "./orchestrator.ts";

const {
  DATABASE_URL = "",
  WITNESS = "",
  PRINCIPAL = "",
  WITNESS_IGNORES_KEYS,
  LEASE_MS,
  PREVIOUS_ARE_DEAD,
} = process.env;

function witness(line: string): void {
  const file = openSync(WITNESS, "a");
  appendFileSync(file, `${line}\n`);
  fsyncSync(file);
  closeSync(file);
}

const tools = new FakeTools().add(
  "record",
  async ({ idempotencyKey, arguments: { text, ms } }) => {
    await delay(Number(ms ?? 0));
    const seen = existsSync(WITNESS) && readFileSync(WITNESS, "utf8").includes(idempotencyKey);
    if (!seen || WITNESS_IGNORES_KEYS !== undefined) witness(`${idempotencyKey} ${text}`);
    await delay(Number(ms ?? 0));
    return `recorded ${text}`;
  },
  ["text"],
);

const world = await startTestOrchestrator(
  {
    databaseUrl: DATABASE_URL,
    tools,
    models: [createScriptedModel({ wordMs: 15 })],
    leaseMs: Number(LEASE_MS ?? 1_000),
    previousWritersAreDead: PREVIOUS_ARE_DEAD === "true",
  },
  fromJsonString(PrincipalSchema, PRINCIPAL),
);

interface ParentCommand {
  readonly id: number;
  readonly sessionId: string;
  readonly text: string;
  readonly key: string;
}

process.on("message", (command: ParentCommand) => {
  const { id, sessionId, text, key } = command;
  world.sessions
    .sendTurn({ sessionId, text }, { headers: { "idempotency-key": key } })
    .then(() => process.send?.({ id, ok: true }))
    .catch((error: unknown) => process.send?.({ id, ok: false, reason: toAppError(error).reason }));
});
process.send?.({ ready: true });
