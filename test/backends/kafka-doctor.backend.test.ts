import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createServer } from "node:tls";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { runProgram } from "../support/run-program.ts";
import { freePorts } from "./free-ports.ts";
import { createTestAuthority } from "./kafka-certificates.ts";

// What `cadre doctor` says of a Kafka that is not as it should be, where no
// server runs. Topics that are missing or have other partitions are in
// `kafka-cli.backend.test.ts`.

const connection = inject("secureKafka");
const password = connection.sasl?.password ?? "";
let directory: string;
let authority: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "cadre-doctor-"));
  authority = await file("authority.pem", connection.tls?.authority ?? "");
});
afterAll(() => rm(directory, { recursive: true, force: true }));

async function file(name: string, text: string): Promise<string> {
  const path = join(directory, name);
  await writeFile(path, text, { mode: 0o600 });
  return path;
}

interface Finding {
  readonly name: string;
  readonly state: string;
  readonly detail: string;
  readonly remedy: string;
}

/** What it says of Kafka, and all that it printed. */
async function doctor(settings: Readonly<Record<string, string>>): Promise<{ kafka: Finding; printed: string }> {
  const given = Object.entries({
    CADRE_BUS: "kafka",
    CADRE_DATA: join(directory, "data"),
    CADRE_URL: "http://127.0.0.1:9",
    CADRE_KAFKA_BROKERS: connection.brokers.join(","),
    ...settings,
  }).map(([name, value]) => `${name}=${value}`);
  const program = [process.execPath, "cli/bin/cadre.js", "doctor", "--json"];
  const { stdout, stderr, code } = await runProgram("env", [...given, ...program], { timeoutMs: 60_000 });
  expect(code, stderr).not.toBe(0);
  const { findings } = JSON.parse(stdout) as { readonly findings: readonly Finding[] };
  const kafka = findings.find(({ name }) => name === "kafka");
  if (kafka === undefined) throw new Error(`nothing of Kafka: ${stdout}`);
  return { kafka, printed: `${stdout}${stderr}` };
}

const secure = async () => ({
  CADRE_KAFKA_TLS: "true",
  CADRE_KAFKA_CA_FILE: authority,
  CADRE_KAFKA_USERNAME: connection.sasl?.username ?? "",
  CADRE_KAFKA_PASSWORD_FILE: await file("password", password),
});

test("brokers that cannot be reached", async () => {
  const [port] = await freePorts(1);
  const { kafka } = await doctor({ CADRE_KAFKA_BROKERS: `127.0.0.1:${port}` });
  expect(kafka).toMatchObject({
    state: "failed",
    detail: expect.stringContaining(`Kafka cannot be reached at 127.0.0.1:${port}`),
    remedy: "Start the brokers, or correct CADRE_KAFKA_BROKERS and CADRE_KAFKA_TLS.",
  });
});

test("a wrong password, which is not shown", async () => {
  const wrong = await file("wrong", "not-the-password");
  const { kafka, printed } = await doctor({ ...(await secure()), CADRE_KAFKA_PASSWORD_FILE: wrong });
  expect(kafka).toMatchObject({
    state: "failed",
    detail: "Kafka refuses the user or the password",
    remedy: expect.stringContaining("CADRE_KAFKA_PASSWORD_FILE"),
  });
  expect(printed).not.toContain("not-the-password");
});

test("a certificate of a broker that has expired", async () => {
  const own = await createTestAuthority();
  const { certificate: cert, key } = await own.issue("kafka", -60_000);
  // TLS ends before Kafka begins, so any server does; Kafka itself does not start with such a certificate.
  const server = createServer({ cert, key }).on("tlsClientError", () => undefined);
  try {
    const [port = 0] = await freePorts(1);
    await once(server.listen(port, "127.0.0.1"), "listening");
    const { kafka } = await doctor({
      ...(await secure()),
      CADRE_KAFKA_BROKERS: `127.0.0.1:${port}`,
      CADRE_KAFKA_CA_FILE: await file("own-authority.pem", own.certificate),
    });
    expect(kafka).toMatchObject({
      state: "failed",
      detail: `the certificate of the Kafka broker at 127.0.0.1:${port} has expired`,
      remedy: "Renew the broker's certificate.",
    });
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
});

test("a certificate of ours that has expired", async () => {
  const { certificate, key } = inject("expiredClient");
  const { kafka } = await doctor({
    ...(await secure()),
    CADRE_KAFKA_CERT_FILE: await file("client.pem", certificate),
    CADRE_KAFKA_KEY_FILE: await file("client.key", key),
  });
  expect(kafka).toMatchObject({
    state: "failed",
    detail: expect.stringContaining("refused our side of TLS"),
    remedy: expect.stringContaining("CADRE_KAFKA_CERT_FILE"),
  });
});

test("a password file that is not there", async () => {
  const { kafka } = await doctor({ ...(await secure()), CADRE_KAFKA_PASSWORD_FILE: join(directory, "none") });
  expect(kafka).toMatchObject({
    state: "failed",
    detail: expect.stringContaining("CADRE_KAFKA_PASSWORD_FILE cannot be read"),
  });
});
