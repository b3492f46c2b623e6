import type { Migration } from "../../../runtime/postgres/migrator.ts";
import { migration as initial } from "./0001-initial.ts";
import { migration as runs } from "./0002-runs.ts";
import { migration as ledger } from "./0003-ledger.ts";
import { migration as runLabels } from "./0004-run-labels.ts";
import { migration as appendByKey } from "./0005-append-by-key.ts";

/** The orchestrator's migrations, in order. */
export const migrations: readonly Migration[] = [initial, runs, ledger, runLabels, appendByKey];
