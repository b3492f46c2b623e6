/** A point in time of a message. */
interface Time {
  readonly seconds: bigint;
  readonly nanos: number;
}

/** A time for people, in UTC to the second; `never` if it is absent. */
export function showTime(time: Time | undefined, absent = "never"): string {
  if (time === undefined) return absent;
  return `${new Date(Number(time.seconds) * 1000).toISOString().slice(0, 19).replace("T", " ")}Z`;
}

/** A duration for people. */
export function showDuration(duration: Time | undefined): string {
  if (duration === undefined) return "default";
  return showDurationMs(Number(duration.seconds) * 1000 + duration.nanos / 1e6);
}

/** A duration in milliseconds, for people. */
export function showDurationMs(ms: number): string {
  if (ms >= 172_800_000) return `${Math.floor(ms / 86_400_000)} d ${Math.floor((ms % 86_400_000) / 3_600_000)} h`;
  if (ms >= 7_200_000) return `${Math.floor(ms / 3_600_000)} h ${Math.floor((ms % 3_600_000) / 60_000)} min`;
  if (ms >= 120_000) return `${Math.floor(ms / 60_000)} min ${Math.floor((ms % 60_000) / 1000)} s`;
  return ms >= 1000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms)} ms`;
}
