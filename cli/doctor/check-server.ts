import { type Cadre, CadreError, createCadre, Role, ServingState } from "@cadre/sdk";
import type { Connection } from "../connection.ts";
import { exitCode } from "../exit-code.ts";
import { explain } from "../failure.ts";
import type { Finding } from "./finding.ts";

const timeoutMs = 5_000;

/** Looks whether the server answers, whether it accepts the key, and how its services are. */
export async function checkServer(connection: Connection): Promise<readonly Finding[]> {
  const reachable = await checkReachable(connection.url.value);
  if (reachable.state === "failed" || connection.apiKey === undefined) return [reachable];
  const cadre = createCadre({
    baseUrl: connection.url.value,
    apiKey: connection.apiKey.value,
    timeoutMs,
    retry: { maxAttempts: 1 },
  });
  const key = await checkKey(cadre);
  if (key.state === "failed") return [reachable, key];
  return [reachable, key, ...(await checkServices(cadre))];
}

async function checkReachable(url: string): Promise<Finding> {
  try {
    const response = await fetch(new URL("/health", url), {
      signal: AbortSignal.timeout(timeoutMs),
      redirect: "error",
    });
    const body: unknown = await response.json();
    const status = typeof body === "object" && body !== null && "status" in body ? String(body.status) : "";
    if (status === "SERVING") return { name: "server", state: "ok", detail: `${url} serves` };
    return {
      name: "server",
      state: "failed",
      detail: `${url} answers ${response.status} ${status || "without a state"}`,
      remedy: "It may still be starting; its log says what it waits for.",
      exitCode: exitCode.unreachable,
    };
  } catch (thrown) {
    const cause = thrown instanceof Error && thrown.cause instanceof Error ? thrown.cause : thrown;
    return {
      name: "server",
      state: "failed",
      detail: `${url} cannot be reached: ${cause instanceof Error && cause.message !== "" ? cause.message : "no answer"}`,
      remedy: "Start one with `npm start`, or say where it is with --url or CADRE_URL.",
      exitCode: exitCode.unreachable,
    };
  }
}

async function checkKey(cadre: Cadre): Promise<Finding> {
  try {
    const { principal, org } = await cadre.principal();
    const role = Role[principal.role].toLowerCase();
    return {
      name: "key",
      state: "ok",
      detail: `accepted: ${role} of ${org.name || org.orgId}, for ${principal.scopes.join(" ")}`,
    };
  } catch (thrown) {
    const { message, remedy, exitCode: code } = explain(thrown);
    return { name: "key", state: "failed", detail: message, remedy, exitCode: code };
  }
}

async function checkServices(cadre: Cadre): Promise<readonly Finding[]> {
  try {
    const { services, version, mode } = await cadre.health();
    const rows = services.flatMap(({ service, state, dependencies }): Finding[] => [
      { name: service, ...stateOf(state, dependencies.map(({ name }) => name).join(", ")) },
      ...dependencies
        .filter((dependency) => dependency.state !== ServingState.SERVING)
        .map(({ name, state, detail }): Finding => ({ name: `${service}/${name}`, ...stateOf(state, detail) })),
    ]);
    return [{ name: "version", state: "ok", detail: `the server is ${version}, ${mode}` }, ...rows];
  } catch (thrown) {
    const isRefused = thrown instanceof CadreError && explain(thrown).exitCode === exitCode.notAllowed;
    return [
      {
        name: "services",
        state: isRefused ? "skipped" : "failed",
        detail: isRefused
          ? "the key may not see them: that wants the role admin and the scope ops.read"
          : explain(thrown).message,
      },
    ];
  }
}

function stateOf(state: ServingState, detail: string): Pick<Finding, "state" | "detail" | "remedy"> {
  if (state === ServingState.SERVING) return { state: "ok", detail: `serves${detail === "" ? "" : ` (${detail})`}` };
  return { state: "failed", detail: detail === "" ? "does not serve" : detail, remedy: "Look into the server's log." };
}
