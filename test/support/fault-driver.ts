import { randomInt } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

/** Something that the driver did to the system. */
export interface Fault {
  readonly atMs: number;
  /** Whom: its kind, then more of it for people. */
  readonly what: string;
  /** Whether the system was left alone afterwards, for longer than it may take to recover. */
  readonly isQuiet?: boolean;
}

/** The test could not be carried out: that says nothing about the system under test, and is a failure all the same. */
export class InfrastructureError extends Error {
  override readonly name = "InfrastructureError";
}

/** Numbers that are the same for the same seed (mulberry32). */
export interface Random {
  readonly seed: number;
  /** From 0 to below 1. */
  next(): number;
  /** A whole number from `least` to `most`, both included. */
  between(least: number, most: number): number;
  pick<T>(values: readonly T[]): T;
}

/** Takes the seed from `SEED`, or makes one up, and prints it: `SEED=… ` in front of the command plays it again. */
export function seededRandom(name: string): Random {
  const given = process.env["SEED"];
  const seed = given === undefined ? randomInt(2 ** 31) : Number(given);
  if (!Number.isSafeInteger(seed)) throw new InfrastructureError(`SEED=${given} is no whole number`);
  say(`${name}: SEED=${seed}`);
  return randomOf(seed);
}

/** Numbers of a seed. */
export function randomOf(seed: number): Random {
  let state = seed | 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const between = (least: number, most: number): number => least + Math.floor(next() * (most - least + 1));
  return {
    seed,
    next,
    between,
    pick(values) {
      const value = values[between(0, values.length - 1)];
      if (value === undefined) throw new InfrastructureError("nothing to pick from");
      return value;
    },
  };
}

/** Prints a line of a fault test, which people follow over minutes. */
export function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** A directory for a test's witnesses; kept when the test fails, since the logs are the evidence. */
export function witnessDirectory(name: string): { readonly path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), `cadre ${name} `));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

/**
 * Waits until `isReached` says so, asking every `everyMs`.
 *
 * @throws InfrastructureError naming `what` after `timeoutMs`
 */
export async function reach(
  what: string,
  isReached: () => boolean | Promise<boolean>,
  { timeoutMs = 120_000, everyMs = 20 }: { readonly timeoutMs?: number; readonly everyMs?: number } = {},
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await isReached())) {
    if (performance.now() > deadline) throw new InfrastructureError(`${what}: not within ${timeoutMs} ms`);
    await delay(everyMs);
  }
}

/** Does `work` for each of the values, at most `atOnce` at a time. The first failure ends it. */
export async function eachAtOnce<T>(
  values: Iterable<T>,
  atOnce: number,
  work: (value: T) => Promise<void>,
): Promise<void> {
  const iterator = values[Symbol.iterator]();
  const worker = async (): Promise<void> => {
    for (let next = iterator.next(); next.done !== true; next = iterator.next()) await work(next.value);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}
