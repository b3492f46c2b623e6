import { AsyncLocalStorage } from "node:async_hooks";
import { ServingState } from "@cadre/gen/cadre/gateway/v1/health_pb";
import { type Meter, type Tracer, trace } from "@opentelemetry/api";
import {
  CompiledQuery,
  type DatabaseConnection,
  Kysely,
  PostgresDialect,
  type PostgresDialectConfig,
  PostgresDriver,
  type TransactionSettings,
} from "kysely";
import { AppError } from "../errors/app-error.ts";
import type { Logger } from "../log/log.ts";
import { ConnectGate } from "./connect-gate.ts";
import { ConnectionPool, type SessionOptions } from "./connection-pool.ts";
import type { Database } from "./database.ts";
import { createListener } from "./listener.ts";
import { roleOf } from "./role.ts";

export interface OpenDatabaseOptions {
  /** `postgres://user:password@host:port/database`; the login role must be a member of the service's roles. */
  readonly url: string;
  /** The service, which names schema and roles: lower-case letters. */
  readonly service: string;
  readonly log: Logger;
  /** Connections of each of the two roles, at most. Default 8. */
  readonly maxConnections?: number;
  /** Default: the global one. */
  readonly tracer?: Tracer;
  /** Where the pool's figures go; none without. */
  readonly meter?: Meter;
}

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/**
 * Opens a service's schema. Connects when it is first used, so PostgreSQL need
 * not run yet. What PostgreSQL answers as `bigint` becomes a `bigint`, `bytea` a
 * `Buffer`, `timestamptz` a `Date`.
 *
 * Statements end after 15 s, waits for locks after 5 s, transactions that send
 * nothing after 10 s. All of these, and connections that are lost or cannot be
 * had in 5 s, are thrown as AppError UNAVAILABLE; `isOutcomeUnknown` tells
 * whether a lost statement may have taken effect. What a constraint refuses is
 * thrown as `pg.DatabaseError`; see `isUniqueViolation`.
 */
export function openDatabase<Schema>(options: OpenDatabaseOptions): Database<Schema> {
  const { service, log } = options;
  const gate = new ConnectGate();
  const tracer = options.tracer ?? trace.getTracer("cadre.postgres");
  const session: SessionOptions = { url: options.url, service, maxConnections: options.maxConnections ?? 8 };
  const shared = { gate, tracer, log, meter: options.meter };
  const appPool = new ConnectionPool({ ...session, role: roleOf(service, "app") }, shared);
  const enginePool = new ConnectionPool({ ...session, role: roleOf(service, "engine") }, shared);
  const app = new Kysely<Schema>({ dialect: new OrgDialect({ pool: appPool }) });
  const engine = new Kysely<Schema>({ dialect: new PostgresDialect({ pool: enginePool }) });
  const listener = createListener({ ...session, role: roleOf(service, "engine") }, gate, log);
  let closed: Promise<void> | undefined;

  return {
    async asOrg(orgId, work) {
      if (!uuid.test(orgId)) throw new TypeError("orgId is no UUID");
      return currentOrg.run(orgId, () => app.transaction().execute(work));
    },
    async batchAsOrg(orgId, statements) {
      if (!uuid.test(orgId)) throw new TypeError("orgId is no UUID");
      return (await runBatch(appPool, [beginAs(orgId), ...statements, commit])).slice(1, -1) as never;
    },
    engine,
    listen: (channel, onNotify, onConnect) => listener.listen(channel, onNotify, onConnect),
    dependency: {
      name: "postgres",
      async check() {
        try {
          await enginePool.ping(900);
          return { state: ServingState.SERVING, detail: "" };
        } catch (error) {
          const detail = error instanceof AppError ? error.message : "the database does not answer";
          return { state: ServingState.NOT_SERVING, detail };
        }
      },
    },
    close() {
      closed ??= (async () => {
        await listener.close();
        await Promise.all([appPool.end(), enginePool.end()]);
      })();
      return closed;
    },
  };
}

const commit = CompiledQuery.raw("commit");

/** Begins a transaction for an org: one simple query of two statements. The UUID was checked. */
function beginAs(orgId: string): CompiledQuery {
  return CompiledQuery.raw(`begin; select set_config('app.org', '${orgId}', true)`);
}

/** Runs statements one behind the other without waiting between them. A commit behind one that failed rolls back. */
async function runBatch(
  pool: ConnectionPool,
  statements: readonly CompiledQuery[],
): Promise<readonly (readonly unknown[])[]> {
  const connection = await pool.connect();
  try {
    const answers = await Promise.allSettled(
      statements.map(({ sql, parameters }) => connection.query<unknown>(sql, parameters)),
    );
    return answers.map((answer) => {
      if (answer.status === "rejected") throw answer.reason;
      return answer.value.rows;
    });
  } finally {
    connection.release();
  }
}

/** The org of the `asOrg` under way; read when its transaction begins. */
const currentOrg = new AsyncLocalStorage<string>();

class OrgDialect extends PostgresDialect {
  readonly #config: PostgresDialectConfig;

  constructor(config: PostgresDialectConfig) {
    super(config);
    this.#config = config;
  }

  override createDriver(): PostgresDriver {
    return new OrgDriver(this.#config);
  }
}

/**
 * Begins each transaction together with its org, in one message that is not
 * waited for: the first statement follows at once. Should it fail, the
 * statements after it fail as well, for without an org nothing can be read.
 */
class OrgDriver extends PostgresDriver {
  readonly #beginnings = new WeakMap<DatabaseConnection, Promise<unknown>>();

  override async beginTransaction(connection: DatabaseConnection, settings: TransactionSettings): Promise<void> {
    const orgId = currentOrg.getStore();
    if (orgId === undefined) throw new Error("a transaction of the app role outside of asOrg");
    if (settings.isolationLevel !== undefined || settings.accessMode !== undefined) {
      throw new Error("asOrg has no transaction settings");
    }
    const beginning = connection.executeQuery(beginAs(orgId));
    beginning.catch(() => undefined); // thrown by the commit
    this.#beginnings.set(connection, beginning);
  }

  override async commitTransaction(connection: DatabaseConnection): Promise<void> {
    await this.#beginnings.get(connection);
    await super.commitTransaction(connection);
  }
}
