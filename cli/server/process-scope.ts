import { mkdirSync } from "node:fs";
import { newId } from "../../services/runtime/ids/id.ts";
import { createLog } from "../../services/runtime/log/create-log.ts";
import type { Logger } from "../../services/runtime/log/log.ts";
import { startTelemetry, type Telemetry } from "../../services/runtime/telemetry/telemetry.ts";
import { dataDirectoryOf, type ServerConfiguration } from "./configuration.ts";
import { version } from "./version.ts";

/** What a server process has once, whatever runs in it. */
export interface ProcessScope {
  readonly log: Logger;
  readonly telemetry: Telemetry;
  readonly dataDirectory: string;
  readonly processId: string;
  /** Registers what is to be stopped; the last registered is stopped first, and what comes later as soon as it comes. */
  onStop(name: string, stop: () => Promise<void>): void;
  /** Aborts when everything begins to stop: what still starts need not come to its end. */
  readonly stopping: AbortSignal;
  /** Stops everything. Idempotent: a second call waits for the first. */
  stop(): Promise<void>;
  /** Resolves with the exit code when the process was told to end and everything has stopped. */
  readonly ended: Promise<number>;
}

/** How long stopping may take in all before what is left is abandoned. */
const stopTimeoutMs = 40_000;
/** So many faults that nobody caught, within a minute, end the process. */
const maxFaults = 2;
const faultWindowMs = 60_000;

/** Starts log and telemetry, and sees that signals and faults end the process in order. */
export async function openProcessScope(configuration: ServerConfiguration, name: string): Promise<ProcessScope> {
  const dataDirectory = dataDirectoryOf(configuration);
  mkdirSync(dataDirectory, { recursive: true, mode: 0o700 });
  const { platform } = configuration;
  const { log, flush } = createLog({
    mode: platform.CADRE_MODE,
    level: platform.CADRE_LOG_LEVEL,
    dataDirectory,
    name,
  });
  const processId = newId("evt").slice("evt_".length);
  const telemetry = await startTelemetry({
    serviceName: name,
    version: version,
    processId,
    otlpEndpoint: platform.CADRE_OTLP_ENDPOINT,
    sampleRatio: platform.CADRE_TRACE_SAMPLE_RATIO,
  });

  const stops: { name: string; stop: () => Promise<void> }[] = [];
  const begun = new AbortController();
  let stopped: Promise<void> | undefined;
  const stopAll = async (): Promise<void> => {
    begun.abort();
    for (let next = stops.pop(); next !== undefined; next = stops.pop()) {
      const { name: part, stop } = next;
      await stop().catch((thrown: unknown) => log.error({ err: thrown, part }, "a part did not stop"));
    }
  };
  const stop = (): Promise<void> => {
    stopped ??= stopAll().then(() => telemetry.stop());
    return stopped;
  };

  const { promise: ended, resolve: end } = Promise.withResolvers<number>();
  const shutDown = (code: number): void => {
    const timer = setTimeout(() => {
      log.error("stopping took too long; the rest is abandoned");
      end(1);
    }, stopTimeoutMs);
    void stop().then(() => {
      clearTimeout(timer);
      flush();
      end(code);
    });
  };
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => {
      log.info({ signal }, "stopping");
      shutDown(0);
    });
  }
  const faultsAt: number[] = [];
  const onFault = (kind: string) => (thrown: unknown) => {
    log.error({ err: thrown, kind }, "a fault that nobody caught");
    const now = performance.now();
    faultsAt.push(now);
    if (faultsAt.filter((at) => now - at < faultWindowMs).length >= maxFaults) shutDown(1);
  };
  process.on("uncaughtException", onFault("exception"));
  process.on("unhandledRejection", onFault("rejection"));

  return {
    log,
    telemetry,
    dataDirectory,
    processId,
    onStop(part, stopPart) {
      stops.push({ name: part, stop: stopPart });
      if (stopped !== undefined) stopped = stopped.then(stopAll);
    },
    stopping: begun.signal,
    stop,
    ended,
  };
}
