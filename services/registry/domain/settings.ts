import { AppError } from "../../runtime/errors/app-error.ts";
import { type Compatibility, defaultCompatibility } from "./compatibility/level.ts";

/** What may be done with a subject. Of the org, the last one holds whatever a subject says. */
export type RegistryMode = "READWRITE" | "READONLY" | "READONLY_OVERRIDE";

/** What is set for a subject or for the org; absent is inherited. */
export interface OwnSettings {
  readonly compatibility: Compatibility | undefined;
  readonly mode: RegistryMode | undefined;
}

/** What holds. */
export interface EffectiveSettings {
  readonly compatibility: Compatibility;
  readonly mode: RegistryMode;
}

/** What of both is set. */
export interface SettingsPair {
  readonly subject: OwnSettings;
  readonly org: OwnSettings;
}

/** What holds for a subject: its own, then the org's, then the defaults. */
export function effectiveSettings({ subject, org }: SettingsPair): EffectiveSettings {
  const override = org.mode === "READONLY_OVERRIDE" ? org.mode : undefined;
  return {
    compatibility: subject.compatibility ?? org.compatibility ?? defaultCompatibility,
    mode: override ?? subject.mode ?? org.mode ?? "READWRITE",
  };
}

/** @throws AppError REGISTRY_READ_ONLY if a subject may not be changed */
export function assertWritable(subject: string, settings: SettingsPair): void {
  const { mode } = effectiveSettings(settings);
  if (mode !== "READWRITE") {
    throw new AppError("REGISTRY_READ_ONLY", `subject ${subject} is in mode ${mode}: it can be read only`);
  }
}
