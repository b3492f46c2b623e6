import { type CadreError, jsonOf, type Session, type SessionEvent, type Turn, TurnState } from "@cadre/sdk";
import type { Command } from "commander";
import { type ConnectionFlags, connect, withConnection } from "../connection.ts";
import { readSource } from "../definition-file.ts";
import { exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";
import { printFields, printJson, printLine, printNotice, printTable, shorten } from "../output.ts";
import { showDuration, showTime } from "../time.ts";

type Flags = ConnectionFlags & { readonly json?: boolean };

/** Adds `cadre sessions`. */
export function registerSessions(program: Command): void {
  const sessions = program.command("sessions").summary("list, show, follow, cancel and delete sessions");

  withConnection(sessions.command("list", { isDefault: true }))
    .description("Lists the org's sessions, newest first.")
    .option("--limit <count>", "how many at most", "50")
    .option("--json", "print JSON")
    .action(async (flags: Flags & { readonly limit: string }) => {
      const limit = parseCount(flags.limit);
      const rows: Session[] = [];
      for await (const session of (await connect(flags)).sessions.list({ pageSize: Math.min(limit, 200) })) {
        rows.push(session);
        if (rows.length >= limit) break;
      }
      if (flags.json === true) return printJson({ sessions: rows.map(jsonOf) });
      printTable(
        rows,
        [
          { title: "session", cell: ({ sessionId }) => sessionId },
          { title: "title", cell: ({ title }) => shorten(title, 40) },
          { title: "state", cell: ({ busy }) => (busy ? "busy" : "idle") },
          { title: "events", cell: ({ lastSeq }) => `${lastSeq}` },
          { title: "changed", cell: ({ updatedAt }) => showTime(updatedAt) },
        ],
        "The org has no sessions.",
      );
    });

  withConnection(sessions.command("show"))
    .description("Shows a session and its turns.")
    .argument("<session>", "ses_…")
    .option("--json", "print JSON")
    .action(async (sessionId: string, flags: Flags) => {
      const { session, turns } = await (await connect(flags)).sessions.get(sessionId);
      const rows: Turn[] = [];
      for await (const turn of turns({ pageSize: 200 })) rows.push(turn);
      if (flags.json === true) return printJson({ session: jsonOf(session), turns: rows.map(jsonOf) });
      printFields([
        ["id", session.sessionId],
        ["title", session.title],
        ["agent", session.agentId],
        ["state", session.busy ? "busy" : "idle"],
        ["events", `${session.lastSeq}`],
        ["tokens", `${session.usage?.inputTokens ?? 0n} in, ${session.usage?.outputTokens ?? 0n} out`],
        ["time", showDuration(session.usage?.duration)],
        ["created", showTime(session.createdAt)],
      ]);
      printLine();
      printTable(
        rows,
        [
          { title: "turn", cell: ({ turnId }) => turnId },
          { title: "state", cell: ({ state }) => TurnState[state].toLowerCase() },
          { title: "tools", cell: ({ toolCalls }) => toolCalls.map(({ tool }) => tool).join(" ") },
          { title: "text", cell: ({ text }) => shorten(text, 40) },
          { title: "answer", cell: ({ answer, error }) => shorten(error?.message ?? answer, 60) },
        ],
        "Nothing was said yet.",
      );
    });

  withConnection(sessions.command("events"))
    .description("Prints the events of a session, each as JSON on a line.")
    .argument("<session>", "ses_…")
    .option("--after-seq <number>", "begin after this event", "0")
    .option("--follow", "go on with those that follow, until Ctrl-C")
    .option("--json", "as without it; for the sake of uniformity")
    .action(async (sessionId: string, flags: Flags & { readonly afterSeq: string; readonly follow?: boolean }) => {
      if (!/^\d{1,19}$/.test(flags.afterSeq)) {
        throw new CliError(exitCode.usage, "--after-seq must be the number of an event");
      }
      const afterSeq = BigInt(flags.afterSeq);
      const cadre = await connect(flags);
      const { session } = await cadre.sessions.get(sessionId);
      const isDone = ({ seq }: Pick<SessionEvent, "seq">) => flags.follow !== true && seq >= session.lastSeq;
      if (isDone({ seq: afterSeq })) return;
      const controller = new AbortController();
      process.once("SIGINT", () => controller.abort());
      const events = cadre.sessions.events(sessionId, {
        afterSeq,
        signal: controller.signal,
        onBreak: ({ error }) => printNotice(`… ${error.message}; connecting again`),
      });
      try {
        for await (const event of events) {
          printJson(jsonOf(event));
          if (isDone(event)) return;
        }
      } catch (thrown) {
        if (!controller.signal.aborted) throw thrown as CadreError;
      }
    });

  withConnection(sessions.command("send"))
    .description("Sends a message and returns as soon as it is stored; the turn goes on by itself.")
    .argument("<session>", "ses_…")
    .argument("<text>", "the message; - for standard input")
    .option("--on-busy <mode>", "while a turn runs: reject, enqueue, interrupt or rollback", "reject")
    .option("--json", "print JSON")
    .action(async (sessionId: string, text: string, flags: Flags & { readonly onBusy: string }) => {
      const { onBusy } = flags;
      if (onBusy !== "reject" && onBusy !== "enqueue" && onBusy !== "interrupt" && onBusy !== "rollback") {
        throw new CliError(exitCode.usage, "--on-busy must be reject, enqueue, interrupt or rollback");
      }
      const message = text === "-" ? await readSource("-") : text;
      const { turn } = await (await connect(flags)).sessions.send(sessionId, message, { onBusy });
      if (flags.json === true) return printJson(jsonOf(turn));
      printLine(`${turn.turnId} is ${TurnState[turn.state].toLowerCase()}`);
    });

  withConnection(sessions.command("cancel"))
    .description("Cancels the turns that run or wait, or one of them.")
    .argument("<session>", "ses_…")
    .argument("[turn]", "run_…")
    .option("--json", "print JSON")
    .action(async (sessionId: string, turnId: string | undefined, flags: Flags) => {
      const cadre = await connect(flags);
      const turns = await cadre.sessions.cancel(sessionId, turnId === undefined ? {} : { turnId });
      if (flags.json === true) return printJson({ turns: turns.map(jsonOf) });
      if (turns.length === 0) return printNotice("There was nothing to cancel.");
      for (const turn of turns) printLine(`${turn.turnId} is being cancelled`);
    });

  withConnection(sessions.command("delete"))
    .description("Deletes a session with its turns and events; a turn that runs is cancelled.")
    .argument("<session>", "ses_…")
    .option("--json", "print JSON")
    .action(async (sessionId: string, flags: Flags) => {
      await (await connect(flags)).sessions.delete(sessionId);
      if (flags.json === true) return printJson({});
      printLine(`${sessionId} is deleted`);
    });
}

function parseCount(text: string): number {
  if (/^[1-9]\d{0,5}$/.test(text)) return Number(text);
  throw new CliError(exitCode.usage, "--limit must be a whole number from 1");
}
