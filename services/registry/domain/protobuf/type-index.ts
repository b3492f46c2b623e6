import type { DescriptorProto, FileDescriptorProto } from "@bufbuild/protobuf/wkt";

/** What a full name stands for. Fields and the like are left out: no reference means them. */
export type SymbolKind = "message" | "enum" | "package" | "service";

/** The full names of a file's messages, enums, services and package, without a leading dot. */
export function symbolsOf(file: FileDescriptorProto): ReadonlyMap<string, SymbolKind> {
  const symbols = new Map<string, SymbolKind>();
  const addMessage = (message: DescriptorProto, scope: string): void => {
    const name = join(scope, message.name);
    symbols.set(name, "message");
    for (const nested of message.nestedType) addMessage(nested, name);
    for (const { name: enumName } of message.enumType) symbols.set(join(name, enumName), "enum");
  };
  const parts = file.package === "" ? [] : file.package.split(".");
  for (let count = 1; count <= parts.length; count++) symbols.set(parts.slice(0, count).join("."), "package");
  for (const message of file.messageType) addMessage(message, file.package);
  for (const { name } of file.enumType) symbols.set(join(file.package, name), "enum");
  for (const { name } of file.service) symbols.set(join(file.package, name), "service");
  return symbols;
}

/** The files whose types a file may name: those that it imports, and what they import publicly. */
export function visibleFiles(
  file: FileDescriptorProto,
  fileOf: (path: string) => FileDescriptorProto,
): readonly FileDescriptorProto[] {
  const seen = new Map<string, FileDescriptorProto>();
  const visit = (path: string): void => {
    if (seen.has(path)) return;
    const imported = fileOf(path);
    seen.set(path, imported);
    for (const index of imported.publicDependency) {
      const next = imported.dependency[index];
      if (next !== undefined) visit(next);
    }
  };
  for (const path of file.dependency) visit(path);
  return [...seen.values()];
}

/** A name within a scope. */
export function join(scope: string, name: string): string {
  return scope === "" ? name : `${scope}.${name}`;
}

/**
 * What a name means within a scope, as C++ and protoc look it up: the innermost
 * scope that has its first part decides. `undefined` if there is no such type.
 */
export function resolveName(symbols: ReadonlyMap<string, SymbolKind>, name: string, scope: string): string | undefined {
  if (name.startsWith(".")) return symbols.has(name.slice(1)) ? name.slice(1) : undefined;
  const first = name.split(".", 1)[0] ?? "";
  const isQualified = first !== name;
  for (let outer = scope; ; outer = outer.includes(".") ? outer.slice(0, outer.lastIndexOf(".")) : "") {
    const kind = symbols.get(join(outer, first));
    const isScope = kind === "message" || kind === "package";
    if (isQualified ? isScope : kind === "message" || kind === "enum") {
      const found = join(outer, name);
      return symbols.has(found) ? found : undefined;
    }
    if (outer === "") return undefined;
  }
}
