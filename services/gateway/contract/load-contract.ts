import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { type DescService, getOption } from "@bufbuild/protobuf";
import { Exposure, exposure, host } from "@cadre/gen/cadre/options/v1/options_pb";

/** The services of the contract, as this build knows them. */
export interface Contract {
  /** What callers outside reach through the gateway, by name. */
  readonly publicServices: readonly DescService[];
  /** Every process that some service of the contract names as its host, by name. */
  readonly hosts: readonly string[];
}

/**
 * Reads the contract from the generated code: whatever is generated under
 * `cadre/` is in it, so a new service is served without being listed anywhere.
 *
 * @throws TypeError if a public service cannot be offered as it is declared
 */
export async function loadContract(): Promise<Contract> {
  const root = fileURLToPath(new URL("../../../gen/src/cadre/", import.meta.url));
  const entries = await readdir(root, { recursive: true, withFileTypes: true });
  const paths = entries
    .filter((entry) => entry.isFile() && entry.name.endsWith("_pb.js"))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
  const modules = await Promise.all(
    paths.map(async (path): Promise<Readonly<Record<string, unknown>>> => import(pathToFileURL(path).href)),
  );
  return toContract(modules.flatMap((module) => Object.values(module).filter(isService)));
}

/**
 * Sorts services into a contract.
 *
 * @throws TypeError if a public service cannot be offered as it is declared
 */
export function toContract(services: readonly DescService[]): Contract {
  const publicServices = services
    .filter((service) => getOption(service, exposure) === Exposure.PUBLIC)
    .sort((a, b) => (a.typeName < b.typeName ? -1 : 1));
  for (const service of publicServices) assertOffered(service);
  const hosts = new Set(services.map((service) => getOption(service, host)).filter((name) => name !== "*"));
  return { publicServices, hosts: [...hosts].sort() };
}

/**
 * Browsers can send one message a call and no more, so a public method takes
 * one; and a public service says which process serves it.
 *
 * @throws TypeError naming the method or service
 */
export function assertOffered(service: DescService): void {
  const name = getOption(service, host);
  if (name === "" || name === "*") throw new TypeError(`${service.typeName} is public and names no host`);
  for (const method of service.methods) {
    if (method.methodKind === "client_streaming" || method.methodKind === "bidi_streaming") {
      throw new TypeError(
        `${service.typeName}.${method.name} is public and takes a stream, which browsers cannot send`,
      );
    }
  }
}

function isService(value: unknown): value is DescService {
  return typeof value === "object" && value !== null && "kind" in value && value.kind === "service";
}
