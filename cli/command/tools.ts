import {
  type Cadre,
  type DefinedTool,
  defineTool,
  type JsonObject,
  jsonOf,
  SideEffects,
  type Tool,
  ToolKind,
} from "@cadre/sdk";
import type { Command } from "commander";
import { type ConnectionFlags, connect, withConnection } from "../connection.ts";
import { readDefinition, readSource } from "../definition-file.ts";
import { parseDurationMs } from "../duration.ts";
import { exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";
import { printable, printFields, printJson, printLine, printTable, shorten } from "../output.ts";
import { showDuration, showTime } from "../time.ts";

type Flags = ConnectionFlags & { readonly json?: boolean };

/** Adds `cadre tools`. */
export function registerTools(program: Command): void {
  const tools = program.command("tools").summary("list, show, call and register tools");

  withConnection(tools.command("list", { isDefault: true }))
    .description("Lists the org's tools and the built-in ones, by name.")
    .option("--json", "print JSON")
    .action(async (flags: Flags) => {
      const rows: Tool[] = [];
      for await (const tool of (await connect(flags)).tools.list({ pageSize: 200 })) rows.push(tool);
      if (flags.json === true) return printJson({ tools: rows.map(jsonOf) });
      printTable(
        rows,
        [
          { title: "name", cell: ({ definition }) => definition?.name ?? "" },
          { title: "served by", cell: servedBy },
          { title: "side effects", cell: ({ definition }) => sideEffectsOf(definition?.sideEffects) },
          { title: "id", cell: ({ toolId }) => toolId },
          { title: "description", cell: ({ definition }) => shorten(definition?.description ?? "", 60) },
        ],
        "There are no tools.",
      );
    });

  withConnection(tools.command("show"))
    .description("Shows a tool.")
    .argument("<tool>", "its name, or its id tool_…")
    .option("--json", "print JSON")
    .action(async (name: string, flags: Flags) => {
      const tool = await findTool(await connect(flags), name);
      if (flags.json === true) return printJson(jsonOf(tool));
      const { definition } = tool;
      printFields([
        ["id", tool.toolId],
        ["name", definition?.name ?? ""],
        ["description", definition?.description ?? ""],
        ["served by", servedBy(tool)],
        ["side effects", sideEffectsOf(definition?.sideEffects)],
        ["timeout", showDuration(definition?.timeout)],
        ["changed", showTime(tool.updatedAt)],
        ["digest", tool.digest],
        ["input", JSON.stringify(definition?.inputSchema ?? {}, null, 2)],
        ["output", definition?.outputSchema === undefined ? "any" : JSON.stringify(definition.outputSchema, null, 2)],
      ]);
    });

  withConnection(tools.command("call"))
    .description("Calls a tool once. What it prints goes to standard error, its result to standard output.")
    .argument("<tool>", "its name, or its id tool_…")
    .argument("[arguments]", "its arguments as a JSON object; - for standard input", "{}")
    .option("--json", "print the result as JSON on one line")
    .addHelpText("after", `\nExample:\n  $ cadre tools call calculator '{"expression":"6 * 7"}'`)
    .action(async (name: string, text: string, flags: Flags) => {
      const args = parseArguments(text === "-" ? await readSource("-") : text);
      const cadre = await connect(flags);
      const tool = await findTool(cadre, name);
      const controller = new AbortController();
      // Ending the call early cancels it at the tool.
      process.once("SIGINT", () => controller.abort());
      const call = cadre.tools.call(tool.toolId, args, { signal: controller.signal });
      for await (const output of call) process.stderr.write(printable(output));
      const result = await call.result();
      if (flags.json === true) return printJson(result);
      printLine(typeof result === "string" ? printable(result) : JSON.stringify(result, null, 2));
    });

  withConnection(tools.command("register"))
    .description("Registers a tool that a worker will serve, or a new definition of one.")
    .requiredOption("-f, --file <path>", "a YAML or JSON file; - for standard input")
    .option("--json", "print JSON")
    .addHelpText(
      "after",
      `
Example of a file:
  name: order_status
  description: Looks up where an order is.
  side_effects: none            # or idempotent, or effectful
  timeout: 10s
  input_schema:
    type: object
    properties: { order_id: { type: string } }
    required: [order_id]`,
    )
    .action(async ({ file, ...flags }: Flags & { readonly file: string }) => {
      const tool = await (await connect(flags)).tools.register(await readTool(file));
      if (flags.json === true) return printJson(jsonOf(tool));
      printLine(`${tool.definition?.name ?? ""} is registered: ${tool.toolId}`);
    });
}

async function readTool(file: string): Promise<DefinedTool> {
  const fields = await readDefinition(file, [
    "name",
    "description",
    "side_effects",
    "timeout",
    "input_schema",
    "output_schema",
  ]);
  const sideEffects = fields.text("side_effects", "effectful");
  if (sideEffects !== "none" && sideEffects !== "idempotent" && sideEffects !== "effectful") {
    throw new CliError(exitCode.usage, `${file}: side_effects must be none, idempotent or effectful`);
  }
  const inputSchema = fields.object("input_schema");
  if (inputSchema === undefined) throw new CliError(exitCode.usage, `${file}: input_schema is missing`);
  const outputSchema = fields.object("output_schema");
  return defineTool({
    name: fields.text("name"),
    description: fields.text("description"),
    sideEffects,
    timeoutMs: parseDurationMs(fields.text("timeout", "30s")),
    inputSchema: inputSchema as JsonObject,
    ...(outputSchema === undefined ? {} : { outputSchema: outputSchema as JsonObject }),
    handler: () => {
      throw new TypeError("this definition is registered, not served");
    },
  });
}

function parseArguments(text: string): JsonObject {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as JsonObject;
  } catch {
    // Told below, like JSON of another kind.
  }
  throw new CliError(exitCode.usage, "the arguments are no JSON object", `For example: '{"expression":"6 * 7"}'`);
}

/** Finds a tool by its name or id. Throws CliError 1 if there is none. */
async function findTool(cadre: Cadre, nameOrId: string): Promise<Tool> {
  if (/^tool_[0-9a-hjkmnp-tv-z]{26}$/.test(nameOrId)) return cadre.tools.get(nameOrId);
  const tool = await cadre.tools.find(nameOrId);
  if (tool !== undefined) return tool;
  throw new CliError(
    exitCode.failed,
    `there is no tool ${JSON.stringify(nameOrId)}`,
    "List them with `cadre tools list`.",
  );
}

function servedBy({ kind, workers }: Tool): string {
  if (kind === ToolKind.BUILT_IN) return "Cadre";
  return workers === 0 ? "nobody now" : `${workers} worker${workers === 1 ? "" : "s"}`;
}

function sideEffectsOf(sideEffects: SideEffects | undefined): string {
  switch (sideEffects) {
    case SideEffects.NONE:
      return "none";
    case SideEffects.IDEMPOTENT:
      return "idempotent";
    default:
      return "effectful";
  }
}
