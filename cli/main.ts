import { Command, CommanderError } from "commander";
import packageJson from "../package.json" with { type: "json" };
import { type Explanation, explain } from "./failure.ts";

/** Commands that one module brings. It is loaded only when one of them is called. */
interface CommandGroup {
  /** Name and summary, for the help of `cadre` itself. */
  readonly commands: readonly (readonly [name: string, summary: string])[];
  readonly load: (program: Command) => Promise<void>;
}

const groups: readonly CommandGroup[] = [
  {
    commands: [
      ["dev", "run everything in this process"],
      ["serve", "run services as processes of their own"],
      ["mesh", "run each service as a process of its own, on this machine"],
    ],
    load: async (program) => (await import("./server-commands.ts")).registerServerCommands(program),
  },
  {
    commands: [["chat", "talk to an agent"]],
    load: async (program) => (await import("./command/chat.ts")).registerChat(program),
  },
  {
    commands: [["doctor", "look at everything at once, and say what to do"]],
    load: async (program) => (await import("./command/doctor.ts")).registerDoctor(program),
  },
  {
    commands: [["login", "keep a server and a key for it under a name"]],
    load: async (program) => (await import("./command/login.ts")).registerLogin(program),
  },
  {
    commands: [["agents", "list, show and register agents"]],
    load: async (program) => (await import("./command/agents.ts")).registerAgents(program),
  },
  {
    commands: [["sessions", "list, show, follow, cancel and delete sessions"]],
    load: async (program) => (await import("./command/sessions.ts")).registerSessions(program),
  },
  {
    commands: [["runs", "start, follow, list, change and verify durable runs"]],
    load: async (program) => (await import("./command/runs.ts")).registerRuns(program),
  },
  {
    commands: [["schedules", "start runs by the clock"]],
    load: async (program) => (await import("./command/schedules.ts")).registerSchedules(program),
  },
  {
    commands: [["tools", "list, show, call and register tools"]],
    load: async (program) => (await import("./command/tools.ts")).registerTools(program),
  },
  {
    commands: [["contracts", "register, compare, list and show contracts"]],
    load: async (program) => (await import("./command/contracts.ts")).registerContracts(program),
  },
  {
    commands: [["sdk", "make typed client packages of registered contracts"]],
    load: async (program) => (await import("./command/sdk.ts")).registerSdk(program),
  },
  {
    commands: [["models", "list the models that agents can use"]],
    load: async (program) => (await import("./command/models.ts")).registerModels(program),
  },
  {
    commands: [["keys", "list, issue and revoke API keys"]],
    load: async (program) => (await import("./command/keys.ts")).registerKeys(program),
  },
  {
    commands: [["limits", "list and set the org's limits"]],
    load: async (program) => (await import("./command/limits.ts")).registerLimits(program),
  },
  {
    commands: [["events", "look after dead letters and consumer groups"]],
    load: async (program) => (await import("./command/events.ts")).registerEvents(program),
  },
  {
    commands: [["topics", "compare Kafka's topics with the declared ones, and make them"]],
    load: async (program) => (await import("./command/topics.ts")).registerTopics(program),
  },
  {
    commands: [["db", "migrate the database, say how it stands, or go back"]],
    load: async (program) => (await import("./command/db.ts")).registerDb(program),
  },
];

/**
 * Runs the command line and sets the exit code: 0, 1 failed, 2 usage, 69 server
 * not reachable, 77 not allowed, 78 configuration.
 */
export async function main(argv: readonly string[]): Promise<void> {
  // `cadre … | head` closes the pipe early; that is no failure.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(0);
    throw error;
  });
  try {
    const program = await createProgram(argv);
    await program.parseAsync([...argv]);
  } catch (thrown) {
    const explanation = explain(thrown);
    tell(explanation, thrown, argv.includes("--json"));
    process.exitCode = explanation.exitCode;
  }
}

async function createProgram(argv: readonly string[]): Promise<Command> {
  const program = new Command("cadre")
    .description("Cadre: a self-hosted platform for AI agents.")
    .version(packageJson.version)
    .showHelpAfterError("(add --help for what is possible)")
    .exitOverride()
    .addHelpText(
      "after",
      `
Examples:
  $ cadre dev                                  run everything here
  $ cadre chat                                 talk to the agent \`assistant\`
  $ cadre chat --message "What is 6 times 7?"  ask once and print the answer
  $ cadre agents register -f agent.yaml        make an agent of your own

Where the server is and which key to use: flags, then CADRE_URL and CADRE_API_KEY,
then what \`cadre login\` wrote, then the key file in the data directory.
Exit codes: 0 done, 1 failed, 2 usage, 69 server not reachable, 77 not allowed, 78 configuration.`,
    );
  // Options come after the command, so the first word is its name; after `help`, the second.
  const [first, second] = argv.slice(2);
  const wanted = first === "help" ? second : first;
  for (const group of groups) {
    if (group.commands.some(([name]) => name === wanted)) await group.load(program);
    else for (const [name, summary] of group.commands) program.command(name).summary(summary);
  }
  for (const command of program.commands) inherit(command);
  return program;
}

/** Commander copies these settings only to commands that are made afterwards by the same parent. */
function inherit(command: Command): void {
  command.exitOverride().showHelpAfterError("(add --help for what is possible)");
  for (const child of command.commands) inherit(child);
}

function tell({ message, remedy }: Explanation, thrown: unknown, json: boolean): void {
  if (thrown instanceof CommanderError || message === "") return;
  if (json) {
    const reason = thrown instanceof Error && "reason" in thrown ? String(thrown.reason) : undefined;
    process.stderr.write(`${JSON.stringify({ error: { reason, message, remedy } })}\n`);
    return;
  }
  process.stderr.write(`cadre: ${message}\n${remedy === "" ? "" : `  ${remedy}\n`}`);
}
