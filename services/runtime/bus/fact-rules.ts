import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { pathToString } from "@bufbuild/protobuf/reflect";
import { createValidator } from "@bufbuild/protovalidate";
import { AppError } from "../errors/app-error.ts";
import { patternOf, surelyHolds } from "../interceptor/contract-rules.ts";
import { type Fact, type Topic, topics } from "./topics.ts";

/** What an event may weigh, its headers included; Kafka's brokers take 1 MiB unless told otherwise. */
export const maxEventBytes = 1_000_000;

const validator = createValidator({ regexMatch: (pattern, against) => patternOf(pattern).test(against) });

/**
 * Holds a fact against what the contract says of it, before it becomes an
 * event. Names fields and rules, never values.
 *
 * @param orgId the org whose state the fact tells of
 * @throws AppError TOPIC_NOT_FOUND if nobody declared the topic
 * @throws AppError SCHEMA_MISMATCH if the topic carries another message
 * @throws AppError INVALID_ARGUMENT if a rule of the contract is broken
 * @throws AppError TENANT_MISMATCH if the fact names another org
 */
export function assertFact<M extends Fact>(topic: Topic<M>, fact: M, orgId: string): void {
  const declared = topics.find(({ name }) => name === topic.name);
  if (declared === undefined) throw new AppError("TOPIC_NOT_FOUND", `there is no topic ${topic.name}`);
  const { typeName } = topic.message;
  if (declared.message.typeName !== typeName || fact.$typeName !== typeName) {
    throw new AppError("SCHEMA_MISMATCH", `${topic.name} carries ${declared.message.typeName}, not ${fact.$typeName}`);
  }
  assertMessage(`the fact of ${topic.name}`, topic.message, fact as MessageShape<typeof topic.message>);
  if (fact.metadata?.orgId !== orgId) {
    throw new AppError(
      "TENANT_MISMATCH",
      `metadata.org_id: the fact of ${topic.name} names another org than its state`,
    );
  }
  if (topic.objectId(fact) === "") {
    throw new AppError("INVALID_ARGUMENT", `the fact of ${topic.name} has nothing that it could be ordered by`);
  }
}

/**
 * Holds a message to the rules of its contract.
 *
 * @param what it is, for the failure's message
 * @throws AppError INVALID_ARGUMENT with violations
 */
export function assertMessage<D extends DescMessage>(what: string, schema: D, message: MessageShape<D>): void {
  if (surelyHolds(schema, message)) return;
  const result = validator.validate(schema, message);
  if (result.kind === "valid") return;
  if (result.kind === "error") throw result.error;
  const violations = result.violations.slice(0, 50).map((violation) => ({
    field: pathToString(violation.field),
    message: violation.message,
    rule: violation.ruleId,
  }));
  const [first] = violations;
  const problem = first === undefined ? "breaks a rule" : `${first.field}: ${first.message}`;
  throw new AppError("INVALID_ARGUMENT", `${what}: ${problem}`, { violations });
}
