import { existsSync, readFileSync } from "node:fs";
import { relative } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { z } from "zod";

/** What is read of a report of vitest's JSON reporter. */
const reportSchema = z.object({
  testResults: z.array(
    z.object({
      name: z.string(),
      status: z.string(),
      message: z.string(),
      assertionResults: z.array(
        z.object({
          ancestorTitles: z.array(z.string()),
          title: z.string(),
          status: z.string(),
          failureMessages: z.array(z.string()),
        }),
      ),
    }),
  ),
});

/** Of a message that long, in characters, the rest is in the log above. */
const maxMessage = 300;

/**
 * A line for each test that failed, `file › suite › test: the first line of its
 * message`, and for each file that failed without one, because it did not load
 * or a hook failed. Empty if the run ended before it wrote a report.
 *
 * @param report path of a report of vitest's JSON reporter
 * @param root what files are named from
 */
export function failedTests(report: string, root = process.cwd()): readonly string[] {
  if (!existsSync(report)) return [];
  const { testResults } = reportSchema.parse(JSON.parse(readFileSync(report, "utf8")));
  return testResults.flatMap(({ name, status, message, assertionResults }) => {
    const file = relative(root, name);
    const failed = assertionResults.filter((test) => test.status === "failed");
    if (failed.length > 0) {
      return failed.map(({ ancestorTitles, title, failureMessages }) =>
        line([file, ...ancestorTitles.filter(Boolean), title].join(" › "), failureMessages[0]),
      );
    }
    return status === "failed" ? [line(file, message || "a hook failed: see above")] : [];
  });
}

function line(what: string, message = "no message"): string {
  const [first = ""] = stripVTControlCharacters(message).trimStart().split("\n");
  return `${what}: ${first.length > maxMessage ? `${first.slice(0, maxMessage)}…` : first}`;
}
