import { createFileRegistry, type DescService, fromBinary, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { HealthService, ReadinessService } from "@cadre/gen/cadre/gateway/v1/health_pb";
import { SessionService } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { ToolExecutionService } from "@cadre/gen/cadre/tools/v1/tool_pb";
import { expect, test } from "vitest";
import { assertOffered, loadContract, toContract } from "./load-contract.ts";

test("what is generated is the contract: public services by name, every host once", async () => {
  const contract = await loadContract();
  expect(contract.publicServices).toContain(SessionService);
  expect(contract.publicServices).toContain(HealthService);
  expect(contract.publicServices).not.toContain(ToolExecutionService);
  expect(contract.hosts).toEqual(["credentials", "events", "gateway", "orchestrator", "registry", "tools"]);
});

test("an internal service is never offered, also when it is given by hand", () => {
  expect(toContract([ToolExecutionService, ReadinessService]).publicServices).toEqual([]);
});

test.each([
  ["client", { clientStreaming: true, serverStreaming: false }],
  ["both", { clientStreaming: true, serverStreaming: true }],
])("a public method that takes a stream is refused (%s streaming)", (_, streaming) => {
  const service = altered((method) => Object.assign(method, streaming));
  expect(() => assertOffered(service)).toThrow(/SessionService\.CreateSession is public and takes a stream/);
});

/** The sessions' service with its first method changed. */
function altered(change: (method: { clientStreaming: boolean; serverStreaming: boolean }) => void): DescService {
  const file = fromBinary(FileDescriptorProtoSchema, toBinary(FileDescriptorProtoSchema, SessionService.file.proto));
  const method = file.service[0]?.method[0];
  if (method === undefined) throw new TypeError("the service has no method");
  change(method);
  const set = fromBinary(FileDescriptorSetSchema, new Uint8Array());
  const imports = [...dependencies(SessionService.file)].map((dependency) => dependency.proto);
  set.file.push(...imports, file);
  const service = createFileRegistry(set).getService(SessionService.typeName);
  if (service === undefined) throw new TypeError("the altered file has no service");
  return service;
}

function* dependencies(file: DescService["file"], seen = new Set<string>()): Generator<DescService["file"]> {
  for (const dependency of file.dependencies) {
    if (seen.has(dependency.name)) continue;
    seen.add(dependency.name);
    yield* dependencies(dependency, seen);
    yield dependency;
  }
}
