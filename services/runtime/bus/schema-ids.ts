import { createHash } from "node:crypto";
import { type DescFile, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";

/** Knows the ids of schemas: one for each version of a file, under the subject of a topic. */
export interface SchemaIds {
  /**
   * The id of a file under a subject.
   *
   * @throws AppError if the file is not registered there, or may not be
   */
  idOf(subject: string, file: DescFile): Promise<number>;
  /** The file with that id; `undefined` if it is not known. */
  fileOf(id: number): Promise<DescFile | undefined>;
}

/**
 * Ids without a registry: 31 bits of the digest of a file's descriptor and of
 * all that it imports, so every process of a build gives the same ones, and a
 * changed file another. Ids of other builds are unknown here.
 */
export function createLocalSchemaIds(): SchemaIds {
  const files = new Map<number, DescFile>();
  const ids = new Map<DescFile, number>();
  return {
    async idOf(_subject, file) {
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
