import type { Migration } from "../../../runtime/postgres/migration.ts";
import { migration as initial } from "./0001-initial.ts";
import { migration as heartbeat } from "./0002-heartbeat.ts";
import { migration as retry } from "./0003-retry.ts";
import { migration as groups } from "./0004-groups.ts";

/** All steps of the schema, in order. */
export const migrations: readonly Migration[] = [initial, heartbeat, retry, groups];
