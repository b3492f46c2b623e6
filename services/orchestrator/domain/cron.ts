/** A cron expression, parsed. Each set holds the values at which the field matches. */
export interface Cron {
  readonly source: string;
  /** Ascending. */
  readonly minutes: readonly number[];
  /** Ascending. */
  readonly hours: readonly number[];
  readonly daysOfMonth: ReadonlySet<number>;
  /** From 1. */
  readonly months: ReadonlySet<number>;
  /** 0 is Sunday. */
  readonly daysOfWeek: ReadonlySet<number>;
  /** Whether both kinds of days are restricted: then either one is enough, as in every cron since V7. */
  readonly eitherDay: boolean;
}

interface Field {
  readonly name: string;
  readonly min: number;
  readonly max: number;
  /** Names for the values from `min` on. */
  readonly names?: readonly string[];
}

const fields = [
  { name: "minute", min: 0, max: 59 },
  { name: "hour", min: 0, max: 23 },
  { name: "day of the month", min: 1, max: 31 },
  {
    name: "month",
    min: 1,
    max: 12,
    names: ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
  },
  // 7 is Sunday, too.
  { name: "day of the week", min: 0, max: 7, names: ["sun", "mon", "tue", "wed", "thu", "fri", "sat"] },
] as const satisfies readonly Field[];

/** What is wrong with an expression, for who wrote it. */
export class CronError extends Error {
  override readonly name = "CronError";
}

/**
 * Parses five fields, separated by blanks: minute, hour, day of the month,
 * month, day of the week. A field is a list of `*`, values and ranges `a-b`,
 * each with a step `/n` if wanted; `a/n` goes from `a` to the end. Months and
 * days of the week have names, too, in any case.
 *
 * @throws CronError naming the field and what is wrong
 */
export function parseCron(source: string): Cron {
  const texts = source.trim().split(/\s+/);
  if (texts.length !== fields.length) {
    throw new CronError(`has ${texts.length} fields, not five: minute, hour, day of the month, month, day of the week`);
  }
  const [minutes, hours, daysOfMonth, months, daysOfWeek] = fields.map((field, index) =>
    parseField(field, texts[index] ?? ""),
  ) as [Set<number>, Set<number>, Set<number>, Set<number>, Set<number>];
  if (daysOfWeek.delete(7)) daysOfWeek.add(0);
  return {
    source,
    minutes: [...minutes].sort((a, b) => a - b),
    hours: [...hours].sort((a, b) => a - b),
    daysOfMonth,
    months,
    daysOfWeek,
    eitherDay: texts[2]?.startsWith("*") === false && texts[4]?.startsWith("*") === false,
  };
}

/** Whether the expression means that day. */
export function matchesDay(cron: Cron, month: number, dayOfMonth: number, dayOfWeek: number): boolean {
  if (!cron.months.has(month)) return false;
  const [ofMonth, ofWeek] = [cron.daysOfMonth.has(dayOfMonth), cron.daysOfWeek.has(dayOfWeek)];
  return cron.eitherDay ? ofMonth || ofWeek : ofMonth && ofWeek;
}

function parseField(field: Field, text: string): Set<number> {
  const values = new Set<number>();
  for (const part of text.split(",")) {
    const match = /^(?:(\*)|([0-9a-z]+)(?:-([0-9a-z]+))?)(?:\/([0-9]{1,2}))?$/i.exec(part);
    if (match === null) throw new CronError(`${field.name}: ${JSON.stringify(part)} is no value, range or step`);
    const [, star, low, high, stepText] = match;
    const step = stepText === undefined ? 1 : Number(stepText);
    if (step === 0) throw new CronError(`${field.name}: a step of 0 in ${JSON.stringify(part)}`);
    const from = star === undefined ? parseValue(field, low ?? "") : field.min;
    const to =
      high === undefined
        ? star === undefined && stepText === undefined
          ? from
          : lastOf(field)
        : parseValue(field, high);
    if (from > to) throw new CronError(`${field.name}: the range ${JSON.stringify(part)} runs backwards`);
    for (let value = from; value <= to; value += step) values.add(value);
  }
  return values;
}

/** The end of `*`: Sunday is counted once. */
function lastOf(field: Field): number {
  return field.max === 7 ? 6 : field.max;
}

function parseValue(field: Field, text: string): number {
  const named = field.names?.indexOf(text.toLowerCase()) ?? -1;
  if (named >= 0) return field.min + named;
  const value = /^[0-9]{1,2}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= field.min && value <= field.max) return value;
  const names = field.names === undefined ? "" : `, nor one of ${field.names.join(", ")}`;
  throw new CronError(`${field.name}: ${JSON.stringify(text)} is not from ${field.min} to ${field.max}${names}`);
}
