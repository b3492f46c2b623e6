import { z } from "zod";

/** One setting: an environment variable `CADRE_*`, and the flag of the same name (`CADRE_ADMIN_PORT` is `--admin-port`). */
export interface Setting<T = unknown> {
  /** Parses the text of the setting; `undefined` is given when it is not set. */
  readonly schema: z.ZodType<T, string | undefined>;
  /** What it does, its unit and its default; shown by `--help` and `cadre doctor`. */
  readonly description: string;
  /** Never printed, not even where it is wrong. */
  readonly secret?: boolean;
}

export type Settings = Readonly<Record<`CADRE_${string}`, Setting>>;

/** The parsed values of a group of settings, by their names. */
export type SettingsValues<S extends Settings> = { readonly [K in keyof S]: S[K] extends Setting<infer T> ? T : never };

/** Declares a group of settings; each service has one in its `config.ts`. */
export function defineSettings<const S extends Settings>(settings: S): S {
  return settings;
}

/** What flags and environment say, by the setting's name. Flags win. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** Every problem of a configuration, found in one go. `cadre` exits with 78. */
export class ConfigurationError extends Error {
  override readonly name = "ConfigurationError";
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(
      `${problems.length === 1 ? "one setting is" : `${problems.length} settings are`} wrong:\n${problems.map((problem) => `  ${problem}`).join("\n")}`,
    );
    this.problems = problems;
  }
}

/**
 * Parses a group of settings and freezes the values. Collects every problem
 * before it throws `ConfigurationError`. A value never appears in a problem of
 * a secret setting.
 */
export function parseSettings<S extends Settings>(settings: S, environment: Environment): SettingsValues<S> {
  const values: Record<string, unknown> = {};
  const problems: string[] = [];
  for (const [name, setting] of Object.entries<Setting>(settings)) {
    const text = environment[name];
    const parsed = setting.schema.safeParse(text);
    if (parsed.success) {
      values[name] = parsed.data;
      continue;
    }
    const got =
      text === undefined
        ? "is not set"
        : setting.secret === true
          ? "is not valid"
          : `is ${JSON.stringify(text.slice(0, 80))}`;
    problems.push(
      `${name} ${got}: ${parsed.error.issues.map((issue) => issue.message).join("; ")}. ${setting.description}`,
    );
  }
  if (problems.length > 0) throw new ConfigurationError(problems);
  return Object.freeze(values) as SettingsValues<S>;
}

/** Schemas for the usual kinds of settings. */
export const setting = {
  text: (fallback: string) => z.string().default(fallback),
  optionalText: () => z.string().optional(),
  /** A whole number within bounds. */
  integer: (fallback: number, bounds: { readonly min: number; readonly max: number }) =>
    z
      .string()
      .regex(/^-?\d+$/, "must be a whole number")
      .transform(Number)
      .refine((value) => value >= bounds.min && value <= bounds.max, `must be ${bounds.min} to ${bounds.max}`)
      .default(fallback),
  flag: (fallback: boolean) =>
    z
      .enum(["true", "false"], "must be true or false")
      .transform((text) => text === "true")
      .default(fallback),
  /** A flag whose default depends on other settings. */
  optionalFlag: () =>
    z
      .enum(["true", "false"], "must be true or false")
      .transform((text) => text === "true")
      .optional(),
  oneOf: <const V extends readonly [string, ...string[]]>(choices: V, fallback: V[number]) =>
    z.enum(choices, `must be ${choices.join(" or ")}`).default(fallback as never),
  /** Texts separated by commas; blanks around them are dropped. */
  list: () =>
    z
      .string()
      .default("")
      .transform((text) =>
        text
          .split(",")
          .map((item) => item.trim())
          .filter((item) => item !== ""),
      ),
} as const;
