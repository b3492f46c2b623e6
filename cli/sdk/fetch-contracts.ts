import { type Cadre, CadreError, SchemaType, type SubjectVersion } from "@cadre/sdk";
import { exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";

/** A file that the registry has. */
export interface FetchedContract {
  /** What others import it by; of a subject that is no path, one made of its name. */
  readonly path: string;
  readonly version: SubjectVersion;
}

/** What was asked for, and all files that it is made of. */
export interface FetchedContracts {
  readonly roots: readonly FetchedContract[];
  readonly files: readonly FetchedContract[];
}

const maxFiles = 500;
/** Of what becomes a path on this machine: relative, and nothing that leads elsewhere. */
const safePath = /^[\w-][\w.-]*(\/[\w-][\w.-]*)*\.proto$/;

/**
 * Fetches contracts from the registry with all that they refer to, the latest
 * version of each that is named.
 *
 * @param names subjects, or packages: `shop.v1` is every subject of `shop/v1/`
 * @throws CliError for what is not there or no Protobuf, and if two versions of a file would be needed at once
 */
export async function fetchContracts(cadre: Cadre, names: readonly string[]): Promise<FetchedContracts> {
  const files = new Map<string, FetchedContract>();
  const add = async (path: string, version: SubjectVersion): Promise<FetchedContract> => {
    const known = files.get(path);
    if (known !== undefined) {
      if (known.version.schemaId === version.schemaId) return known;
      throw refuse(`${path} is needed as schema ${known.version.schemaId} and as schema ${version.schemaId}`);
    }
    if (version.type !== SchemaType.PROTOBUF) throw refuse(`${version.subject} is no Protobuf`);
    if (!safePath.test(path)) throw refuse(`${path} is no path that a file can be written to`);
    if (files.size >= maxFiles) throw refuse(`these are more than ${maxFiles} files`);
    const fetched = { path, version };
    files.set(path, fetched);
    for (const { name, subject, version: number } of version.references) {
      await add(name, await cadre.schemas.get(subject, number));
    }
    return fetched;
  };
  const roots = new Map<string, FetchedContract>();
  for (const name of names) {
    for (const version of await find(cadre, name)) {
      const root = await add(pathOf(version.subject), version);
      roots.set(root.path, root);
    }
  }
  return { roots: [...roots.values()], files: [...files.values()] };
}

async function find(cadre: Cadre, name: string): Promise<readonly SubjectVersion[]> {
  try {
    return [await cadre.schemas.get(name)];
  } catch (thrown) {
    if (!(thrown instanceof CadreError) || thrown.reason !== "SUBJECT_NOT_FOUND") throw thrown;
  }
  const prefix = `${name.replaceAll(".", "/")}/`;
  const subjects = (await cadre.schemas.subjects(prefix)).filter((subject) => subject.endsWith(".proto"));
  if (subjects.length === 0) {
    throw new CliError(
      exitCode.failed,
      `there is no subject ${name}, and none that begins with ${prefix}`,
      "`cadre contracts list` shows what is registered.",
    );
  }
  return Promise.all(subjects.map((subject) => cadre.schemas.get(subject)));
}

function pathOf(subject: string): string {
  return subject.endsWith(".proto") ? subject : `${subject.replaceAll(/[^\w-]+/g, "_")}.proto`;
}

function refuse(message: string): CliError {
  return new CliError(exitCode.failed, message);
}
