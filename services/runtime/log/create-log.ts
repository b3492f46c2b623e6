import { mkdirSync, renameSync, statfsSync, statSync } from "node:fs";
import { join } from "node:path";
import pino from "pino";
import type { Mode } from "../platform/platform.ts";
import type { Logger } from "./log.ts";
import { redact } from "./redact.ts";

export interface LogOptions {
  readonly mode: Mode;
  readonly level: "error" | "warn" | "info" | "debug";
  readonly dataDirectory: string;
  /** What runs in the process; the log file's name. */
  readonly name: string;
}

const maxFileBytes = 32 * 1024 * 1024;
const maxPendingBytes = 1024 * 1024;
const noRoom = `${JSON.stringify({ level: "warn", msg: "the disk has no room for the last lines of the log" })}\n`;

/**
 * The process's log. In production JSON lines on standard output; embedded,
 * where a person looks at the terminal, JSON lines in
 * `<data>/logs/<name>.log` (the last 32 to 64 MiB are kept) and warnings on
 * standard error, as long as that can be written to. While the file's disk is full, up to 1 MiB of lines wait, and more are
 * lost: that is no fault of the process. `flush` writes what is pending, at the end of the process.
 */
export function createLog(options: LogOptions): { log: Logger; flush: () => void } {
  const settings: pino.LoggerOptions = {
    level: options.level,
    base: { service: options.name, pid: process.pid },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: {
      level: (label) => ({ level: label }),
      log: (fields) => redact(fields) as Record<string, unknown>,
    },
  };
  if (options.mode === "production") {
    const destination = pino.destination({ dest: 1, sync: false, minLength: 4_096, periodicFlush: 250 });
    return { log: pino(settings, destination), flush: () => destination.flushSync() };
  }
  const directory = join(options.dataDirectory, "logs");
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const file = join(directory, `${options.name}.log`);
  rotate(file);
  const destination = pino.destination({
    dest: file,
    sync: false,
    minLength: 4_096,
    maxLength: maxPendingBytes,
    periodicFlush: 250,
    mode: 0o600,
  });
  // A disk that is full: to log that would fail again, for ever.
  let isFull = false;
  let isClosed = false;
  destination.on("error", () => {
    isFull = true;
  });
  destination.on("write", () => {
    isFull = false;
  });
  setInterval(() => {
    if (!isClosed && rotate(file)) destination.reopen();
  }, 60_000).unref();
  // Whoever read standard error may go: that is no fault of this process, and to log it there would fail again, for ever.
  let isRead = true;
  process.stderr.on("error", () => {
    isRead = false;
  });
  const toTerminal = (line: string): void => {
    if (isRead) process.stderr.write(toText(line));
  };
  const log = pino(
    settings,
    pino.multistream([
      { level: options.level, stream: { write: (line: string) => void (isClosed || destination.write(line)) } },
      { level: "warn", stream: { write: toTerminal } },
    ]),
  );
  const flush = (): void => {
    const { bavail, bsize } = statfsSync(file);
    if (!isFull && bavail * bsize >= maxPendingBytes) return destination.flushSync();
    // It would try for ever, here and once more at the exit, and the process would not end.
    isClosed = true;
    destination.destroy();
    toTerminal(noRoom);
  };
  return { log, flush };
}

function rotate(file: string): boolean {
  if ((statSync(file, { throwIfNoEntry: false })?.size ?? 0) < maxFileBytes) return false;
  renameSync(file, `${file}.1`);
  return true;
}

/** One line for a person: time, level, message and, for an error, its message. */
function toText(line: string): string {
  const record: unknown = JSON.parse(line);
  if (typeof record !== "object" || record === null) return line;
  const field = (name: string): string => String(Reflect.get(record, name) ?? "");
  const error: unknown = Reflect.get(record, "err");
  const detail = typeof error === "object" && error !== null ? `: ${String(Reflect.get(error, "message"))}` : "";
  const component = field("component") === "" ? "" : ` [${field("component")}]`;
  return `${field("time").slice(11, 19)} ${field("level").toUpperCase()}${component} ${field("msg")}${detail}\n`;
}
