/**
 * Civil time in IANA zones, as far as schedules need it. Minutes and days are
 * counted as if the civil clock were UTC's ("civil ms"): a plain number that
 * `Date.UTC` gives for what a clock on the wall there shows.
 */

/** A time zone's clock. */
export interface Zone {
  readonly name: string;
  /** Civil milliseconds less milliseconds since the epoch, at an instant. */
  offsetAt(epochMs: number): number;
}

const formats = new Map<string, Zone | undefined>();
/** More than there are zones and their links, so that a caller's invented names cannot fill the memory. */
const maxRemembered = 1_000;

/** The zone of that name; undefined if there is none. */
export function findZone(name: string): Zone | undefined {
  if (formats.has(name)) return formats.get(name);
  const zone = createZone(name);
  if (formats.size < maxRemembered) formats.set(name, zone);
  return zone;
}

function createZone(name: string): Zone | undefined {
  // `+02:00` is an offset, which Intl takes, too; a schedule holds on to a place.
  if (!/^[A-Za-z]/.test(name)) return undefined;
  let format: Intl.DateTimeFormat;
  try {
    format = new Intl.DateTimeFormat("en-US", {
      timeZone: name,
      calendar: "iso8601",
      numberingSystem: "latn",
      hourCycle: "h23",
      year: "numeric",
      month: "2-digit",
      day: "2-digit",
      hour: "2-digit",
      minute: "2-digit",
      second: "2-digit",
    });
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
  return {
    name,
    offsetAt(epochMs) {
      const parts: Partial<Record<Intl.DateTimeFormatPartTypes, string>> = {};
      for (const { type, value } of format.formatToParts(epochMs)) parts[type] = value;
      const { year, month, day, hour, minute, second } = parts;
      const civilMs = Date.UTC(
        Number(year),
        Number(month) - 1,
        Number(day),
        Number(hour),
        Number(minute),
        Number(second),
      );
      // Formats show whole seconds.
      return civilMs - Math.floor(epochMs / 1_000) * 1_000;
    },
  };
}

/** Longer than from any civil time to UTC's, and shorter than from one change of a clock to the next. */
const besideMs = 26 * 3_600_000;
const dayMs = 24 * 3_600_000;

/** The clock of a civil day and its neighbours, which it changes once at most. */
export interface DayClock {
  /** Civil milliseconds less milliseconds since the epoch, before the change. */
  readonly before: number;
  /** The same from the change on. */
  readonly after: number;
  /** The instant of the change; without one, both offsets are the same. */
  readonly changeMs: number;
}

/** How the clock goes on a civil day that begins at `civilMs`. */
export function dayClock(zone: Zone, civilMs: number): DayClock {
  const [from, to] = [civilMs - besideMs, civilMs + dayMs + besideMs];
  const [before, after] = [zone.offsetAt(from), zone.offsetAt(to)];
  if (before === after) return { before, after, changeMs: to };
  // Clocks change at whole seconds.
  let [low, high] = [Math.floor(from / 1_000), Math.ceil(to / 1_000)];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (zone.offsetAt(middle * 1_000) === after) high = middle;
    else low = middle;
  }
  return { before, after, changeMs: high * 1_000 };
}

/**
 * The instant of a civil time of the day: the first one if the clock shows it
 * twice; where the clock leaves it out, the instant of the change, at which it
 * shows the next time that exists.
 */
export function instantOf({ before, after, changeMs }: DayClock, civilMs: number): number {
  return civilMs - before < changeMs ? civilMs - before : Math.max(civilMs - after, changeMs);
}
