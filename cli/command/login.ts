import { createCadre, jsonOf, Role } from "@cadre/sdk";
import type { Command } from "commander";
import { readSource } from "../definition-file.ts";
import { exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";
import { printJson, printLine } from "../output.ts";
import { profilePath, writeProfile } from "../profile.ts";

interface Flags {
  readonly url?: string;
  readonly apiKey?: string;
  readonly profile: string;
  readonly json?: boolean;
}

/** Adds `cadre login`. */
export function registerLogin(program: Command): void {
  program
    .command("login")
    .summary("keep a server and a key for it under a name")
    .description(
      "Asks for a server and a key, checks them, and keeps them in ~/.config/cadre/credentials.json, readable by you only.",
    )
    .option("--url <url>", "the server; else CADRE_URL, or asked for")
    .option("--api-key <key>", "the key; - for standard input; else CADRE_API_KEY, or asked for")
    .option("--profile <name>", "under which name", "default")
    .option("--json", "print JSON")
    .addHelpText(
      "after",
      `
Examples:
  $ cadre login
  $ cadre login --url https://cadre.example --profile work
  $ cat key.txt | cadre login --url https://cadre.example --api-key -`,
    )
    .action(async (flags: Flags) => {
      const url = await ask("the server's URL", "--url", flags.url ?? process.env.CADRE_URL, false);
      if (!URL.canParse(url) || !/^https?:\/\//.test(url)) {
        throw new CliError(exitCode.usage, `${JSON.stringify(url)} is no http or https URL`);
      }
      const said = flags.apiKey === "-" ? (await readSource("-")).trim() : flags.apiKey;
      const apiKey = await ask("an API key", "--api-key", said ?? process.env.CADRE_API_KEY, true);
      const { principal, org } = await createCadre({ baseUrl: url, apiKey }).principal();
      const path = profilePath();
      await writeProfile(path, flags.profile, { url, apiKey });
      if (flags.json === true) return printJson({ profile: flags.profile, path, principal: jsonOf(principal) });
      printLine(`Logged in to ${org.name || org.orgId} as ${Role[principal.role].toLowerCase()}; kept in ${path}`);
    });
}

async function ask(what: string, flag: string, said: string | undefined, isSecret: boolean): Promise<string> {
  if (said !== undefined && said !== "") return said;
  if (process.stdin.isTTY !== true) throw new CliError(exitCode.usage, `say ${what} with ${flag}`);
  const prompts = await import("@clack/prompts");
  const answer = isSecret
    ? await prompts.password({ message: `What is ${what}?` })
    : await prompts.text({ message: `What is ${what}?`, initialValue: "http://127.0.0.1:8010" });
  if (prompts.isCancel(answer) || !answer) throw new CliError(exitCode.failed, "cancelled");
  return answer;
}
