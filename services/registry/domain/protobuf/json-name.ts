/** As protoc makes it: the letter after an underscore in upper case. */
export function defaultJsonName(name: string): string {
  return name.replace(/_+([a-zA-Z0-9])?/g, (_all, letter?: string) => letter?.toUpperCase() ?? "");
}
