import { styleText } from "node:util";
import {
  type JsonValue,
  type RunEvent,
  reasonName,
  type StepPlace,
  StepReceipt,
  type StepWait,
  valueOf,
} from "@cadre/sdk";
import { printable, shorten } from "./output.ts";
import { showDurationMs, showTime } from "./time.ts";

/** Shows the events of a run to a person, as they come. */
export interface RunView {
  show(event: RunEvent): void;
  /** Says that the connection broke and is being taken up again. */
  showBreak(reason: string): void;
}

interface Terminal extends NodeJS.WritableStream {
  readonly isTTY?: boolean;
}

type Style = "dim" | "red" | "yellow" | "cyan" | "green" | "bold";

/** How much of an output is shown, in characters. */
const maxShown = 200;

/** Creates a view that writes a line for each event that matters to a person. */
export function createRunView(terminal: Terminal): RunView {
  const startedAtMs = new Map<string, number>();
  let runStartedAtMs: number | undefined;

  const line = (style: Style, text: string): void => {
    terminal.write(`${styleText(style, printable(text), { stream: terminal })}\n`);
  };
  const took = (from: number | undefined, event: RunEvent): string => {
    const at = timeMs(event);
    return from === undefined || at === undefined ? "" : ` in ${showDurationMs(at - from)}`;
  };

  return {
    show(event) {
      const { body } = event;
      switch (body.case) {
        case "runAccepted":
          runStartedAtMs = timeMs(event);
          return line("bold", `${event.runId}  ${body.value.name}`);
        case "stepStarted": {
          const place = showPlace(body.value.step);
          startedAtMs.set(place, startedAtMs.get(place) ?? timeMs(event) ?? 0);
          const attempt = body.value.attempt > 1 ? `, attempt ${body.value.attempt}` : "";
          return line("cyan", `  ● ${place}${attempt}`);
        }
        case "stepWaiting":
          return line("yellow", `  … ${showPlace(body.value.step)} ${showWait(body.value.wait)}`);
        case "approvalRequested": {
          const { step, prompt } = body.value;
          line("yellow", `  ? ${step} waits for an approval: ${shorten(prompt, maxShown)}`);
          return line("dim", `    cadre runs approve ${event.runId} ${step}   or   refuse`);
        }
        case "approvalDecided": {
          const { step, approved, by, reason } = body.value;
          const why = reason === "" ? "" : `: ${reason}`;
          return line(
            approved ? "green" : "yellow",
            `  ${step} is ${approved ? "approved" : "refused"} by ${by}${why}`,
          );
        }
        case "stepRetrying": {
          const { step, attempt, error, retryAt } = body.value;
          const failure = `attempt ${attempt} failed: ${shorten(error?.message ?? "", maxShown)}`;
          return line("yellow", `  ↻ ${showPlace(step)} ${failure}; again at ${showTime(retryAt)}`);
        }
        case "stepEnded": {
          const place = showPlace(body.value.step);
          const { outcome } = body.value;
          const time = took(startedAtMs.get(place), event);
          startedAtMs.delete(place);
          switch (outcome.case) {
            case "output":
              return line("green", `  ✓ ${place}${time}  ${showValue(valueOf(outcome.value))}`);
            case "largeOutputBytes":
              return line("green", `  ✓ ${place}${time}  (${outcome.value} bytes)`);
            case "elements":
              return line("green", `  ✓ ${place}${time}`);
            case "error":
              return line("red", `  ✗ ${place}${time}  ${reasonName(outcome.value.reason)}: ${outcome.value.message}`);
            case "skipped":
              return line("dim", `  – ${place} is skipped`);
            case "cancelled":
              return line("yellow", `  ■ ${place} is cancelled (${showReceipt(outcome.value)})`);
            default:
              return;
          }
        }
        case "signalReceived":
          return line("dim", `  message ${body.value.signal} came`);
        case "runCancelling": {
          const why = body.value.reason === "" ? "" : `: ${body.value.reason}`;
          return line("yellow", `  is being cancelled${body.value.compensate ? ", with compensations" : ""}${why}`);
        }
        case "runParked": {
          const { reason = 0, message = "", diff = [] } = body.value.parked ?? {};
          line("red", `‖ parked  ${reasonName(reason)}: ${message}`);
          for (const difference of diff) line("dim", `    ${difference}`);
          return line("dim", `  cadre runs resume ${event.runId}   goes on with it`);
        }
        case "runResumed":
          return line("green", `  is resumed by ${body.value.by}`);
        case "runEnded": {
          const { outcome } = body.value;
          const time = took(runStartedAtMs, event);
          switch (outcome.case) {
            case "output":
              return line("green", `✓ succeeded${time}  ${showValue(valueOf(outcome.value))}`);
            case "largeOutputBytes":
              return line(
                "green",
                `✓ succeeded${time}  (${outcome.value} bytes: cadre runs get ${event.runId} --json)`,
              );
            case "error": {
              const { reason, message, step } = outcome.value;
              return line(
                "red",
                `✗ failed${time}  ${step === "" ? "" : `in ${step}: `}${reasonName(reason)}: ${message}`,
              );
            }
            default:
              return line("yellow", `■ cancelled${time}`);
          }
        }
        default:
          return;
      }
    },
    showBreak: (reason) => line("yellow", `… ${reason}; connecting again`),
  };
}

/** A place in words: `fetch`, `fetch[3]`, `undo fetch`, `draft, round 2`, `draft, round 2, call 1`. */
export function showPlace(place: StepPlace | undefined): string {
  if (place === undefined) return "";
  const { name, index, compensation, round, call } = place;
  const step = `${compensation ? "undo " : ""}${name}${index === undefined ? "" : `[${index}]`}`;
  return [
    ...(step === "" ? [] : [step]),
    ...(round === undefined ? [] : [`round ${round}`]),
    ...(call === undefined ? [] : [`call ${call + 1}`]),
  ].join(", ");
}

/** What a step waits for, in words. */
export function showWait(wait: StepWait | undefined): string {
  const until = wait?.expiresAt === undefined ? "" : `, until ${showTime(wait.expiresAt)}`;
  switch (wait?.reason.case) {
    case "timerDueAt":
      return `waits until ${showTime(wait.reason.value)}`;
    case "signal":
      return `waits for the message ${wait.reason.value}${until}`;
    case "approval":
      return `waits for an approval: ${shorten(wait.reason.value, maxShown)}${until}`;
    case "childRunId":
      return `waits for ${wait.reason.value}`;
    case "retryAt":
      return `tries again at ${showTime(wait.reason.value)}`;
    default:
      return "waits";
  }
}

/** How far a tool had got, in words. */
export function showReceipt(receipt: StepReceipt): string {
  switch (receipt) {
    case StepReceipt.NOT_STARTED:
      return "its tool had not begun";
    case StepReceipt.PARTIAL:
      return "its tool had begun, and stopped";
    case StepReceipt.DONE:
      return "its tool had finished";
    case StepReceipt.MAY_STILL_RUN:
      return "its tool may still run";
    default:
      return "nothing of it ran";
  }
}

/** A value on one line, shortened. */
export function showValue(value: JsonValue): string {
  return shorten(JSON.stringify(value), maxShown);
}

function timeMs({ at }: RunEvent): number | undefined {
  return at === undefined ? undefined : Number(at.seconds) * 1_000 + at.nanos / 1e6;
}
