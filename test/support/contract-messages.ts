import { readFileSync } from "node:fs";
import { createFileRegistry, type DescMessage, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";

/** Our contracts, read from their descriptors and not from the generated code. */
export const contract = createFileRegistry(
  fromBinary(FileDescriptorSetSchema, readFileSync(new URL("../../gen/descriptor-set.binpb", import.meta.url))),
);

/** Each message type that is ours. */
export const contractMessages: readonly DescMessage[] = [...contract].filter(
  (type): type is DescMessage => type.kind === "message" && type.typeName.startsWith("cadre."),
);
