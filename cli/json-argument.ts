import type { JsonValue } from "@cadre/sdk";
import { readSource } from "./definition-file.ts";
import { exitCode } from "./exit-code.ts";
import { CliError } from "./failure.ts";

/**
 * Reads a JSON value that was given as text, as `@file`, or as `-` for standard
 * input.
 *
 * @param flag how it is called in a complaint
 * @throws CliError 2
 */
export async function readJsonArgument(flag: string, given: string): Promise<JsonValue> {
  const source = given === "-" ? "-" : given.startsWith("@") ? given.slice(1) : undefined;
  const text = source === undefined ? given : await readSource(source);
  try {
    return JSON.parse(text) as JsonValue;
  } catch (thrown) {
    throw new CliError(
      exitCode.usage,
      `${flag} is no JSON: ${(thrown as Error).message}`,
      `For example: ${flag} '{"name":"Ada"}', ${flag} @input.json, or ${flag} - for standard input.`,
    );
  }
}
