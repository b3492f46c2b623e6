import { readFile } from "node:fs/promises";
import { ConfigurationError, defineSettings, type SettingsValues, setting } from "../../config/settings.ts";
import { type KafkaConnection, saslMechanisms } from "./kafka-connection.ts";

/** How Kafka is reached, where `CADRE_BUS=kafka`. */
export const kafkaSettings = defineSettings({
  CADRE_KAFKA_BROKERS: {
    schema: setting
      .list()
      .refine(
        (items) => items.every((item) => /^(\[[0-9a-f:]+\]|[a-z0-9._-]+):\d{1,5}$/i.test(item)),
        "must be host:port, several separated by commas",
      ),
    description:
      "The brokers of Kafka to begin with, host:port, several separated by commas. Needed by CADRE_BUS=kafka.",
  },
  CADRE_KAFKA_TLS: {
    schema: setting.flag(false),
    description: "Whether Kafka is reached by TLS: true or false. Default false.",
  },
  CADRE_KAFKA_CA_FILE: {
    schema: setting.optionalText(),
    description: "The authority that signed the brokers' certificates, PEM. Default: those that the system trusts.",
  },
  CADRE_KAFKA_CERT_FILE: {
    schema: setting.optionalText(),
    description: "A certificate to show to the brokers, PEM; with CADRE_KAFKA_KEY_FILE.",
  },
  CADRE_KAFKA_KEY_FILE: {
    schema: setting.optionalText(),
    description: "The key of CADRE_KAFKA_CERT_FILE, PEM, 0600.",
  },
  CADRE_KAFKA_USERNAME: {
    schema: setting.optionalText(),
    description: "The user that Kafka knows; with CADRE_KAFKA_PASSWORD_FILE. Default: no password is asked for.",
  },
  CADRE_KAFKA_PASSWORD: {
    schema: setting.optionalText(),
    description: "The user's password; prefer CADRE_KAFKA_PASSWORD_FILE.",
    secret: true,
  },
  CADRE_KAFKA_PASSWORD_FILE: {
    schema: setting.optionalText(),
    description: "A file with the user's password; read again for each new connection.",
  },
  CADRE_KAFKA_SASL_MECHANISM: {
    schema: setting.oneOf(saslMechanisms, "scram-sha-512"),
    description: "How the password is proven: scram-sha-512, scram-sha-256 or plain. Default scram-sha-512.",
  },
});

/** The parsed settings. */
export type KafkaConfig = SettingsValues<typeof kafkaSettings>;

/** What is wrong with the settings together, a line each; for where `CADRE_BUS=kafka`. */
export function findKafkaProblems(config: KafkaConfig): string[] {
  const problems: string[] = [];
  const {
    CADRE_KAFKA_BROKERS: brokers,
    CADRE_KAFKA_TLS: isTls,
    CADRE_KAFKA_CERT_FILE: certificate,
    CADRE_KAFKA_KEY_FILE: key,
    CADRE_KAFKA_USERNAME: username,
    CADRE_KAFKA_PASSWORD: password,
    CADRE_KAFKA_PASSWORD_FILE: passwordFile,
  } = config;
  if (brokers.length === 0)
    problems.push("CADRE_KAFKA_BROKERS is not set: CADRE_BUS=kafka needs host:port of a broker");
  for (const name of ["CADRE_KAFKA_CA_FILE", "CADRE_KAFKA_CERT_FILE"] as const) {
    if (config[name] !== undefined && !isTls) problems.push(`${name} is set and CADRE_KAFKA_TLS is not true`);
  }
  if ((certificate === undefined) !== (key === undefined)) {
    problems.push("CADRE_KAFKA_CERT_FILE and CADRE_KAFKA_KEY_FILE need each other");
  }
  if (password !== undefined && passwordFile !== undefined) {
    problems.push("CADRE_KAFKA_PASSWORD and CADRE_KAFKA_PASSWORD_FILE are both set: choose one");
  }
  const hasPassword = password !== undefined || passwordFile !== undefined;
  if ((username === undefined) === hasPassword) {
    problems.push("CADRE_KAFKA_USERNAME and CADRE_KAFKA_PASSWORD_FILE need each other");
  }
  if (config.CADRE_KAFKA_SASL_MECHANISM === "plain" && username !== undefined && !isTls) {
    problems.push("CADRE_KAFKA_SASL_MECHANISM=plain shows the password to the network: set CADRE_KAFKA_TLS=true");
  }
  return problems;
}

/**
 * Reads the files that the settings name.
 *
 * @throws ConfigurationError with every file that cannot be read
 */
export async function readKafkaConnection(config: KafkaConfig): Promise<KafkaConnection> {
  const problems: string[] = [];
  const read = async (
    name: "CADRE_KAFKA_CA_FILE" | "CADRE_KAFKA_CERT_FILE" | "CADRE_KAFKA_KEY_FILE" | "CADRE_KAFKA_PASSWORD_FILE",
  ): Promise<string | undefined> => {
    const file = config[name];
    if (file === undefined) return undefined;
    try {
      return await readFile(file, "utf8");
    } catch (error) {
      problems.push(`${name} cannot be read: ${error instanceof Error ? error.message : String(error)}`);
      return undefined;
    }
  };
  const authority = await read("CADRE_KAFKA_CA_FILE");
  const certificate = await read("CADRE_KAFKA_CERT_FILE");
  const key = await read("CADRE_KAFKA_KEY_FILE");
  const password = config.CADRE_KAFKA_PASSWORD ?? (await read("CADRE_KAFKA_PASSWORD_FILE"))?.trimEnd();
  if (problems.length > 0) throw new ConfigurationError(problems);
  const username = config.CADRE_KAFKA_USERNAME;
  return {
    brokers: config.CADRE_KAFKA_BROKERS,
    ...(config.CADRE_KAFKA_TLS ? { tls: { authority, certificate, key } } : {}),
    ...(username === undefined || password === undefined
      ? {}
      : { sasl: { mechanism: config.CADRE_KAFKA_SASL_MECHANISM, username, password } }),
  };
}
