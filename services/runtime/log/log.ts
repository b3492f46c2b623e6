import type { Logger as PinoLogger } from "pino";

/**
 * The process's structured log. Messages are constant; values are fields.
 * Take a child by component: `log.child({ component: "relay" })`.
 */
export type Logger = PinoLogger;
