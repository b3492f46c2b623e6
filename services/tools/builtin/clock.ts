import { AppError } from "../../runtime/errors/app-error.ts";
import type { BuiltInTool } from "./built-in-tool.ts";

/**
 * Tells the time in a named time zone.
 *
 * @param now milliseconds since the epoch
 */
export function createClock(now: () => number = Date.now): BuiltInTool {
  return {
    definition: {
      name: "clock",
      description:
        "Tells the current date and time in ISO 8601, with the offset of a time zone of the IANA database, for example Europe/Berlin; UTC unless one is named.",
      inputSchema: {
        type: "object",
        properties: {
          time_zone: { type: "string", maxLength: 64, description: "An IANA time zone, for example America/New_York." },
        },
        additionalProperties: false,
      },
      outputSchema: {
        type: "object",
        properties: { time: { type: "string", format: "date-time" }, time_zone: { type: "string" } },
        required: ["time", "time_zone"],
        additionalProperties: false,
      },
      sideEffects: "NONE",
      timeoutMs: 1_000,
    },
    run(input) {
      const timeZone = typeof input["time_zone"] === "string" ? input["time_zone"] : "UTC";
      return { time: formatIn(timeZone, now()), time_zone: timeZone };
    },
  };
}

function formatIn(timeZone: string, ms: number): string {
  const part = partsIn(timeZone, ms);
  const milliseconds = String(((ms % 1_000) + 1_000) % 1_000).padStart(3, "0");
  // `GMT+02:00`; a zone without an offset is `GMT` or `GMT+00:00`.
  const offset = /^GMT(?!\+00:00)([+-]\d\d:\d\d)/.exec(part("timeZoneName"))?.[1] ?? "Z";
  return `${part("year").padStart(4, "0")}-${part("month")}-${part("day")}T${part("hour")}:${part("minute")}:${part("second")}.${milliseconds}${offset}`;
}

function partsIn(timeZone: string, ms: number): (type: Intl.DateTimeFormatPartTypes) => string {
  // An offset such as +02:00 is taken by Intl as well, but is no zone of the database.
  if (!/^[A-Za-z]/.test(timeZone)) throw unknownZone();
  let format: Intl.DateTimeFormat;
  try {
    format = new Intl.DateTimeFormat("en-u-ca-iso8601-nu-latn", {
      timeZone,
      year: "numeric",
      month: "2-digit",
      day: "2-digit",
      hour: "2-digit",
      minute: "2-digit",
      second: "2-digit",
      hourCycle: "h23",
      timeZoneName: "longOffset",
    });
  } catch (cause) {
    throw unknownZone(cause);
  }
  const parts = new Map(format.formatToParts(ms).map(({ type, value }) => [type, value]));
  return (type) => parts.get(type) ?? "";
}

function unknownZone(cause?: unknown): AppError {
  return new AppError("TOOL_FAILED", "there is no such time zone in the IANA database", { cause });
}
