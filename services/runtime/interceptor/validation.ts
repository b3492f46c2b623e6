import type { DescMessage, Message } from "@bufbuild/protobuf";
import { pathToString } from "@bufbuild/protobuf/reflect";
import { createValidator, type Validator, type Violation } from "@bufbuild/protovalidate";
import type { Interceptor } from "@connectrpc/connect";
import { AppError } from "../errors/app-error.ts";
import { mapMessages } from "../rpc/message-stream.ts";
import { patternOf, surelyHolds } from "./contract-rules.ts";

/**
 * Checks each request message against the rules of its contract, before any
 * handler sees it. Every violated rule is named by its field; no value is.
 */
export function validation(): Interceptor {
  const validator = createValidator({ regexMatch: (pattern, against) => patternOf(pattern).test(against) });
  return (next) => (request) => {
    if (!request.stream) {
      assertValid(validator, request.method.input, request.message);
      return next(request);
    }
    const { input } = request.method;
    const message = mapMessages(request.message, (message) => {
      assertValid(validator, input, message);
      return message;
    });
    return next({ ...request, message });
  };
}

function assertValid(validator: Validator, schema: DescMessage, message: Message): void {
  if (surelyHolds(schema, message)) return;
  const result = validator.validate(schema, message);
  if (result.kind === "valid") return;
  if (result.kind === "error") throw result.error;
  const violations = result.violations.slice(0, 50).map(toFieldViolation);
  const first = violations[0];
  throw new AppError("INVALID_ARGUMENT", first === undefined ? "invalid request" : `${first.field}: ${first.message}`, {
    violations,
  });
}

function toFieldViolation(violation: Violation): { field: string; message: string; rule: string } {
  return { field: pathToString(violation.field), message: violation.message, rule: violation.ruleId };
}
