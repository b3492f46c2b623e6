import { createHash } from "node:crypto";
import { type DescFile, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { AppError } from "../errors/app-error.ts";
import { subjectOf, type Topic, topics } from "./topics.ts";

/** Knows the ids of schemas: one for each version of a file, under the subject of a topic. */
export interface SchemaIds {
  /**
   * The id of a file under a subject.
   *
   * @throws AppError SCHEMA_NOT_REGISTERED if the file is not registered there, or may not be
   */
  idOf(subject: string, file: DescFile): Promise<number>;
  /** The file with that id; `undefined` if it is not known. */
  fileOf(id: number): Promise<DescFile | undefined>;
}

/**
 * Ids without a registry: 31 bits of the digest of a file's descriptor and of
 * all that it imports, so every process of a build gives the same ones, and a
 * changed file another. Ids of other builds are unknown here. Registered is
 * what the topics carry, each under its own subject.
 */
export function createLocalSchemaIds(registered: readonly Pick<Topic, "name" | "message">[] = topics): SchemaIds {
  const files = new Map<number, DescFile>();
  const ids = new Map<DescFile, number>();
  const fileOfSubject = new Map(registered.map((topic) => [subjectOf(topic), topic.message.file]));
  return {
    async idOf(subject, file) {
      if (fileOfSubject.get(subject) !== file) {
        throw new AppError("SCHEMA_NOT_REGISTERED", `${file.name} is not registered under the subject ${subject}`);
      }
      const known = ids.get(file);
      if (known !== undefined) return known;
      const id = digestOf(file).readUInt32BE() & 0x7fffffff;
      const other = files.get(id);
      if (other !== undefined) throw new Error(`${file.name} and ${other.name} have the same local schema id`);
      files.set(id, file);
      ids.set(file, id);
      return id;
    },
    async fileOf(id) {
      return files.get(id);
    },
  };
}

function digestOf(file: DescFile): Buffer {
  const hash = createHash("sha256").update(toBinary(FileDescriptorProtoSchema, file.proto));
  for (const dependency of file.dependencies) hash.update(digestOf(dependency));
  return hash.digest();
}
