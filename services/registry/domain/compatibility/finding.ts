/** A change that breaks who holds to another version. */
export interface Finding {
  /** By buf's name where buf has the rule (https://buf.build/docs/breaking/rules/). */
  readonly rule: string;
  /** The file; empty if the schema as a whole is meant. */
  readonly file: string;
  /** The full name of the message, enum or service; empty for the file. */
  readonly typeName: string;
  /** The field, value or method; empty for the type. */
  readonly member: string;
  /** The name that the field had, of a finding about one. */
  readonly field?: string;
  /** What is wrong. */
  readonly detail: string;
}

/** A finding as one line that names all of it. */
export function describeFinding({ rule, file, typeName, member, detail }: Finding): string {
  const place = [file, typeName, member].filter((part) => part !== "").join(": ");
  return `${place === "" ? "" : `${place}: `}${detail} (${rule})`;
}
