import type { Migration } from "../../../runtime/postgres/migration.ts";
import { migration as initial } from "./0001-initial.ts";
import { migration as forced } from "./0002-forced.ts";
import { migration as origin } from "./0003-origin.ts";
import { migration as review } from "./0004-review.ts";
import { migration as fieldRead } from "./0005-field-read.ts";

/** All steps of the schema, in order. */
export const migrations: readonly Migration[] = [initial, forced, origin, review, fieldRead];
