import { type DescFile, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { ServingState } from "@cadre/gen/cadre/gateway/v1/health_pb";
import type { ContractCheckService, ContractSchema } from "@cadre/gen/cadre/registry/v1/contract_pb";
import { type Client, ConnectError } from "@connectrpc/connect";
import { subjectOf, type Topic } from "../bus/topics.ts";
import type { Logger } from "../log/log.ts";
import type { ServiceName } from "../mesh/mesh.ts";
import { wellKnownFile } from "../reflection/well-known-file.ts";
import type { Dependency, Mode } from "./platform.ts";

/** A topic whose events a service states or handles. */
export type StatedTopic = Pick<Topic, "name" | "message">;

/** Knows whether the contracts of a process's services are registered. */
export interface ContractCheck {
  /**
   * Has the contracts of a service watched: files with all that they import,
   * and what topics carry.
   *
   * @returns what the service's readiness depends on; embedded nothing, there is a warning in the log
   */
  watch(service: ServiceName, files: readonly DescFile[], topics: readonly StatedTopic[]): readonly Dependency[];
  stop(): void;
}

export interface ContractCheckOptions {
  readonly mode: Mode;
  readonly log: Logger;
  /** A service's way to the registry. */
  readonly registryOf: (self: ServiceName) => Pick<Client<typeof ContractCheckService>, "findUnregistered">;
  /** From the last service that is watched to the first question. Default 1 s. */
  readonly firstMs?: number;
  /** Until it is asked again, while something is not registered. Default 5 s. */
  readonly againMs?: number;
}

/** What is registered stays so, but for an admin who deletes it. */
const recheckMs = 60_000;
/** Comparing some thirty files takes a second, and on a machine that is overloaded many. */
const askTimeoutMs = 60_000;
/** They must be up before anything can be registered. */
const exempt: ReadonlySet<ServiceName> = new Set(["registry", "credentials"]);
const remedy = "register them with `cadre contracts push --own`";

type OwnContract = MessageInitShape<typeof ContractSchema> & { readonly path: string; readonly subjects: string[] };

/**
 * Asks the registry, once for all services of the process. In production until
 * everything is registered and then now and then: an answer stays good while
 * the registry is away. Embedded until there is an answer.
 */
export function createContractCheck(options: ContractCheckOptions): ContractCheck {
  const { mode, log, registryOf, firstMs = 1_000, againMs = 5_000 } = options;
  const watched = new Map<ServiceName, readonly OwnContract[]>();
  let unregistered: { readonly absent: readonly string[]; readonly different: readonly string[] } | undefined;
  /** Why there is no answer yet. */
  let doubt = "the registry has not been asked yet";
  let timer: NodeJS.Timeout | undefined;
  let isStopped = false;
  let told = "";

  function schedule(afterMs: number): void {
    clearTimeout(timer);
    if (isStopped) return;
    timer = setTimeout(() => void ask(), afterMs);
    timer.unref();
  }

  async function ask(): Promise<void> {
    const [self] = watched.keys();
    if (self === undefined) return;
    try {
      const contracts = union([...watched.values()].flat());
      const { absent, different } = await registryOf(self).findUnregistered({ contracts }, { timeoutMs: askTimeoutMs });
      unregistered = { absent, different };
    } catch (error) {
      log.debug({ err: error }, "the registry could not be asked whether the contracts are registered");
      doubt = `the registry could not be asked: ${ConnectError.from(error).rawMessage}`;
      return schedule(againMs);
    }
    const { absent, different } = unregistered;
    const isRegistered = absent.length + different.length === 0;
    const news = describe(unregistered);
    if (!isRegistered && news !== told) log.warn({ absent, different }, `contracts of this build are ${news}`);
    told = news;
    if (mode === "production") schedule(isRegistered ? recheckMs : againMs);
  }

  function stateOf(service: ServiceName): { readonly state: ServingState; readonly detail: string } {
    if (unregistered === undefined) {
      return { state: ServingState.NOT_SERVING, detail: doubt };
    }
    const own = new Set(watched.get(service)?.flatMap(({ path, subjects }) => [path, ...subjects]));
    const absent = unregistered.absent.filter((subject) => own.has(subject));
    const different = unregistered.different.filter((subject) => own.has(subject));
    if (absent.length + different.length === 0) return { state: ServingState.SERVING, detail: "" };
    return { state: ServingState.NOT_SERVING, detail: describe({ absent, different }) };
  }

  return {
    watch(service, files, topics) {
      if (exempt.has(service)) return [];
      watched.set(service, contractsOf(files, topics));
      schedule(firstMs);
      return mode === "production" ? [{ name: "contracts", check: async () => stateOf(service) }] : [];
    },
    stop() {
      isStopped = true;
      clearTimeout(timer);
    },
  };
}

/** Files and topics' files with all that they import, each after what it imports. */
function contractsOf(files: readonly DescFile[], topics: readonly StatedTopic[]): readonly OwnContract[] {
  const contracts = new Map<string, OwnContract>();
  const visit = (file: DescFile): void => {
    const path = file.proto.name;
    if (contracts.has(path) || wellKnownFile(path) !== undefined) return;
    for (const dependency of file.dependencies) visit(dependency);
    contracts.set(path, {
      path,
      schema: Buffer.from(toBinary(FileDescriptorProtoSchema, file.proto)).toString("base64"),
      imports: file.proto.dependency.filter((name) => wellKnownFile(name) === undefined),
      subjects: topics.filter(({ message }) => message.file === file).map(subjectOf),
    });
  };
  for (const file of [...files, ...topics.map(({ message }) => message.file)]) visit(file);
  return [...contracts.values()];
}

/** Each file once, with the subjects that any service gives it. */
function union(contracts: readonly OwnContract[]): OwnContract[] {
  const byPath = new Map<string, OwnContract>();
  for (const contract of contracts) {
    const subjects = new Set([...(byPath.get(contract.path)?.subjects ?? []), ...contract.subjects]);
    byPath.set(contract.path, { ...contract, subjects: [...subjects] });
  }
  return [...byPath.values()];
}

function describe({
  absent,
  different,
}: {
  readonly absent: readonly string[];
  readonly different: readonly string[];
}) {
  const parts = [
    ...(absent.length === 0 ? [] : [`not registered: ${list(absent)}`]),
    ...(different.length === 0 ? [] : [`registered differently: ${list(different)}`]),
    remedy,
  ];
  return parts.join("; ");
}

function list(subjects: readonly string[]): string {
  const shown = subjects.slice(0, 5).join(", ");
  return subjects.length > 5 ? `${shown} and ${subjects.length - 5} more` : shown;
}
