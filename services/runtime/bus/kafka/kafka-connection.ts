/** Where Kafka is, and how to be let in. */
export interface KafkaConnection {
  /** `host:port`, one or more to begin with. */
  readonly brokers: readonly string[];
  /** TLS if there; PEM texts. Without `authority` the system's authorities are trusted. */
  readonly tls?: {
    readonly authority?: string | undefined;
    readonly certificate?: string | undefined;
    readonly key?: string | undefined;
  };
  readonly sasl?: { readonly mechanism: SaslMechanism; readonly username: string; readonly password: string };
}

/** How a password is proven. */
export type SaslMechanism = (typeof saslMechanisms)[number];

/** Every way that is supported. `plain` sends the password as it is: with TLS only. */
export const saslMechanisms = ["scram-sha-512", "scram-sha-256", "plain"] as const;
