import type { Migration } from "../../../runtime/postgres/migrator.ts";
import { migration as initial } from "./0001-initial.ts";
import { migration as revokedToken } from "./0002-revoked-token.ts";
import { migration as relay } from "./0003-relay.ts";

/** The steps of the credentials schema, in order. */
export const migrations: readonly Migration[] = [initial, revokedToken, relay];
