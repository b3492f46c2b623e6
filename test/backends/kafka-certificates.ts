// The certificate library wants this loaded before it.
import "reflect-metadata";
import * as x509 from "@peculiar/x509";

/** A certificate and its key, PEM; ECDSA on P-256, which Java and OpenSSL both take. */
export interface Certificate {
  readonly certificate: string;
  readonly key: string;
}

/** An authority of a test's own. */
export interface TestAuthority {
  readonly certificate: string;
  /**
   * Issues a certificate for 127.0.0.1 and `localhost`.
   *
   * @param endsInMs how long it is good for; negative if it has ended already
   */
  issue(name: string, endsInMs?: number): Promise<Certificate>;
}

const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const dayMs = 86_400_000;

/** Makes an authority that is good for a day. */
export async function createTestAuthority(): Promise<TestAuthority> {
  const keys = await generateKeys();
  const self = await x509.X509CertificateGenerator.createSelfSigned({
    name: "CN=Kafka test authority",
    keys,
    signingAlgorithm: algorithm,
    notBefore: new Date(Date.now() - dayMs),
    notAfter: new Date(Date.now() + dayMs),
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
    ],
  });
  return {
    certificate: `${self.toString("pem")}\n`,
    async issue(name, endsInMs = dayMs) {
      const own = await generateKeys();
      const certificate = await x509.X509CertificateGenerator.create({
        subject: `CN=${name}`,
        issuer: self.subject,
        notBefore: new Date(Date.now() - dayMs),
        notAfter: new Date(Date.now() + endsInMs),
        publicKey: own.publicKey,
        signingKey: keys.privateKey,
        signingAlgorithm: algorithm,
        extensions: [
          new x509.SubjectAlternativeNameExtension([
            { type: "dns", value: "localhost" },
            { type: "ip", value: "127.0.0.1" },
          ]),
        ],
      });
      const pkcs8 = Buffer.from(await crypto.subtle.exportKey("pkcs8", own.privateKey)).toString("base64");
      const key = `-----BEGIN PRIVATE KEY-----\n${pkcs8.replace(/.{64}/g, "$&\n")}\n-----END PRIVATE KEY-----\n`;
      return { certificate: `${certificate.toString("pem")}\n`, key };
    },
  };
}

function generateKeys(): Promise<CryptoKeyPair> {
  return crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]) as Promise<CryptoKeyPair>;
}
