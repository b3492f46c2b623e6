import type { Writable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import type { Meter, Tracer } from "@opentelemetry/api";
import type { PostgresCursor, PostgresPool, PostgresPoolClient, PostgresQueryResult } from "kysely";
import pg from "pg";
import { AppError } from "../errors/app-error.ts";
import type { Logger } from "../log/log.ts";
import type { ConnectGate } from "./connect-gate.ts";
import { describeError, isConnectionFailure, toDatabaseError } from "./database-error.ts";
import { withStatementSpan } from "./statement-span.ts";

/** What every connection of a pool begins with. */
export interface SessionOptions {
  readonly url: string;
  /** Names the schema that unqualified names are looked up in. */
  readonly service: string;
  readonly maxConnections: number;
}

const connectTimeoutMs = 5_000;
const int8Oid = 20;

/** node-postgres gives a bigint as text by default, which sorts and compares wrongly. */
const types: pg.CustomTypesConfig = {
  getTypeParser: ((oid: number, format?: "text" | "binary") =>
    oid === int8Oid && format !== "binary"
      ? BigInt
      : pg.types.getTypeParser(oid, format as "text")) as typeof pg.types.getTypeParser,
};

/** The configuration of one connection. */
export function clientConfig(session: SessionOptions & { readonly role: string }): pg.ClientConfig {
  // node-postgres lets the URL's parameters win. The role must not be lost to them: without it a
  // connection would be the login role's, which row-level security does not bind. The last one counts.
  const url = new URL(session.url);
  const given = url.searchParams.get("options") ?? "";
  url.searchParams.delete("options");
  return {
    connectionString: url.href,
    application_name: `cadre ${session.service} ${process.pid}`,
    options: `${given} -c role=${session.role} -c search_path=${session.service} -c timezone=UTC`.trim(),
    statement_timeout: 15_000,
    idle_in_transaction_session_timeout: 10_000,
    lock_timeout: 5_000,
    // A half-open connection gives no answer at all: the server's own limit plus what the network may take.
    query_timeout: 20_000,
    connectionTimeoutMillis: connectTimeoutMs,
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    // A statement may be sent before the one before it was answered; `asOrg` does so with its first.
    pipeline: true,
    types,
  };
}

/** The connections of one role, in the form that kysely takes. */
export class ConnectionPool implements PostgresPool {
  readonly options = {};
  readonly #pool: pg.Pool;
  readonly #service: string;
  readonly #tracer: Tracer;
  readonly #clients = new WeakMap<pg.PoolClient, PooledConnection>();

  constructor(
    session: SessionOptions & { readonly role: string },
    shared: { readonly gate: ConnectGate; readonly tracer: Tracer; readonly log: Logger; readonly meter?: Meter },
  ) {
    const { gate, log } = shared;
    this.#service = session.service;
    this.#tracer = shared.tracer;
    this.#pool = new pg.Pool({
      ...clientConfig(session),
      max: session.maxConnections,
      idleTimeoutMillis: 60_000,
      Client: gatedClient(gate) as unknown as NonNullable<pg.PoolConfig["Client"]>,
    });
    this.#pool.on("connect", (client) => {
      // While a connection is in use nobody else listens; the statement under way fails with the same error.
      client.on("error", (error: Error) => {
        gate.doubt();
        log.debug(describeError(error), "a connection to postgres broke");
      });
    });
    this.#pool.on("error", (error) => log.warn(describeError(error), "an idle connection to postgres broke"));
    if (shared.meter !== undefined) this.#report(shared.meter, session);
  }

  async connect(): Promise<PostgresPoolClient> {
    let client: pg.PoolClient;
    try {
      client = await this.#pool.connect();
    } catch (error) {
      throw toConnectError(error, this.#pool);
    }
    let connection = this.#clients.get(client);
    if (connection === undefined) {
      connection = new PooledConnection(client, this.#tracer, this.#service);
      this.#clients.set(client, connection);
    }
    return connection;
  }

  /** Whether the database answers within `timeoutMs`. */
  async ping(timeoutMs: number): Promise<void> {
    const late = new AbortController();
    const timeout = delay(timeoutMs, undefined, { signal: late.signal, ref: false }).then(() => {
      throw new AppError("UNAVAILABLE", "the database does not answer in time", { retryAfterMs: 1_000 });
    });
    try {
      await Promise.race([this.#ask(), timeout]);
    } finally {
      late.abort();
      timeout.catch(() => undefined); // aborted, or told already
    }
  }

  async end(): Promise<void> {
    await this.#pool.end();
  }

  async #ask(): Promise<void> {
    const connection = await this.connect();
    try {
      await connection.query("select 1", []);
    } finally {
      connection.release();
    }
  }

  #report(meter: Meter, session: { readonly role: string; readonly maxConnections: number }): void {
    const pool = this.#pool;
    const attributes = { "db.client.connection.pool.name": session.role };
    meter
      .createObservableGauge("db.client.connection.count", { description: "Connections to PostgreSQL by state." })
      .addCallback((result) => {
        result.observe(pool.idleCount, { ...attributes, "db.client.connection.state": "idle" });
        result.observe(pool.totalCount - pool.idleCount, { ...attributes, "db.client.connection.state": "used" });
      });
    meter
      .createObservableGauge("db.client.connection.max", { description: "Connections to PostgreSQL, at most." })
      .addCallback((result) => result.observe(session.maxConnections, attributes));
    meter
      .createObservableGauge("db.client.connection.pending_requests", { description: "Waiting for a connection." })
      .addCallback((result) => result.observe(pool.waitingCount, attributes));
  }
}

class PooledConnection implements PostgresPoolClient {
  readonly #client: pg.PoolClient;
  readonly #tracer: Tracer;
  readonly #service: string;
  #isBroken = false;

  constructor(client: pg.PoolClient, tracer: Tracer, service: string) {
    this.#client = client;
    this.#tracer = tracer;
    this.#service = service;
  }

  get processID(): number | undefined {
    return (this.#client as { processID?: number }).processID;
  }

  connect(): never {
    throw new Error("a pooled connection is connected already");
  }

  end(): never {
    throw new Error("a pooled connection is released, not ended");
  }

  query<R>(text: string, parameters: readonly unknown[]): Promise<PostgresQueryResult<R>>;
  query<R>(cursor: PostgresCursor<R>): PostgresCursor<R>;
  query<R>(
    text: string | PostgresCursor<R>,
    parameters: readonly unknown[] = [],
  ): Promise<PostgresQueryResult<R>> | PostgresCursor<R> {
    if (typeof text !== "string") throw new Error("cursors are not supported");
    return withStatementSpan(this.#tracer, this.#service, text, () => this.#query<R>(text, parameters));
  }

  async #query<R>(text: string, parameters: readonly unknown[]): Promise<PostgresQueryResult<R>> {
    const name = preparedName(text);
    this.#sendTogether();
    try {
      const query = name === undefined ? { text, values: [...parameters] } : { name, text, values: [...parameters] };
      return (await this.#client.query(query)) as unknown as PostgresQueryResult<R>;
    } catch (error) {
      // No answer of PostgreSQL: lost, or timed out here while the statement goes on there.
      if (isConnectionFailure(error)) this.#isBroken = true;
      throw toDatabaseError(error, true);
    }
  }

  /** What is sent before others get their turn leaves in one write: each costs more than most statements. */
  #sendTogether(): void {
    const { stream } = (this.#client as unknown as { readonly connection: { readonly stream: Writable } }).connection;
    stream.cork();
    process.nextTick(() => stream.uncork());
  }

  release(discard?: boolean): void {
    this.#client.release(discard === true || this.#isBroken);
  }
}

/**
 * Marks a statement that is sent so often that parsing it each time would
 * count: it is prepared once a connection. To stand at its begin, with a name
 * of its own. For statements whose plan does not depend on the values.
 */
export const preparedMark = "/* prepared: ";

function preparedName(text: string): string | undefined {
  if (!text.startsWith(preparedMark)) return undefined;
  return text.slice(preparedMark.length, text.indexOf(" */"));
}

/** A client whose attempts to connect pass the gate. */
function gatedClient(gate: ConnectGate): typeof pg.Client {
  return class extends pg.Client {
    // The pool connects with a callback; with a promise only in our own hands.
    override connect(): Promise<this>;
    override connect(callback: (error: Error) => void): void;
    override connect(callback?: (error: Error) => void): Promise<this> | undefined {
      const connected = gate.attempt(async () => {
        await super.connect();
        return this;
      });
      if (callback === undefined) return connected;
      connected.then(
        () => (callback as (error?: Error) => void)(),
        (error: Error) => callback(error),
      );
      return undefined;
    }
  } as unknown as typeof pg.Client;
}

function toConnectError(error: unknown, pool: pg.Pool): unknown {
  if (error instanceof Error && error.message === "timeout exceeded when trying to connect") {
    const message = `no connection to the database was free within ${connectTimeoutMs} ms (${pool.totalCount} in use)`;
    return new AppError("UNAVAILABLE", message, { cause: error, retryAfterMs: 1_000 });
  }
  // A wrong password or role is a matter of configuration, but may be mended while we run: not reachable either.
  if (error instanceof pg.DatabaseError) {
    const message = `the database refuses connections (${error.code ?? "unknown"})`;
    return new AppError("UNAVAILABLE", message, { cause: error, retryAfterMs: 1_000 });
  }
  return toDatabaseError(error, false);
}
