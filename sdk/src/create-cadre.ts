import { IdentityService, type Org, type Principal } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { type GetHealthResponse, HealthService } from "@cadre/gen/cadre/gateway/v1/health_pb";
import type { Transport } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import { type Agents, createAgents } from "./agent.ts";
import { type CallOptions, createCaller, required } from "./caller.ts";
import { type Contracts, createContracts } from "./contract.ts";
import { createDeadLetters, type DeadLetters } from "./dead-letter.ts";
import { createKeys, type Keys } from "./key.ts";
import { createLimits, type Limits } from "./limit.ts";
import { createModels, type Models } from "./model.ts";
import { type RetryOptions, toRetryPolicy } from "./retry.ts";
import { createRuns, type Runs } from "./runs/runs.ts";
import { createSchedules, type Schedules } from "./runs/schedules.ts";
import { createSchemas, type Schemas } from "./schema.ts";
import { createSessions, type Sessions } from "./session.ts";
import { createTools, type Tools } from "./tool.ts";

/** Where the server is, and how to call it. */
export interface CadreOptions {
  /** The server's URL, for example `http://127.0.0.1:8010`; a path is kept. */
  readonly baseUrl: string;
  /**
   * An API key or a JWT, or a function that gives one; it is asked before each
   * call, so that a short-lived credential can be renewed. What it throws, the
   * call throws.
   */
  readonly apiKey?: string | (() => string | Promise<string>);
  /** Instead of the runtime's `fetch`. */
  readonly fetch?: typeof globalThis.fetch;
  /** Instead of Connect over `fetch`; `baseUrl` and `fetch` are then not used. */
  readonly transport?: Transport;
  /** How long a call may take with its retries, in milliseconds; 30,000 unless said, 0 is for ever. */
  readonly timeoutMs?: number;
  /** How calls that failed in passing are tried again. */
  readonly retry?: RetryOptions;
}

/** Whom a credential stands for. */
export interface Identity {
  readonly principal: Principal;
  readonly org: Org;
}

/** A client of a Cadre server. Holds no connection: nothing needs to be closed. */
export interface Cadre {
  /** Conversations with agents. */
  readonly sessions: Sessions;
  /** Durable runs of graphs. */
  readonly runs: Runs;
  /** Runs that start by the clock. */
  readonly schedules: Schedules;
  /** The agents of the org. */
  readonly agents: Agents;
  /** The models that agents can use. */
  readonly models: Models;
  /** The tools of the org, and a way to serve own ones. */
  readonly tools: Tools;
  /** The API keys of the org. */
  readonly keys: Keys;
  /** The limits of the org. */
  readonly limits: Limits;
  /** The events of the org that consumers could not handle. */
  readonly deadLetters: DeadLetters;
  /** The schema registry of the org. */
  readonly schemas: Schemas;
  /** The same for whole sets of `.proto` files. */
  readonly contracts: Contracts;
  /** Says whom the client's credential stands for. @throws CadreError `UNAUTHENTICATED` */
  principal(options?: CallOptions): Promise<Identity>;
  /** Says how the installation is; wants the role `admin` and the scope `ops.read`. */
  health(options?: CallOptions): Promise<GetHealthResponse>;
}

/**
 * Creates a client. The same in Node and in browsers; it speaks Connect over
 * `fetch` with binary messages.
 *
 * Calls have a timeout and are tried again where that does no harm: reads and
 * idempotent methods always, others with an idempotency key that stays the
 * same. A redirect is an error, so that the key goes nowhere else.
 *
 * @throws TypeError if an option makes no sense
 *
 * @example
 * ```ts
 * import { createCadre } from "@cadre/sdk";
 *
 * const cadre = createCadre({ baseUrl: "http://127.0.0.1:8010", apiKey: process.env.CADRE_API_KEY ?? "" });
 * const session = await cadre.sessions.create({ agent: "assistant" });
 * for await (const { body } of session.stream("What is 6 times 7?")) {
 *   if (body.case === "textDelta") process.stdout.write(body.value.text);
 * }
 * ```
 */
export function createCadre(options: CadreOptions): Cadre {
  const { apiKey, timeoutMs = 30_000 } = options;
  if (!(timeoutMs >= 0)) throw new TypeError("timeoutMs must not be negative");
  const transport = options.transport ?? createFetchTransport(options);
  const caller = createCaller({ transport, apiKey, timeoutMs, retry: toRetryPolicy(options.retry) });
  return {
    sessions: createSessions(caller),
    runs: createRuns(caller),
    schedules: createSchedules(caller),
    agents: createAgents(caller),
    models: createModels(caller),
    tools: createTools(caller),
    keys: createKeys(caller),
    limits: createLimits(caller),
    deadLetters: createDeadLetters(caller),
    schemas: createSchemas(caller),
    contracts: createContracts(caller),
    async principal(callOptions) {
      const { principal, org } = await caller.unary(IdentityService.method.getPrincipal, {}, callOptions);
      return { principal: required(principal, "the principal"), org: required(org, "the org") };
    },
    health: (callOptions) => caller.unary(HealthService.method.getHealth, {}, callOptions),
  };
}

function createFetchTransport({ baseUrl, fetch }: CadreOptions): Transport {
  if (!URL.canParse(baseUrl) || !/^https?:/.test(baseUrl)) {
    throw new TypeError("baseUrl must be an http or https URL, for example http://127.0.0.1:8010");
  }
  return createConnectTransport({ baseUrl, useBinaryFormat: true, ...(fetch === undefined ? {} : { fetch }) });
}
