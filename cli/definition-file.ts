import { readFile } from "node:fs/promises";
import { parse } from "yaml";
import { exitCode } from "./exit-code.ts";
import { CliError } from "./failure.ts";

/** The fields of a file that defines something. */
export interface DefinitionFile {
  /** A text. Throws CliError 2 if it is missing and has no fallback, or is none. */
  text(name: string, fallback?: string): string;
  /** A whole number, if it is there. */
  number(name: string): number | undefined;
  /** A list of texts; empty if it is missing. */
  texts(name: string): readonly string[];
  /** An object, if it is there. */
  object(name: string): Record<string, unknown> | undefined;
}

/**
 * Reads a YAML or JSON file, or standard input for `-`. Refuses fields that
 * nobody will look at, because they are most likely misspelt.
 *
 * @throws CliError 2
 */
export async function readDefinition(path: string, known: readonly string[]): Promise<DefinitionFile> {
  const value: unknown = parseYaml(path, await readSource(path));
  return toDefinition(path, value, known);
}

/** Looks at an object as at a file. */
export function toDefinition(path: string, value: unknown, known: readonly string[]): DefinitionFile {
  const refuse = (problem: string): never => {
    throw new CliError(exitCode.usage, `${path}: ${problem}`);
  };
  if (typeof value !== "object" || value === null || Array.isArray(value)) return refuse("is no object");
  const fields = value as Record<string, unknown>;
  const unknown = Object.keys(fields).filter((name) => !known.includes(name));
  if (unknown.length > 0) refuse(`unknown: ${unknown.join(", ")}. Known are ${known.join(", ")}`);
  return {
    text(name, fallback) {
      const field = fields[name] ?? fallback;
      return typeof field === "string" ? field : refuse(`${name} must be a text`);
    },
    number(name) {
      const field = fields[name];
      return field === undefined || Number.isSafeInteger(field)
        ? (field as number | undefined)
        : refuse(`${name} must be a whole number`);
    },
    texts(name) {
      const field = fields[name] ?? [];
      return Array.isArray(field) && field.every((item) => typeof item === "string")
        ? field
        : refuse(`${name} must be a list of texts`);
    },
    object(name) {
      const field = fields[name];
      if (field === undefined) return undefined;
      return typeof field === "object" && field !== null && !Array.isArray(field)
        ? (field as Record<string, unknown>)
        : refuse(`${name} must be an object`);
    },
  };
}

function parseYaml(path: string, text: string): unknown {
  try {
    return parse(text);
  } catch (thrown) {
    throw new CliError(exitCode.usage, `${path}: ${(thrown as Error).message}`);
  }
}

/** Reads a file, or standard input for `-`. Throws CliError 2 if it cannot be read. */
export async function readSource(path: string): Promise<string> {
  if (path === "-") {
    const chunks: Buffer[] = [];
    for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
    return Buffer.concat(chunks).toString("utf8");
  }
  try {
    return await readFile(path, "utf8");
  } catch (thrown) {
    throw new CliError(exitCode.usage, `${path} cannot be read: ${(thrown as Error).message}`);
  }
}
