import { existsSync, readFileSync, statSync } from "node:fs";
import type { Environment } from "../config/settings.ts";
import { isLoopbackHost } from "../edge/authority.ts";
import { isExampleKey, keyBytesOf } from "./example-key.ts";

/** What the check reads of the process; injected for tests. */
export interface ProcessFacts {
  readonly userId: number | undefined;
  readonly nodeOptions: string;
  readonly execArgv: readonly string[];
  readonly rejectsUnauthorizedTls: boolean;
}

/** The facts of this process. */
export function currentProcessFacts(): ProcessFacts {
  return {
    userId: process.getuid?.(),
    nodeOptions: process.env.NODE_OPTIONS ?? "",
    execArgv: process.execArgv,
    rejectsUnauthorizedTls: process.env.NODE_TLS_REJECT_UNAUTHORIZED !== "0",
  };
}

const weakPasswords: ReadonlySet<string> = new Set([
  "",
  "postgres",
  "password",
  "cadre",
  "admin",
  "secret",
  "changeme",
]);

/**
 * Why production refuses to start: a line for each unsafe setting, with the
 * remedy and never the value. Empty when it may start.
 */
export function findUnsafeSettings(environment: Environment, facts: ProcessFacts): string[] {
  return [
    ...databaseProblems(environment),
    ...kafkaProblems(environment),
    ...listenerProblems(environment),
    ...meshProblems(environment),
    ...fileProblems(environment),
    ...processProblems(facts),
    ...behaviourProblems(environment),
  ];
}

function databaseProblems(environment: Environment): string[] {
  const text = environment.CADRE_DATABASE_URL;
  if (text === undefined) {
    return ["CADRE_DATABASE_URL is not set: production needs a PostgreSQL of your own; name it"];
  }
  if (!URL.canParse(text)) return [];
  const url = new URL(text);
  const problems: string[] = [];
  if (weakPasswords.has(decodeURIComponent(url.password)) || url.password === url.username) {
    problems.push("CADRE_DATABASE_URL has no password or a well-known one: set a strong one");
  }
  const tls = url.searchParams.get("sslmode") ?? "disable";
  if (!isLoopbackHost(url.hostname) && !["verify-full", "verify-ca", "require"].includes(tls)) {
    problems.push("CADRE_DATABASE_URL crosses hosts in plain text: add sslmode=verify-full");
  }
  return problems;
}

function kafkaProblems(environment: Environment): string[] {
  if (environment.CADRE_BUS !== "kafka") return [];
  const problems: string[] = [];
  const hosts = (environment.CADRE_KAFKA_BROKERS ?? "").split(",").map((broker) => broker.trim().replace(/:\d+$/, ""));
  if (environment.CADRE_KAFKA_TLS !== "true" && !hosts.every(isLoopbackHost)) {
    problems.push("CADRE_KAFKA_BROKERS are reached across hosts in plain text: set CADRE_KAFKA_TLS=true");
  }
  const file = environment.CADRE_KAFKA_PASSWORD_FILE;
  if (file !== undefined && existsSync(file) && (statSync(file).mode & 0o077) !== 0) {
    problems.push("CADRE_KAFKA_PASSWORD_FILE can be read by others: chmod 600");
  }
  return problems;
}

function listenerProblems(environment: Environment): string[] {
  const problems: string[] = [];
  const hasTls = environment.CADRE_TLS_CERT_FILE !== undefined && environment.CADRE_TLS_KEY_FILE !== undefined;
  if (!isLoopbackHost(environment.CADRE_HOST ?? "127.0.0.1") && !hasTls) {
    problems.push("CADRE_HOST is public and there is no TLS: set CADRE_TLS_CERT_FILE and CADRE_TLS_KEY_FILE");
  }
  if (!isLoopbackHost(environment.CADRE_HOST ?? "127.0.0.1") && (environment.CADRE_AUTHORITIES ?? "").trim() === "") {
    problems.push("CADRE_HOST is public and CADRE_AUTHORITIES is not set: name the hosts that callers use");
  }
  if ((environment.CADRE_CORS_ORIGINS ?? "").split(",").some((origin) => origin.trim() === "*")) {
    problems.push("CADRE_CORS_ORIGINS admits every origin: name each one");
  }
  return problems;
}

const meshNames = ["CREDENTIALS", "REGISTRY", "TOOLS", "ORCHESTRATOR", "EVENTS", "GATEWAY"] as const;

function meshProblems(environment: Environment): string[] {
  const isSplit = meshNames.some((name) => (environment[`CADRE_MESH_${name}`] ?? "") !== "");
  const missing = ["CADRE_MESH_CA_FILE", "CADRE_MESH_CERT_FILE", "CADRE_MESH_KEY_FILE"].filter(
    (name) => environment[name] === undefined,
  );
  return isSplit && missing.length > 0
    ? [`${missing.join(", ")} not set: services call each other by mutual TLS only; name the files`]
    : [];
}

/** Every setting that names a file with a secret ends like this. */
const secretFile = /^CADRE_\w+_KEY_FILE$/;

function fileProblems(environment: Environment): string[] {
  return Object.entries(environment).flatMap(([name, file]) => {
    if (!secretFile.test(name) || file === undefined) return [];
    // `{service}` stands for a service's name: whichever of them this machine has.
    const files = [file, ...meshNames.map((service) => file.replaceAll("{service}", service.toLowerCase()))];
    const found = new Set(files.filter((path) => existsSync(path)));
    if (found.size === 0) return [`${name} names no file: correct the path`];
    const facts = [...found].map((path) => statSync(path));
    const problems: string[] = [];
    if (facts.some(({ mode }) => (mode & 0o077) !== 0)) problems.push(`${name} can be read by others: chmod 600`);
    const keys = [...found].map((path) => readFileSync(path, "utf8"));
    if (keys.some((key) => keyBytesOf(key) < 32)) {
      problems.push(`${name} holds a key of less than 32 bytes: make a strong key`);
    } else if (keys.some(isExampleKey)) {
      problems.push(`${name} holds an example, which anybody can guess: make a random key`);
    }
    return problems;
  });
}

function processProblems(facts: ProcessFacts): string[] {
  const problems: string[] = [];
  const flags = `${facts.nodeOptions} ${facts.execArgv.join(" ")}`;
  if (/--inspect/.test(flags)) problems.push("the inspector is open (--inspect): start without it");
  if (/(^|\s)(--require|-r|--import|--loader|--experimental-loader)(\s|=|$)/.test(facts.nodeOptions)) {
    problems.push("NODE_OPTIONS loads code of others (--require, --import or --loader): start without it");
  }
  if (!facts.rejectsUnauthorizedTls) {
    problems.push("NODE_TLS_REJECT_UNAUTHORIZED=0 accepts every certificate: unset it");
  }
  if (facts.userId === 0) problems.push("runs as root: start as a user of its own");
  return problems;
}

function behaviourProblems(environment: Environment): string[] {
  const problems: string[] = [];
  if (environment.CADRE_REFLECTION === "true") problems.push("CADRE_REFLECTION is on: unset it");
  if (environment.CADRE_LOG_LEVEL === "debug") problems.push("CADRE_LOG_LEVEL is debug: set info or less");
  if ((environment.CADRE_EGRESS_ALLOW ?? "").split(",").some((host) => host.trim() === "*")) {
    problems.push("CADRE_EGRESS_ALLOW admits every host: name each one");
  }
  return problems;
}
