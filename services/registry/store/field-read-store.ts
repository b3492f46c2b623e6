import type { FieldReader } from "../domain/field-use.ts";

/** That a consumer group read a field, or samples a message. */
export interface FieldRead {
  readonly typeName: string;
  /** Empty for that it samples the message. */
  readonly field: string;
  readonly group: string;
  readonly lastReadAt: Date;
}

/** A reader with what it read; the field is empty where it samples the message. */
export interface KeptRead extends FieldReader {
  readonly typeName: string;
  readonly field: string;
}

/** What is known of who reads fields, within one transaction of an org. */
export interface FieldReads {
  /** All that is known of messages, last read first. */
  of(typeNames: readonly string[]): Promise<readonly KeptRead[]>;
}

/** The same, and keeps more. */
export interface FieldReadChange extends FieldReads {
  /** Keeps the latest time of each; one from the future counts as now. */
  keep(reads: readonly FieldRead[]): Promise<void>;
}
