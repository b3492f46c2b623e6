import type { Command } from "commander";
import { registerDeadLetters } from "./dead-letters.ts";
import { registerOffsets } from "./offsets.ts";

/** Adds `cadre events`. */
export function registerEvents(program: Command): void {
  const events = program.command("events").summary("look after dead letters and consumer groups");
  registerDeadLetters(events);
  registerOffsets(events);
}
