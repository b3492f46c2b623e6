import { createFileRegistry, type DescFile, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { inProtoWorkspace, workspaceModule } from "../buf/proto-workspace.ts";
import { type BufResult, programOf, runBuf } from "../buf/run-buf.ts";
import { exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";
import type { FetchedContract } from "./fetch-contracts.ts";

/** What protovalidate comes with: two copies of its descriptor would not match. */
const validatePath = "buf/validate/validate.proto";

/** Whether files use the rules of protovalidate. */
export function usesValidate(files: readonly FetchedContract[]): boolean {
  return files.some(({ path }) => path === validatePath);
}

/**
 * Writes the code of all files into a directory: JavaScript with declarations,
 * by protoc-gen-es, with the comments of the contracts.
 *
 * @param out absolute; what is in it goes
 * @returns the files' descriptors, by path
 * @throws CliError if the files do not compile together
 */
export function generateCode(files: readonly FetchedContract[], out: string): Promise<ReadonlyMap<string, DescFile>> {
  const sources = files.map(({ path, version }) => ({ path, text: version.schema, isForeign: false }));
  return inProtoWorkspace(sources, async (workspace) => {
    const built = await runBuf(
      ["build", workspaceModule.own, "--as-file-descriptor-set", "-o", "-#format=binpb"],
      workspace,
    );
    assertDone(built);
    const isValidated = usesValidate(files);
    const template = {
      version: "v2",
      clean: true,
      plugins: [
        {
          local: [process.execPath, programOf("@bufbuild/protoc-gen-es", "protoc-gen-es")],
          out,
          opt: [
            "target=js+dts",
            "import_extension=js",
            ...(isValidated ? ["rewrite_imports=./buf/validate/*_pb.js:@bufbuild/protovalidate/gen"] : []),
          ],
        },
      ],
    };
    const exclude = isValidated ? ["--exclude-path", `${workspaceModule.own}/${validatePath}`] : [];
    assertDone(
      await runBuf(["generate", workspaceModule.own, "--template", JSON.stringify(template), ...exclude], workspace),
    );
    const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, built.stdout));
    return new Map([...registry.files].map((file) => [file.proto.name, file]));
  });
}

function assertDone({ code, stderr }: BufResult): void {
  if (code !== 0) throw new CliError(exitCode.failed, `no code can be made of the contracts: ${stderr.trim()}`);
}
