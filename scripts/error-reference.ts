import { readFileSync, writeFileSync } from "node:fs";
import { fromBinary, getOption } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { ReasonSchema } from "@cadre/gen/cadre/errors/v1/reason_pb";
import { failure } from "@cadre/gen/cadre/options/v1/options_pb";
import { codeToHttpStatus, codeToString } from "@connectrpc/connect/protocol-connect";

const introduction = `<!-- Written by scripts/error-reference.ts from proto/cadre/errors/v1/reason.proto. -->
# Errors

Every failure has one of the reasons below, the same over Connect, gRPC, gRPC-Web, REST and SSE.

Over Connect and gRPC it travels as \`google.rpc\` details: \`ErrorInfo\` (reason, domain \`cadre.dev\`, metadata) and
\`RequestInfo\` always, \`Help\` with what to do, \`BadRequest\` with the fields that are wrong, \`QuotaFailure\` and
\`RetryInfo\` where they apply. Over REST it is:

\`\`\`json
{"error":{"code":404,"status":"not_found","reason":"SESSION_NOT_FOUND","message":"no such session","details":[],"request_id":"req_…"}}
\`\`\`

The SDK throws a \`CadreError\` with \`reason\`, \`code\`, \`requestId\`, \`retryAfterMs\` and \`violations\`. An object of
another org is answered exactly like one that does not exist. \`INTERNAL\` is a fault of ours: the answer carries an
\`error_id\`, and the operator's log has the rest under it.

A retryable failure may go away by itself: the SDK tries again where that is safe.

| reason | code | HTTP | retryable | meaning | what to do |
|---|---|---|---|---|---|
`;

/** The error reference in Markdown, from the contract and its comments. */
export function errorReference(descriptorSet: Uint8Array): string {
  const comments = reasonComments(descriptorSet);
  const rows = ReasonSchema.values
    .filter((value) => value.number !== 0)
    .map((value) => {
      const { code, remedy, retryable } = getOption(value, failure);
      const meaning = comments.get(value.number) ?? "";
      return `| \`${value.localName}\` | \`${codeToString(code)}\` | ${codeToHttpStatus(code)} | ${retryable ? "yes" : ""} | ${meaning} | ${remedy} |`;
    });
  return `${introduction}${rows.join("\n")}\n`;
}

/** The comments of the enum's values; source info addresses them as enum 0, value n. */
function reasonComments(descriptorSet: Uint8Array): ReadonlyMap<number, string> {
  const file = fromBinary(FileDescriptorSetSchema, descriptorSet).file.find(
    (candidate) => candidate.name === "cadre/errors/v1/reason.proto",
  );
  const comments = new Map<number, string>();
  for (const location of file?.sourceCodeInfo?.location ?? []) {
    const [enumField, enumIndex, valueField, valueIndex, ...rest] = location.path;
    if (enumField !== 5 || enumIndex !== 0 || valueField !== 2 || valueIndex === undefined || rest.length > 0) continue;
    const value = file?.enumType[0]?.value[valueIndex];
    if (value !== undefined) comments.set(value.number, location.leadingComments.trim().replaceAll("\n", " "));
  }
  return comments;
}

if (import.meta.main) {
  const target = process.argv[2] ?? "docs/errors.md";
  writeFileSync(target, errorReference(readFileSync("gen/descriptor-set.binpb")));
}
