import { access, constants, stat, statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import { findPortHolder } from "../../services/runtime/edge/port-in-use.ts";
import type { Connection } from "../connection.ts";
import { exitCode } from "../exit-code.ts";
import { isMissing } from "../profile.ts";
import type { Finding } from "./finding.ts";

// Below this, PostgreSQL's write-ahead log may not find room in the next hour.
const scarceBytes = 1024 ** 3;
const fullBytes = 100 * 1024 ** 2;

/** Which versions run here. */
export function checkVersions(): Finding {
  const { node, v8 } = process.versions;
  return {
    name: "versions",
    state: "ok",
    detail: `cadre ${packageJson.version}, Node.js ${node} (V8 ${v8.split(".").slice(0, 2).join(".")}), ${process.platform} ${process.arch}`,
  };
}

/** Looks at the data directory, its key file and the room on its disk. */
export async function checkDataDirectory({ dataDirectory }: Connection): Promise<readonly Finding[]> {
  const path = dataDirectory.value;
  const room = await checkRoom(path);
  try {
    const status = await stat(path);
    if (!status.isDirectory()) {
      return [{ name: "data", state: "failed", detail: `${path} is no directory`, exitCode: exitCode.configuration }];
    }
    await access(path, constants.R_OK | constants.W_OK);
  } catch (thrown) {
    if (!isMissing(thrown)) {
      const owner = await stat(path).then(
        ({ uid }) => `, it belongs to user ${uid}`,
        () => "",
      );
      return [
        {
          name: "data",
          state: "failed",
          detail: `${path} cannot be read and written${owner}`,
          remedy: "Run as the user who made it, or choose another with --data.",
          exitCode: exitCode.configuration,
        },
      ];
    }
    return [
      {
        name: "data",
        state: "skipped",
        detail: `${path} (${dataDirectory.source}) is not there: no server ran here yet`,
      },
      room,
    ];
  }
  return [
    { name: "data", state: "ok", detail: `${path} (${dataDirectory.source})` },
    ...(await checkKeyFile(path)),
    room,
  ];
}

async function checkKeyFile(directory: string): Promise<readonly Finding[]> {
  const path = join(directory, "admin.key");
  try {
    const { mode } = await stat(path);
    if (process.platform === "win32" || (mode & 0o077) === 0) return [];
    return [
      { name: "key file", state: "failed", detail: `${path} can be read by others`, remedy: `Run: chmod 600 ${path}` },
    ];
  } catch (thrown) {
    if (isMissing(thrown)) return [];
    throw thrown;
  }
}

async function checkRoom(path: string): Promise<Finding> {
  for (let place = path; ; place = dirname(place)) {
    try {
      const { bavail, bsize } = await statfs(place);
      const bytes = bavail * bsize;
      const detail = `${(bytes / 1024 ** 3).toFixed(1)} GiB are free`;
      if (bytes < fullBytes) return { name: "disk", state: "failed", detail, remedy: "Make room: writes will fail." };
      if (bytes < scarceBytes) return { name: "disk", state: "warning", detail, remedy: "Make room soon." };
      return { name: "disk", state: "ok", detail };
    } catch (thrown) {
      if (!isMissing(thrown) || dirname(place) === place) {
        return { name: "disk", state: "skipped", detail: `cannot be looked at: ${(thrown as Error).message}` };
      }
    }
  }
}

/** Says who listens on the ports that a server here would take. */
export async function checkPorts(
  ports: readonly { readonly name: string; readonly port: number }[],
): Promise<readonly Finding[]> {
  return Promise.all(
    ports
      .filter(({ port }) => port !== 0)
      .map(async ({ name, port }): Promise<Finding> => {
        const holder = await findPortHolder(port);
        if (holder === undefined)
          return { name: "port", state: "ok", detail: `${port} (${name}) is free, or its user cannot be seen` };
        return {
          name: "port",
          state: "ok",
          detail: `${port} (${name}) is held by process ${holder.pid} (${holder.command})`,
        };
      }),
  );
}
