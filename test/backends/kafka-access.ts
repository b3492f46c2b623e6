import { randomBytes } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { KafkaConnection } from "../../services/runtime/bus/kafka/kafka-connection.ts";
import { type Certificate, createTestAuthority } from "./kafka-certificates.ts";

/** TLS and a password by SCRAM-SHA-512, for one cluster. */
export interface KafkaAccess {
  /** How a client is let in. */
  readonly client: Required<Pick<KafkaConnection, "tls" | "sasl">>;
  /** A client's certificate that has expired. */
  readonly expired: Certificate;
  /** Files of Kafka's: a broker's key and certificate in one, and the authority. */
  readonly keyStore: string;
  readonly trustStore: string;
}

/** Makes an authority with its certificates, and a user. */
export async function createKafkaAccess(directory: string): Promise<KafkaAccess> {
  const authority = await createTestAuthority();
  const own = await authority.issue("kafka");
  const [keyStore, trustStore] = [join(directory, "broker.pem"), join(directory, "authority.pem")];
  await writeFile(keyStore, `${own.key}${own.certificate}`, { mode: 0o600 });
  await writeFile(trustStore, authority.certificate);
  return {
    client: {
      tls: { authority: authority.certificate },
      sasl: { mechanism: "scram-sha-512", username: "cadre", password: randomBytes(16).toString("hex") },
    },
    expired: await authority.issue("client", -60_000),
    keyStore,
    trustStore,
  };
}
