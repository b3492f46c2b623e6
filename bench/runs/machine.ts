import { cpus, release, totalmem, type } from "node:os";
import { dataFileSystem } from "./scratch.ts";

/** The machine in a line: processors, memory, kernel, file system, Node.js. */
export async function describeMachine(): Promise<string> {
  const processors = cpus();
  const gibibytes = Math.round(totalmem() / 1_024 ** 3);
  return [
    `${processors.length} × ${processors[0]?.model.trim() ?? "unknown processor"}`,
    `${gibibytes} GiB`,
    `${type()} ${release()}`,
    await dataFileSystem(),
    `Node.js ${process.versions.node}`,
  ].join(", ");
}
