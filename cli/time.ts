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
  const ms = Number(duration.seconds) * 1000 + duration.nanos / 1e6;
  return ms >= 1000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms)} ms`;
}
