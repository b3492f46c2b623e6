import type { Migration } from "../../postgres/migration.ts";
import { migration as initial } from "./0001-initial.ts";
import { migration as offsets } from "./0002-offsets.ts";

/** The schema `bus`. */
export const migrations: readonly Migration[] = [initial, offsets];
