import type { Migration } from "../../../runtime/postgres/migration.ts";
import { migration as initial } from "./0001-initial.ts";

/** All steps of the schema, in order. */
export const migrations: readonly Migration[] = [initial];
