import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { lintOwnRules } from "./own-rules.ts";

const tree = mkdtempSync(join(tmpdir(), "cadre-contract-"));
cpSync("third_party", join(tree, "third_party"), { recursive: true });
cpSync("proto", join(tree, "proto"), { recursive: true });
cpSync("buf.yaml", join(tree, "buf.yaml"));
afterAll(() => rmSync(tree, { recursive: true, force: true }));

const header = `syntax = "proto3";
package probe.v1;
import "buf/validate/validate.proto";
import "cadre/options/v1/options.proto";
message Q { string thing_id = 1 [(buf.validate.field).string.min_len = 1]; uint64 after = 2; }
message R { Q event = 1; }
`;

function lint(source: string): string[] {
  writeFileSync(join(tree, "proto/probe.proto"), `${header}${source}`);
  const args = ["build", "proto", "--as-file-descriptor-set", "-o", "-#format=binpb"];
  const buf = join(process.cwd(), "node_modules/.bin/buf");
  return lintOwnRules(execFileSync(buf, args, { cwd: tree }), (file) => file === "probe.proto");
}

const good = `option (cadre.options.v1.exposure) = EXPOSURE_PUBLIC; option (cadre.options.v1.host) = "x";`;
const authz = `option (cadre.options.v1.authz) = {resource: "thing" relation: RELATION_MEMBER id_field: "thing_id" scope: "t.r"};`;

test("a service with all its options has no problem", () => {
  expect(lint(`service S { ${good} rpc M(Q) returns (R) { ${authz} } }`)).toEqual([]);
});

test.each([
  ["a method without authz", `service S { ${good} rpc M(Q) returns (R); }`, "no option authz"],
  ["a public method with client streaming", `service S { ${good} rpc M(stream Q) returns (R) { ${authz} } }`, "stream"],
  ["a public bidi method", `service S { ${good} rpc M(stream Q) returns (stream R) { ${authz} } }`, "stream"],
  ["a service without exposure", `service S { option (cadre.options.v1.host) = "x"; }`, "no option exposure"],
  ["a service without host", `service S { option (cadre.options.v1.exposure) = EXPOSURE_PUBLIC; }`, "no option host"],
  ["an id without a rule", `message M { string thing_id = 1; }`, "an id without a rule"],
  ["ids without a rule", `message M { repeated string thing_ids = 1; }`, "an id without a rule"],
  ["a nested id without a rule", `message M { message N { string thing_id = 1; } }`, "an id without a rule"],
  [
    "an id_field that does not exist",
    `service S { ${good} rpc M(Q) returns (R) { ${authz.replace('"thing_id"', '"other_id"')} } }`,
    "other_id is not in",
  ],
  [
    "an internal method that nobody may call",
    `service S { option (cadre.options.v1.exposure) = EXPOSURE_INTERNAL; option (cadre.options.v1.host) = "x"; rpc M(Q) returns (R) { ${authz} } }`,
    "names no callers",
  ],
  [
    "an event stream with a wrong field",
    `service S { ${good} rpc M(Q) returns (stream R) { ${authz} option (cadre.options.v1.event_stream) = {cursor_field: "after" event_field: "event" seq_field: "nope" type_oneof: "body"}; } }`,
    "seq_field nope",
  ],
])("refuses %s", (_, source, problem) => {
  expect(lint(source).join("\n")).toContain(problem);
});
