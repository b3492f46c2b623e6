import type { Kysely } from "kysely";

/**
 * One step of a schema. Its name begins with a number of four digits and
 * orders it (`0001-initial`); once released it never changes.
 *
 * `up` and `down` run in a transaction of their own as the role that owns the
 * service's schema, which is the search path. They send statements and do not
 * look at answers: the statements that `up` sends are the migration's identity,
 * and are also collected without a database, to find out whether an applied
 * migration was edited.
 */
export interface Migration {
  readonly name: string;
  /** Whether `up` loses data that its `down` cannot bring back. Wants a flag. */
  readonly destructive: boolean;
  readonly up: (db: Kysely<unknown>) => Promise<void>;
  /** Undoes `up`: afterwards the schema is what it was. Loses what the step's tables hold. */
  readonly down: (db: Kysely<unknown>) => Promise<void>;
}
