import type { DescService } from "@bufbuild/protobuf";
import type { Finding } from "./finding.ts";

/** What of a service's new form breaks who calls the earlier one. */
export function compareService(previous: DescService, next: DescService): readonly Finding[] {
  const findings: Finding[] = [];
  const found = (rule: string, member: string, detail: string): void => {
    findings.push({ rule, file: `${next.file.name}.proto`, typeName: next.typeName, member, detail });
  };
  for (const method of previous.methods) {
    const same = next.methods.find(({ name }) => name === method.name);
    const { name } = method;
    if (same === undefined) {
      found("RPC_NO_DELETE", name, "the method was removed");
      continue;
    }
    if (method.methodKind !== same.methodKind) {
      found("RPC_SAME_STREAMING", name, `it was ${method.methodKind} and is ${same.methodKind}`);
    }
    if (method.input.typeName !== same.input.typeName) {
      found("RPC_SAME_REQUEST_TYPE", name, `it took ${method.input.typeName} and takes ${same.input.typeName}`);
    }
    if (method.output.typeName !== same.output.typeName) {
      found(
        "RPC_SAME_RESPONSE_TYPE",
        name,
        `it returned ${method.output.typeName} and returns ${same.output.typeName}`,
      );
    }
  }
  return findings;
}
