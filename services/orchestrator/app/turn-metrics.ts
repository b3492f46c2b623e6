import type { Meter } from "@opentelemetry/api";
import type { RunEnd } from "../domain/entry.ts";

/** The figures that operators see of turns. */
export interface TurnMetrics {
  turnEnded(state: RunEnd["state"], durationMs: number): void;
  stepEnded(kind: "model" | "tool", outcome: "succeeded" | "failed"): void;
  /** From the acceptance of a turn that did not wait to its first text. */
  firstText(durationMs: number): void;
}

/** Counts by OpenTelemetry. */
export function createTurnMetrics(meter: Meter): TurnMetrics {
  const turns = meter.createCounter("cadre_turns", { description: "Turns that ended, by how." });
  const duration = meter.createHistogram("cadre_turn_duration_seconds", {
    description: "From the start of a turn to its end.",
    unit: "s",
    advice: { explicitBucketBoundaries: [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600] },
  });
  // Counted here and read when somebody asks: a record costs more than what else is done at a step's end.
  const steps = { model: { succeeded: 0, failed: 0 }, tool: { succeeded: 0, failed: 0 } };
  meter
    .createObservableCounter("cadre_steps", { description: "Attempts of steps that ended, by kind and how." })
    .addCallback((result) => {
      for (const [kind, outcomes] of Object.entries(steps)) {
        for (const [outcome, count] of Object.entries(outcomes)) result.observe(count, { kind, outcome });
      }
    });
  const first = meter.createHistogram("cadre_first_text_seconds", {
    description: "From the acceptance of a turn to its first text.",
    unit: "s",
    advice: { explicitBucketBoundaries: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10] },
  });
  return {
    turnEnded(state, durationMs) {
      turns.add(1, { state });
      duration.record(durationMs / 1_000, { state });
    },
    stepEnded(kind, outcome) {
      steps[kind][outcome] += 1;
    },
    firstText: (durationMs) => first.record(durationMs / 1_000),
  };
}
