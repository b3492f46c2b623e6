import { ServingState } from "@cadre/gen/cadre/gateway/v1/health_pb";
import { AppError } from "../errors/app-error.ts";
import type { Dependency } from "../platform/platform.ts";
import type { SchemaIds } from "./schema-ids.ts";
import { subjectOf, type Topic } from "./topics.ts";

/**
 * Readiness of who publishes under the ids of a registry: the files of all
 * topics are registered there as they are in this build. Until then nothing is
 * published on those that are not, and waits.
 */
export function registeredTopics(
  schemaIds: Pick<SchemaIds, "idOf">,
  topics: readonly Pick<Topic, "name" | "message">[],
): Dependency {
  return {
    name: "schema registry",
    async check() {
      const problems = await Promise.all(topics.map((topic) => problemOf(schemaIds, topic)));
      const found = [...new Set(problems)].filter((problem) => problem !== "");
      if (found.length === 0) return { state: ServingState.SERVING, detail: "" };
      return { state: ServingState.NOT_SERVING, detail: found.join("; ") };
    },
  };
}

async function problemOf(schemaIds: Pick<SchemaIds, "idOf">, topic: Pick<Topic, "name" | "message">): Promise<string> {
  try {
    await schemaIds.idOf(subjectOf(topic), topic.message.file);
    return "";
  } catch (thrown) {
    return thrown instanceof AppError ? thrown.message : "the schema registry could not be asked";
  }
}
