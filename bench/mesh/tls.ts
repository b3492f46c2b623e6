import { issueCertificate, makeAuthority } from "../../services/runtime/identity/dev-certificate.ts";
import { spiffeId } from "../../services/runtime/identity/spiffe-id.ts";
import type { ServiceName } from "../../services/runtime/mesh/mesh.ts";
import type { TlsMaterial } from "../../services/runtime/mesh/tls.ts";

/** What both sides of every contestant show each other. */
export interface MeshTls {
  readonly client: TlsMaterial;
  readonly server: TlsMaterial;
}

/** Makes an authority and a certificate for the client, `gateway`, and the server, `orchestrator`. */
export async function makeTls(): Promise<MeshTls> {
  const validity = { fromMs: Date.now() - 60_000, toMs: Date.now() + 24 * 3_600_000 };
  const authority = await makeAuthority(validity);
  const issue = async (service: ServiceName): Promise<TlsMaterial> => {
    const { certificate, key } = await issueCertificate(authority, service, spiffeId(service), validity);
    return { authority: authority.certificate, certificate, privateKey: key };
  };
  return { client: await issue("gateway"), server: await issue("orchestrator") };
}
