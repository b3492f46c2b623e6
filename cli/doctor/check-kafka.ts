import { findTopicProblem } from "../../services/runtime/bus/kafka/kafka-topics.ts";
import { busTopics } from "../../services/runtime/bus/topics.ts";
import { CliError } from "../failure.ts";
import { askKafka } from "../kafka/kafka-target.ts";
import type { Finding } from "./finding.ts";

/** Looks whether the Kafka that the environment names is there, and its topics with it. Nothing where facts go to PostgreSQL. */
export async function checkKafka(environment: NodeJS.ProcessEnv): Promise<readonly Finding[]> {
  if (environment.CADRE_BUS !== "kafka") return [];
  const brokers = environment.CADRE_KAFKA_BROKERS ?? "";
  const partitionsOf = new Map(busTopics.map(({ name, partitions }) => [name, partitions]));
  try {
    const problem = await askKafka({}, (admin) => findTopicProblem(admin, partitionsOf));
    if (problem === undefined) {
      return [{ name: "kafka", state: "ok", detail: `${brokers} answers, and has all ${busTopics.length} topics` }];
    }
    return [{ name: "kafka", state: "failed", detail: problem.message, remedy: problem.remedy }];
  } catch (thrown) {
    if (!(thrown instanceof CliError)) throw thrown;
    const { message, remedy, exitCode } = thrown;
    return [{ name: "kafka", state: "failed", detail: message, remedy, exitCode }];
  }
}
