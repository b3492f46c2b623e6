import { jsonOf, type Review, ReviewState } from "@cadre/sdk";
import { type Command, Option } from "commander";
import { type ConnectionFlags, connect, withConnection } from "../connection.ts";
import { setTimeoutMs } from "../contracts/contract-source.ts";
import { isSame, setToJson, tellDifferences } from "../contracts/tell-contracts.ts";
import { printFields, printJson, printLine, printTable, shorten } from "../output.ts";
import { showTime } from "../time.ts";

type Flags = ConnectionFlags & { readonly json?: boolean };
type DecideFlags = Flags & { readonly reason?: string };
type ListFlags = Flags & { readonly state?: "open" | "approved" | "rejected" | "expired"; readonly all?: boolean };

/** Adds `reviews` to `cadre contracts`. */
export function registerReviews(contracts: Command): void {
  const reviews = contracts.command("reviews").summary("list, show, approve and reject pushes that break");

  withConnection(reviews.command("list", { isDefault: true }))
    .description("Lists the reviews that are open, newest first.")
    .addOption(
      new Option("--state <state>", "only those in this state").choices(["open", "approved", "rejected", "expired"]),
    )
    .option("--all", "those that were decided on as well")
    .option("--json", "print JSON")
    .action(async ({ state = "open", all = false, ...flags }: ListFlags) => {
      const found = await (await connect(flags)).contracts.reviews.list(all ? {} : { state });
      if (flags.json === true) printJson({ reviews: found.map(jsonOf) });
      else printReviews(found);
    });

  withConnection(reviews.command("show"))
    .alias("get")
    .description("Shows what a review changes and breaks, or one of its files.")
    .argument("<review>", "rev_…")
    .argument("[path]", "a file of the review, to be printed instead")
    .option("--json", "print JSON")
    .action(async (reviewId: string, path: string | undefined, flags: Flags) => {
      const { reviews: registry } = (await connect(flags)).contracts;
      if (path !== undefined) {
        const file = await registry.file(reviewId, path);
        if (flags.json === true) return printJson(jsonOf(file));
        process.stdout.write(file.schema.endsWith("\n") ? file.schema : `${file.schema}\n`);
        return;
      }
      const { review, contracts: changed } = await registry.get(reviewId);
      if (flags.json === true) {
        const { contracts: told } = setToJson({ contracts: [...changed], digest: review.digest });
        return printJson({ review: jsonOf(review), contracts: told });
      }
      printFields([
        ["review", review.reviewId],
        ["state", showState(review)],
        ["asked for by", review.requestedBy],
        ["asked for at", showTime(review.requestedAt)],
        ["because", review.reason],
        ["digest", review.digest],
        ...(review.decidedBy === ""
          ? ([["until", showTime(review.expiresAt)]] as const)
          : ([
              ["decided by", review.decidedBy],
              ["decided at", showTime(review.decidedAt)],
              ["decided because", review.decisionReason],
            ] as const)),
      ]);
      tellDifferences(changed, []);
    });

  withConnection(reviews.command("approve"))
    .description(
      "Registers what a review is about, if what is registered is still what it was. Wants the role admin, of somebody else than who asked.",
    )
    .argument("<review>", "rev_…")
    .option("--reason <text>", "a note that the review keeps")
    .option("--json", "print JSON")
    .action(async (reviewId: string, { reason, ...flags }: DecideFlags) => {
      const { reviews: registry } = (await connect(flags, { timeoutMs: setTimeoutMs })).contracts;
      const { review, contracts: all } = await registry.approve(reviewId, reason);
      const { contracts: told } = setToJson({ contracts: [...all], digest: review.digest });
      if (flags.json === true) {
        return printJson({ review: jsonOf(review), registered: told.filter(({ state }) => state !== "same") });
      }
      for (const contract of all.filter((one) => !isSame(one))) {
        printLine(`${contract.subject}: version ${contract.version}, id ${contract.schemaId}`);
      }
      printLine(`digest ${review.digest}`);
    });

  withConnection(reviews.command("reject"))
    .description("Closes a review; nothing of it is registered. Wants the role admin.")
    .argument("<review>", "rev_…")
    .requiredOption("--reason <text>", "why, for who asked")
    .option("--json", "print JSON")
    .action(async (reviewId: string, { reason = "", ...flags }: DecideFlags) => {
      const review = await (await connect(flags)).contracts.reviews.reject(reviewId, reason);
      if (flags.json === true) printJson({ review: jsonOf(review) });
      else printLine(`${review.reviewId}: rejected`);
    });
}

/** Prints reviews for people. */
export function printReviews(reviews: readonly Review[]): void {
  printTable(
    reviews,
    [
      { title: "review", cell: ({ reviewId }) => reviewId },
      { title: "state", cell: showState },
      { title: "asked for by", cell: ({ requestedBy }) => shorten(requestedBy, 40) },
      { title: "at", cell: ({ requestedAt }) => showTime(requestedAt) },
      { title: "breaks", cell: ({ brokenSubjects }) => shorten(brokenSubjects.join(", "), 60) },
      { title: "because", cell: ({ reason }) => reason },
      { title: "decided because", cell: ({ decisionReason }) => decisionReason },
    ],
    "There are no such reviews.",
  );
}

function showState({ state }: Review): string {
  return ReviewState[state].toLowerCase();
}
