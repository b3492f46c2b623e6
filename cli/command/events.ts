import type { Command } from "commander";
import { registerDeadLetters } from "./dead-letters.ts";

/** Adds `cadre events`. */
export function registerEvents(program: Command): void {
  const events = program.command("events").summary("look after events that could not be handled");
  registerDeadLetters(events);
}
