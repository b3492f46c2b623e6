import { readdirSync, readFileSync } from "node:fs";

/** A process that another one started. */
export interface ChildOf {
  readonly pid: number;
  readonly command: string;
}

/** The living children of a process, as Linux lists them. */
export function childrenOf(parent: number): readonly ChildOf[] {
  return readdirSync("/proc").flatMap((name) => {
    const pid = Number(name);
    if (!Number.isInteger(pid)) return [];
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
      // The name before the state may hold anything, also brackets.
      const [state, ppid] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      if (Number(ppid) !== parent || state === "Z") return [];
      return [{ pid, command: readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim() }];
    } catch (error) {
      // It ended while it was looked at.
      if (["ENOENT", "ESRCH"].includes((error as NodeJS.ErrnoException).code ?? "")) return [];
      throw error;
    }
  });
}
