import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { downloaded, run } from "./downloads.ts";

const pom = join(import.meta.dirname, "pom.xml");

/**
 * The class path of Apache Kafka as `pom.xml` says it. Downloaded when it is
 * first asked for.
 *
 * @throws Error if there is no Java or no Maven, or nothing can be downloaded
 */
export async function kafkaClassPath(): Promise<string> {
  const version = createHash("sha256").update(readFileSync(pom)).digest("hex").slice(0, 12);
  const directory = await downloaded(`kafka-${version}`, "Apache Kafka (56 MB)", (target) =>
    run("mvn", ["-q", "-B", "-f", pom, "dependency:copy-dependencies", `-DoutputDirectory=${target}`]),
  );
  return `${directory}/*`;
}
