import type { ReadSchema, Reference, SchemaType } from "../domain/schema.ts";
import type { OwnSettings, SettingsPair } from "../domain/settings.ts";
import type { FieldReadChange, FieldReads } from "./field-read-store.ts";
import type { ReviewChange, ReviewView } from "./review-store.ts";

/** A schema with its id, which is the same under all subjects. */
export interface StoredSchema {
  readonly schemaId: number;
  readonly type: SchemaType;
  readonly text: string;
  /** Of Protobuf: its `FileDescriptorProto`. */
  readonly descriptor: Uint8Array | undefined;
  readonly references: readonly Reference[];
}

/** A version of a subject, as far as its own row says. */
export interface VersionRow {
  readonly subject: string;
  readonly version: number;
  readonly schemaId: number;
  readonly deleted: boolean;
  /** Why it was registered although it did not agree with those before; empty if it did. */
  readonly forcedReason: string;
}

/** How a version came to be. */
export interface VersionOrigin extends VersionRow {
  readonly registeredAt: Date;
  /** Who registered it; empty of a version from before this was kept. */
  readonly registeredBy: string;
  /** The digest of the set that it was pushed with; empty if it came by itself. */
  readonly setDigest: string;
  /** The UUID of the review that it was approved in. */
  readonly reviewId: string | undefined;
  /** Who asked for that review; empty if there was none. */
  readonly requestedBy: string;
}

/** A file that schemas import, themselves or through others. */
export interface ImportedFile {
  /** The path of the import. */
  readonly name: string;
  /** The schema that stands for it. */
  readonly schemaId: number;
  /** The size of its descriptor. */
  readonly bytes: number;
}

/** Which subjects, or versions, by whether they are deleted. */
export type Presence = "live" | "all" | "deleted";

/** A page of a list. */
export interface Page {
  readonly offset: number;
  readonly limit: number;
}

/** What is read within one transaction of an org. */
export interface RegistryView {
  /** Names of subjects that begin with a prefix, by their bytes. A subject is live with one version that is. */
  subjects(prefix: string, presence: Presence, page: Page): Promise<readonly string[]>;
  /** A subject's versions with the deleted ones, ascending. */
  versions(subject: string): Promise<readonly VersionRow[]>;
  /** How a subject's versions came to be, the deleted ones too, ascending. */
  history(subject: string, page: Page): Promise<readonly VersionOrigin[]>;
  /** Schemas by their ids, in no order; those that no version has, deleted or not, are left out. */
  schemas(schemaIds: readonly number[]): Promise<readonly StoredSchema[]>;
  /** The id of a schema by its digest, also if no version has it now. */
  schemaIdOf(digest: Uint8Array): Promise<number | undefined>;
  /** What schemas import, themselves or through others; at most `limit`. */
  imports(schemaIds: readonly number[], limit: number): Promise<readonly ImportedFile[]>;
  /** The `FileDescriptorProto`s of schemas by their ids, also of those that no version has; without those that have none. */
  descriptors(schemaIds: readonly number[]): Promise<ReadonlyMap<number, Uint8Array>>;
  /** The versions that a schema is, by subject and number; at most `limit`. */
  usages(schemaId: number, limit: number): Promise<readonly VersionRow[]>;
  /** The ids of live schemas that refer to a version, ascending; at most `limit`. */
  referencing(subject: string, version: number, limit: number): Promise<readonly number[]>;
  settings(subject: string): Promise<SettingsPair>;
  countSubjects(): Promise<number>;
  /** How many subjects have settings of their own. */
  countSettings(): Promise<number>;
  readonly reviews: ReviewView;
  readonly fieldReads: FieldReads;
}

/** What is changed within one transaction that has its subjects for itself. */
export interface RegistryChange extends RegistryView {
  readonly reviews: ReviewChange;
  readonly fieldReads: FieldReadChange;
  /** Keeps versions from being deleted until the transaction ends. False if one is deleted, or is not there. */
  hold(references: readonly Reference[]): Promise<boolean>;
  /** Stores a schema, or finds the one with its digest. */
  addSchema(schema: ReadSchema, referencedIds: readonly number[]): Promise<number>;
  /**
   * @param by who registers it
   * @param reviewId the UUID of the review that it is approved in
   */
  addVersion(row: Omit<VersionRow, "deleted">, by: string, reviewId: string | undefined): Promise<void>;
  /** Keeps with versions the digest of the set that they were pushed with. */
  markPushed(versions: readonly Pick<VersionRow, "subject" | "version">[], setDigest: string): Promise<void>;
  /** Marks versions as deleted. */
  markDeleted(subject: string, versions: readonly number[]): Promise<void>;
  /** Deletes versions for good. Their schemas keep their ids. */
  remove(subject: string, versions: readonly number[]): Promise<void>;
  putSettings(subject: string, settings: OwnSettings): Promise<void>;
}

/** The registry of every org. */
export interface RegistryStore {
  /** Reads within one transaction of the org. Retries nothing. */
  read<T>(orgId: string, work: (view: RegistryView) => Promise<T>): Promise<T>;
  /**
   * Changes subjects, or the org's settings (`""`), in one transaction. Such
   * transactions of one subject come one after the other. Rolls back if `work`
   * throws.
   */
  change<T>(orgId: string, subjects: readonly string[], work: (change: RegistryChange) => Promise<T>): Promise<T>;
  /** The same, and takes back what `work` did. Ids that it was given are lost. */
  rehearse<T>(orgId: string, subjects: readonly string[], work: (change: RegistryChange) => Promise<T>): Promise<T>;
}
