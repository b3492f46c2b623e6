import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { type FileDescriptorProto, FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { ToolService } from "@cadre/gen/cadre/tools/v1/tool_pb";
import { ServerReflection } from "@cadre/gen/grpc/reflection/v1/reflection_pb";
import { ServerReflection as ServerReflectionAlpha } from "@cadre/gen/grpc/reflection/v1alpha/reflection_pb";
import { createClient } from "@connectrpc/connect";
import { expect, onTestFinished, test } from "vitest";
import { InteropService } from "../../../test/support/gen/cadre/test/v1/interop_pb.js";
import { interopHandlers } from "../../../test/support/interop-handlers.ts";
import { startMeshPair } from "../../../test/support/mesh-pair.ts";
import { type Implementation, implement } from "../rpc/implementation.ts";
import { reflectionServices } from "./reflection-service.ts";

const tools = { service: ToolService, handlers: {} } as unknown as Implementation;

async function start(plane: "grpc" | "memory") {
  const served = [implement(InteropService, interopHandlers()) as Implementation, tools];
  const pair = await startMeshPair(plane, { implementations: [...served, ...reflectionServices(served)] });
  onTestFinished(() => pair.close());
  return pair;
}

async function ask(plane: "grpc" | "memory", questions: readonly Question[]) {
  const { transport } = await start(plane);
  const answers = [];
  const requests = (async function* () {
    for (const messageRequest of questions) yield { host: "test", messageRequest };
  })();
  for await (const { messageResponse } of createClient(ServerReflection, transport).serverReflectionInfo(requests)) {
    answers.push(messageResponse);
  }
  return answers;
}

type Question =
  | { case: "listServices" | "fileByFilename" | "fileContainingSymbol" | "allExtensionNumbersOfType"; value: string }
  | { case: "fileContainingExtension"; value: { containingType: string; extensionNumber: number } };

function filesOf(answer: Awaited<ReturnType<typeof ask>>[number] | undefined): FileDescriptorProto[] {
  if (answer?.case !== "fileDescriptorResponse") throw new Error(`got ${answer?.case} instead of files`);
  return answer.value.fileDescriptorProto.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes));
}

test.each(["grpc", "memory"] as const)("over %s, it lists what is served, itself included", async (plane) => {
  const [answer] = await ask(plane, [{ case: "listServices", value: "*" }]);
  expect(answer?.case === "listServicesResponse" && answer.value.service.map(({ name }) => name)).toEqual([
    InteropService.typeName,
    ToolService.typeName,
    ServerReflection.typeName,
    ServerReflectionAlpha.typeName,
  ]);
});

test("the file of a symbol comes with all its imports, so that a registry can be built of it", async () => {
  const [answer] = await ask("memory", [
    { case: "fileContainingSymbol", value: "cadre.tools.v1.ToolService.ListTools" },
  ]);
  const [first, ...imports] = filesOf(answer);
  if (first === undefined) throw new Error("no file came");
  expect(first.name).toBe("cadre/tools/v1/tool.proto");
  const registry = createFileRegistry(first, (name) => imports.find((file) => file.name === name));
  expect(registry.getService("cadre.tools.v1.ToolService")?.methods.length).toBe(ToolService.methods.length);
});

test.each([
  { what: "a service", symbol: "cadre.test.v1.InteropService" },
  { what: "a method", symbol: "cadre.test.v1.InteropService.Unary" },
  { what: "a message", symbol: "cadre.test.v1.InteropRequest" },
  { what: "a field", symbol: "cadre.test.v1.InteropRequest.call_id" },
  { what: "an enum", symbol: "cadre.test.v1.Behavior" },
  { what: "an enum's value", symbol: "cadre.test.v1.BEHAVIOR_HANG" },
])("the file of $what is found", async ({ symbol }) => {
  const [answer] = await ask("memory", [{ case: "fileContainingSymbol", value: symbol }]);
  expect(filesOf(answer).map(({ name }) => name)).toEqual(["cadre/test/v1/interop.proto"]);
});

test("imports are sent once a stream, a file that is asked for each time", async () => {
  const question: Question = { case: "fileByFilename", value: "cadre/tools/v1/tool.proto" };
  const [first, second] = await ask("memory", [question, question]);
  expect(filesOf(first).length).toBeGreaterThan(2);
  expect(filesOf(second).map(({ name }) => name)).toEqual(["cadre/tools/v1/tool.proto"]);
});

test("extensions are found by their message and number", async () => {
  const [numbers, file, none] = await ask("memory", [
    { case: "allExtensionNumbersOfType", value: "google.protobuf.MethodOptions" },
    {
      case: "fileContainingExtension",
      value: { containingType: "google.protobuf.MethodOptions", extensionNumber: 72295728 },
    },
    { case: "allExtensionNumbersOfType", value: "cadre.test.v1.InteropRequest" },
  ]);
  expect(numbers?.case === "allExtensionNumbersResponse" && numbers.value.extensionNumber).toContain(72295728);
  expect(filesOf(file)[0]?.name).toBe("google/api/annotations.proto");
  expect(none?.case === "allExtensionNumbersResponse" && none.value.extensionNumber).toEqual([]);
});

test.each([
  { case: "fileByFilename", value: "etc/passwd" },
  { case: "fileContainingSymbol", value: "cadre.test.v1.Nothing" },
  { case: "fileContainingExtension", value: { containingType: "cadre.test.v1.InteropRequest", extensionNumber: 1 } },
  { case: "allExtensionNumbersOfType", value: "cadre.test.v1.Nothing" },
] as const)("what is not there is not_found: $case", async (question) => {
  const [answer] = await ask("memory", [question]);
  expect(answer?.case === "errorResponse" && answer.value.errorCode).toBe(5);
});

test("buf curl lists the services and calls a method by reflection alone", async () => {
  const { address } = await start("grpc");
  const curl = async (...args: string[]) =>
    (
      await promisify(execFile)("node_modules/.bin/buf", [
        "curl",
        "--http2-prior-knowledge",
        "--protocol",
        "grpc",
        ...args,
      ])
    ).stdout;
  expect((await curl("--list-services", `http://${address}`)).split("\n")).toContain("cadre.test.v1.InteropService");
  const called = await curl("--data", '{"callId":"from-buf"}', `http://${address}/cadre.test.v1.InteropService/Unary`);
  expect(JSON.parse(called)).toEqual({ requests: 1 });
});
