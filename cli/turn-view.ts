import { styleText } from "node:util";
import { type JsonObject, type SessionEvent, TurnState, valueOf } from "@cadre/sdk";
import { printable, shorten } from "./output.ts";

/** Shows the events of a turn to a person, as they come. */
export interface TurnView {
  show(event: SessionEvent): void;
  /** Says that the connection broke and is being taken up again. */
  showBreak(reason: string): void;
}

/** Where a view writes to. */
interface Terminal extends NodeJS.WritableStream {
  readonly isTTY?: boolean;
}

/**
 * Creates a view.
 *
 * @param answers where the model's text goes
 * @param notices where the rest goes: tools, breaks, why a turn failed
 */
export function createTurnView(answers: Terminal, notices: Terminal): TurnView {
  let isMidLine = false;
  // What the model wrote in the attempt that runs, to know what a discard takes back.
  let stepText = "";

  const notice = (text: string, style: "dim" | "red" | "yellow" | "cyan" = "dim") => {
    if (isMidLine) answers.write("\n");
    isMidLine = false;
    notices.write(`${styleText(style, text, { stream: notices })}\n`);
  };

  return {
    show({ body }) {
      switch (body.case) {
        case "textDelta": {
          const text = printable(body.value.text);
          answers.write(text);
          stepText += text;
          isMidLine = !text.endsWith("\n");
          break;
        }
        case "attemptDiscarded":
          if (stepText !== "") notice("↻ that part is void; the agent tries again", "yellow");
          stepText = "";
          break;
        case "toolStarted":
          stepText = "";
          notice(`● ${body.value.tool}(${showArguments(body.value.arguments)})`, "cyan");
          break;
        case "toolDelta":
          notice(indent(printable(body.value.text).trimEnd()));
          break;
        case "toolEnded": {
          const { outcome } = body.value;
          if (outcome.case === "error") notice(`  ✗ ${printable(outcome.value.message)}`, "red");
          else if (outcome.case === "result") {
            notice(`  → ${shorten(printable(JSON.stringify(valueOf(outcome.value))), 200)}`);
          }
          break;
        }
        case "contextTrimmed":
          notice(`(${body.value.turnsLeftOut} of the oldest turns are left out: the model reads no more)`);
          break;
        case "turnEnded":
          if (isMidLine) answers.write("\n");
          isMidLine = false;
          if (body.value.state === TurnState.FAILED) notice(`✗ ${printable(body.value.error?.message ?? "")}`, "red");
          if (body.value.state === TurnState.CANCELLED) notice("cancelled", "yellow");
          for (const tool of body.value.toolsMayStillRun) notice(`${printable(tool)} may still run`, "yellow");
          break;
        default:
          break;
      }
    },
    showBreak: (reason) => notice(`… ${printable(reason)}; connecting again`, "yellow"),
  };
}

function showArguments(args: JsonObject | undefined): string {
  const shown = Object.entries(args ?? {}).map(([name, value]) => `${name}: ${JSON.stringify(value)}`);
  return shorten(printable(shown.join(", ")), 120);
}

function indent(text: string): string {
  return text.replaceAll(/^/gm, "  │ ");
}
