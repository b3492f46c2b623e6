import { AppError } from "../../runtime/errors/app-error.ts";

/** The failure of a schema that is not one. `where` is a place such as `line 3, column 14`; empty for the whole. */
export function invalidSchema(message: string, where = ""): AppError {
  const text = where === "" ? message : `${where}: ${message}`;
  return new AppError("INVALID_SCHEMA", text, {
    violations: [{ field: "schema", message: text, rule: "schema" }],
  });
}
