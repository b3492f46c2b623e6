/** The languages of schemas that are kept. Only Protobuf is understood. */
export type SchemaType = "AVRO" | "JSON" | "PROTOBUF";

/** A version of a subject that a schema imports. */
export interface Reference {
  /** How the schema names it: in Protobuf the path of the import. */
  readonly name: string;
  readonly subject: string;
  readonly version: number;
}

/** A schema as somebody sent it. */
export interface SchemaInput {
  readonly type: SchemaType;
  /** Its text, or for Protobuf a `FileDescriptorProto` in base64. */
  readonly schema: string;
  readonly references: readonly Reference[];
  readonly normalize: boolean;
  /** What a Protobuf file is called that does not say so itself. */
  readonly name?: string;
}

/** A schema that was understood as far as its language is. */
export interface ReadSchema {
  readonly type: SchemaType;
  readonly text: string;
  /** Of Protobuf: the `FileDescriptorProto`, whose types have their full names. */
  readonly descriptor: Uint8Array | undefined;
  readonly references: readonly Reference[];
  /** SHA-256 over language, content and references: the same for what is one schema. Comments and layout do not count. */
  readonly digest: Uint8Array;
  /** SHA-256 over the content alone. */
  readonly contentDigest: Uint8Array;
}
