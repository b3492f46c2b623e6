import { readdirSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { DescService } from "@bufbuild/protobuf";

const generated = join(import.meta.dirname, "../../gen/src/cadre");

/** Every service of the contract, public and internal, found in what is generated: a new one is among them by itself. */
export async function contractServices(): Promise<DescService[]> {
  const files = readdirSync(generated, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith("_pb.js"));
  const modules: object[] = await Promise.all(files.map((file) => import(pathToFileURL(join(generated, file)).href)));
  return modules.flatMap((module) => Object.values(module).filter(isService));
}

function isService(value: unknown): value is DescService {
  return typeof value === "object" && value !== null && Reflect.get(value, "kind") === "service";
}
