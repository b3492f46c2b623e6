import type { Migration } from "../../../runtime/postgres/migrator.ts";
import { migration as initial } from "./0001-initial.ts";

/** The orchestrator's migrations, in order. */
export const migrations: readonly Migration[] = [initial];
