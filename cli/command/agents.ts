import { type Agent, type Cadre, jsonOf } from "@cadre/sdk";
import type { Command } from "commander";
import { stringify } from "yaml";
import { type ConnectionFlags, connect, withConnection } from "../connection.ts";
import { readDefinition, toDefinition } from "../definition-file.ts";
import { parseDurationMs } from "../duration.ts";
import { exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";
import { parseGraph } from "../graph/read-graph.ts";
import { printFields, printJson, printLine, printTable, shorten } from "../output.ts";
import { showDuration, showTime } from "../time.ts";

type Flags = ConnectionFlags & { readonly json?: boolean };

/** Adds `cadre agents`. */
export function registerAgents(program: Command): void {
  const agents = program.command("agents").summary("list, show and register agents");

  withConnection(agents.command("list", { isDefault: true }))
    .description("Lists the org's agents, by name.")
    .option("--json", "print JSON")
    .action(async (flags: Flags) => {
      const rows: Agent[] = [];
      for await (const agent of (await connect(flags)).agents.list({ pageSize: 200 })) rows.push(agent);
      if (flags.json === true) return printJson({ agents: rows.map(jsonOf) });
      printTable(
        rows,
        [
          { title: "name", cell: ({ definition }) => definition?.name ?? "" },
          { title: "model", cell: ({ definition }) => definition?.model ?? "" },
          { title: "tools", cell: ({ definition }) => shorten(definition?.tools.join(" ") ?? "", 40) },
          { title: "revision", cell: ({ revision }) => `${revision}` },
          { title: "id", cell: ({ agentId }) => agentId },
          { title: "description", cell: ({ definition }) => shorten(definition?.description ?? "", 60) },
        ],
        "The org has no agents.",
      );
    });

  withConnection(agents.command("show"))
    .description("Shows an agent.")
    .argument("<agent>", "its name, or its id agt_…")
    .option("--json", "print JSON")
    .action(async (name: string, flags: Flags) => {
      const agent = await findAgent(await connect(flags), name);
      if (flags.json === true) return printJson(jsonOf(agent));
      const { definition } = agent;
      printFields([
        ["id", agent.agentId],
        ["name", definition?.name ?? ""],
        ["description", definition?.description ?? ""],
        ["model", definition?.model ?? ""],
        ["tools", definition?.tools.join(" ") ?? ""],
        ["tool rounds", definition?.limits?.maxToolRounds ? `${definition.limits.maxToolRounds}` : "default"],
        ["tokens", definition?.limits?.maxTokens ? `${definition.limits.maxTokens}` : "default"],
        ["duration", showDuration(definition?.limits?.maxDuration)],
        ["revision", `${agent.revision}, of ${showTime(agent.updatedAt)}`],
        ["digest", agent.digest],
        ["graph", definition?.graph === undefined ? "none" : `${definition.graph.steps.length} steps`],
        ["instructions", definition?.instructions ?? ""],
      ]);
    });

  withConnection(agents.command("register"))
    .description("Registers an agent, or a new revision of the one of that name.")
    .requiredOption("-f, --file <path>", "a YAML or JSON file; - for standard input")
    .option("--json", "print JSON")
    .addHelpText(
      "after",
      `
Example of a file:
  name: helper
  description: Answers questions about orders.
  model: scripted
  instructions: |
    Be short.
  tools: [calculator, order_status]
  limits: { max_tool_rounds: 8, max_tokens: 100000, max_duration: 5m }
  graph:                  # what \`cadre runs start --agent helper\` does
    name: helper
    steps:
      - name: look
        tool: { tool: order_status, arguments: { order_id: { $ref: input.order_id } } }`,
    )
    .action(async ({ file, ...flags }: Flags & { readonly file: string }) => {
      const fields = await readDefinition(file, [
        "name",
        "description",
        "model",
        "instructions",
        "tools",
        "limits",
        "graph",
      ]);
      const limits = toDefinition(`${file}: limits`, fields.object("limits") ?? {}, [
        "max_tool_rounds",
        "max_tokens",
        "max_duration",
      ]);
      const maxToolRounds = limits.number("max_tool_rounds");
      const maxTokens = limits.number("max_tokens");
      const duration = limits.text("max_duration", "");
      const graph = fields.object("graph");
      const agent = await (await connect(flags)).agents.register({
        name: fields.text("name"),
        description: fields.text("description", ""),
        model: fields.text("model"),
        instructions: fields.text("instructions", ""),
        tools: fields.texts("tools"),
        ...(graph === undefined ? {} : { graph: parseGraph(`${file}: graph`, stringify(graph)) }),
        limits: {
          ...(maxToolRounds === undefined ? {} : { maxToolRounds }),
          ...(maxTokens === undefined ? {} : { maxTokens }),
          ...(duration === "" ? {} : { maxDurationMs: parseDurationMs(duration) }),
        },
      });
      if (flags.json === true) return printJson(jsonOf(agent));
      printLine(`${agent.definition?.name ?? ""} is registered: revision ${agent.revision}, ${agent.agentId}`);
    });
}

/** Finds an agent by its name or id. Throws CliError 1 if there is none. */
async function findAgent(cadre: Cadre, nameOrId: string): Promise<Agent> {
  if (nameOrId.startsWith("agt_")) return cadre.agents.get(nameOrId);
  const agent = await cadre.agents.find(nameOrId);
  if (agent !== undefined) return agent;
  throw new CliError(
    exitCode.failed,
    `there is no agent ${JSON.stringify(nameOrId)}`,
    "List them with `cadre agents list`.",
  );
}
