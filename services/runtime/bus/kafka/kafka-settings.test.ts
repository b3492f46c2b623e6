import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parseSettings } from "../../config/settings.ts";
import { findKafkaProblems, kafkaSettings, readKafkaConnection } from "./kafka-settings.ts";

const parse = (environment: Record<string, string>) => parseSettings(kafkaSettings, environment);
const brokers = { CADRE_KAFKA_BROKERS: "one:9092, [::1]:9093" };
let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "cadre-kafka-"));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

async function fileWith(name: string, text: string): Promise<string> {
  const path = join(directory, name);
  await writeFile(path, text);
  return path;
}

test.each([
  [{}, ["CADRE_KAFKA_BROKERS"]],
  [brokers, []],
  [{ ...brokers, CADRE_KAFKA_CA_FILE: "ca.pem" }, ["CADRE_KAFKA_CA_FILE"]],
  [{ ...brokers, CADRE_KAFKA_TLS: "true", CADRE_KAFKA_CA_FILE: "ca.pem" }, []],
  [{ ...brokers, CADRE_KAFKA_TLS: "true", CADRE_KAFKA_CERT_FILE: "c.pem" }, ["CADRE_KAFKA_CERT_FILE and"]],
  [{ ...brokers, CADRE_KAFKA_USERNAME: "cadre" }, ["CADRE_KAFKA_USERNAME and"]],
  [{ ...brokers, CADRE_KAFKA_PASSWORD_FILE: "p" }, ["CADRE_KAFKA_USERNAME and"]],
  [
    { CADRE_KAFKA_USERNAME: "cadre", CADRE_KAFKA_PASSWORD: "p", CADRE_KAFKA_PASSWORD_FILE: "p" },
    ["CADRE_KAFKA_BROKERS", "CADRE_KAFKA_PASSWORD and"],
  ],
  [
    {
      ...brokers,
      CADRE_KAFKA_USERNAME: "cadre",
      CADRE_KAFKA_PASSWORD: "p",
      CADRE_KAFKA_SASL_MECHANISM: "plain",
    },
    ["CADRE_KAFKA_SASL_MECHANISM"],
  ],
])("%j: finds everything that is wrong at once", (environment, begins) => {
  const problems = findKafkaProblems(parse(environment));
  expect(problems).toHaveLength(begins.length);
  for (const [index, begin] of begins.entries()) expect(problems[index]).toContain(begin);
});

test("refuses brokers without a port, and unknown mechanisms", () => {
  expect(() => parse({ CADRE_KAFKA_BROKERS: "kafka", CADRE_KAFKA_SASL_MECHANISM: "gssapi" })).toThrow(
    /CADRE_KAFKA_BROKERS.*\n.*CADRE_KAFKA_SASL_MECHANISM/,
  );
});

test("reads the password anew for each connection, without the line's end", async () => {
  const CADRE_KAFKA_PASSWORD_FILE = await fileWith("password", "first\n");
  const config = parse({ ...brokers, CADRE_KAFKA_USERNAME: "cadre", CADRE_KAFKA_PASSWORD_FILE });
  expect(await readKafkaConnection(config)).toEqual({
    brokers: ["one:9092", "[::1]:9093"],
    sasl: { mechanism: "scram-sha-512", username: "cadre", password: "first" },
  });
  await fileWith("password", "second");
  expect((await readKafkaConnection(config)).sasl?.password).toBe("second");
});

test("says every file that cannot be read", async () => {
  const config = parse({
    ...brokers,
    CADRE_KAFKA_TLS: "true",
    CADRE_KAFKA_CA_FILE: join(directory, "absent.pem"),
    CADRE_KAFKA_USERNAME: "cadre",
    CADRE_KAFKA_PASSWORD_FILE: join(directory, "absent"),
  });
  await expect(readKafkaConnection(config)).rejects.toMatchObject({
    problems: [
      expect.stringContaining("CADRE_KAFKA_CA_FILE cannot be read"),
      expect.stringContaining("CADRE_KAFKA_PASSWORD_FILE"),
    ],
  });
});
