import { createInterface, type Interface } from "node:readline";
import {
  type Cadre,
  CadreError,
  type JsonValue,
  jsonOf,
  reasonName,
  type SessionHandle,
  type TurnHandle,
  TurnState,
} from "@cadre/sdk";
import type { Command } from "commander";
import { type ConnectionFlags, connect, withConnection } from "../connection.ts";
import { readSource } from "../definition-file.ts";
import { type ExitCode, exitCode } from "../exit-code.ts";
import { CliError, explain } from "../failure.ts";
import { dim, printable, printJson, printLine, printNotice } from "../output.ts";
import { createTurnView } from "../turn-view.ts";

interface Flags extends ConnectionFlags {
  readonly message?: string;
  readonly agent?: string;
  readonly session?: string;
  readonly onBusy: "reject" | "enqueue" | "interrupt" | "rollback";
  readonly json?: boolean;
}

// A server that is being restarted is back within seconds; a message waits for it.
const patient = { retry: { maxAttempts: 12, initialDelayMs: 200, maxDelayMs: 3_000 } };

/** Adds `cadre chat`. */
export function registerChat(program: Command): void {
  withConnection(program.command("chat"))
    .summary("talk to an agent")
    .description(
      "Talks to an agent. Without --message it is a conversation: Ctrl-C cancels the answer that is being given, and leaves when there is none. A connection that breaks is taken up again.",
    )
    .option("-m, --message <text>", "ask this, print the answer and leave; - for standard input")
    .option("-a, --agent <name>", "the agent; `assistant` unless said")
    .option("-s, --session <id>", "go on with this session, instead of a new one")
    .option("--on-busy <mode>", "while the session runs a turn: reject, enqueue, interrupt or rollback", "reject")
    .option("--json", "with --message: print the turn as JSON on one line")
    .addHelpText(
      "after",
      `
Examples:
  $ cadre chat
  $ cadre chat --agent helper --message "Where is order A-1001?"
  $ git diff | cadre chat --message - --json`,
    )
    .action(async (flags: Flags) => {
      if (!["reject", "enqueue", "interrupt", "rollback"].includes(flags.onBusy)) {
        throw new CliError(exitCode.usage, "--on-busy must be reject, enqueue, interrupt or rollback");
      }
      if (flags.message === undefined && flags.json === true) {
        throw new CliError(exitCode.usage, "--json needs --message");
      }
      const cadre = await connect(flags, patient);
      if (flags.message === undefined) await converse(cadre, flags);
      else process.exitCode = await askOnce(cadre, flags, flags.message);
    });
}

function open(cadre: Cadre, { session, agent }: Flags): Promise<SessionHandle> {
  if (session !== undefined) return cadre.sessions.get(session);
  return cadre.sessions.create(agent === undefined ? {} : { agent });
}

async function askOnce(cadre: Cadre, flags: Flags, message: string): Promise<ExitCode> {
  const text = message === "-" ? await readSource("-") : message;
  if (text.trim() === "") throw new CliError(exitCode.usage, "the message is empty");
  const session = await open(cadre, flags);
  const turn = await session.send(text, { onBusy: flags.onBusy });
  process.once("SIGINT", () => void cancel(turn));
  // Text that may turn out to be void must not get into a pipe: there, only the
  // answer is written, at the end.
  const isLive = process.stdout.isTTY === true && flags.json !== true;
  const view = createTurnView(isLive ? process.stdout : process.stderr, process.stderr);
  const events = turn.events({ onBreak: ({ error }) => view.showBreak(error.message) });
  for await (const event of events) {
    if (isLive || (flags.json !== true && event.body.case !== "textDelta")) view.show(event);
    if (event.body.case !== "turnEnded") continue;
    const { state, answer, error, usage, toolsMayStillRun } = event.body.value;
    if (flags.json === true) {
      const result: Record<string, JsonValue> = {
        session_id: session.sessionId,
        turn_id: turn.turnId,
        state: TurnState[state].toLowerCase(),
        answer,
        error: error === undefined ? null : { reason: reasonName(error.reason), message: error.message },
        tools_may_still_run: toolsMayStillRun,
        usage: usage === undefined ? null : jsonOf(usage),
      };
      printJson(result);
    } else if (!isLive && state === TurnState.SUCCEEDED) printLine(answer);
    return state === TurnState.SUCCEEDED ? exitCode.done : exitCode.failed;
  }
  throw new CadreError("INTERNAL", "the turn's events ended before the turn");
}

async function converse(cadre: Cadre, flags: Flags): Promise<void> {
  const session = await open(cadre, flags);
  const isTerminal = process.stdin.isTTY === true && process.stdout.isTTY === true;
  const lines = createInterface({
    input: process.stdin,
    output: process.stdout,
    terminal: isTerminal,
    prompt: isTerminal ? "› " : "",
  });
  if (isTerminal) {
    printLine(dim(`session ${session.sessionId} · Ctrl-C cancels an answer, and leaves when there is none`));
  }
  let current: TurnHandle | undefined;
  const onInterrupt = () => {
    if (current === undefined) lines.close();
    else {
      void cancel(current);
      // The second one leaves, whatever the server does.
      current = undefined;
    }
  };
  lines.on("SIGINT", onInterrupt);
  process.on("SIGINT", onInterrupt);
  const view = createTurnView(process.stdout, isTerminal ? process.stdout : process.stderr);
  const closed = new AbortController();
  lines.once("close", () => {
    if (isTerminal) closed.abort();
  });
  try {
    for await (const text of prompts(lines)) {
      try {
        const turn = await session.send(text, { onBusy: flags.onBusy, signal: closed.signal });
        current = turn;
        const events = turn.events({
          signal: closed.signal,
          onBreak: ({ error }) => view.showBreak(error.message),
        });
        for await (const event of events) view.show(event);
      } catch (thrown) {
        if (closed.signal.aborted) break;
        if (!(thrown instanceof CadreError)) throw thrown;
        // The conversation goes on: the same words may go through in a moment.
        const { message, remedy } = explain(thrown);
        printNotice(`✗ ${printable(message)}${remedy === "" ? "" : `\n  ${remedy}`}`);
        if (!thrown.retryable) throw thrown;
      } finally {
        current = undefined;
      }
    }
  } finally {
    process.removeListener("SIGINT", onInterrupt);
    lines.close();
  }
  if (isTerminal) printLine(dim(`\ngo on with: cadre chat --session ${session.sessionId}`));
}

/** What the user writes, line by line, without blank ones; asks before each. */
async function* prompts(lines: Interface): AsyncGenerator<string, void, undefined> {
  let isOpen = true;
  lines.once("close", () => {
    isOpen = false;
  });
  lines.prompt();
  // What came before the end of input is still handed out after it.
  for await (const line of lines) {
    if (line.trim() === "/exit") return;
    if (line.trim() !== "") yield line;
    if (isOpen) lines.prompt();
  }
}

async function cancel(turn: TurnHandle): Promise<void> {
  try {
    await turn.cancel();
  } catch (thrown) {
    printNotice(`✗ could not cancel: ${printable(explain(thrown).message)}`);
  }
}
