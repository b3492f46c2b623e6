import { AppError } from "../../runtime/errors/app-error.ts";
import { fromUuid } from "../../runtime/ids/id.ts";
import type { Compatibility } from "../domain/compatibility/level.ts";
import { assertRoom } from "../domain/limit.ts";
import {
  type EffectiveSettings,
  effectiveSettings,
  type OwnSettings,
  type RegistryMode,
  type SettingsPair,
} from "../domain/settings.ts";
import { assertSubject } from "../domain/subject.ts";
import type { RegistryDeps } from "./deps.ts";

/** What is set for one subject, or the org, and what holds. */
export interface SettingsState {
  readonly own: OwnSettings;
  readonly effective: EffectiveSettings;
}

/** What to change: `inherit` takes a setting away, `undefined` leaves it. */
export interface SettingsPatch {
  readonly compatibility: Compatibility | "inherit" | undefined;
  readonly mode: RegistryMode | "inherit" | undefined;
}

type Store = Pick<RegistryDeps, "store">;

/** @param subject empty for the org */
export async function getSettings({ store }: Store, orgId: string, subject: string): Promise<SettingsState> {
  if (subject !== "") assertSubject(subject);
  const pair = await store.read(orgId, (view) => view.settings(subject));
  return { own: ownOf(pair, subject), effective: effectiveSettings(pair) };
}

/**
 * Changes what is set; the subject need not have versions yet.
 *
 * @param subject empty for the org
 * @returns what was set before, and what holds now
 * @throws AppError LIMIT_EXCEEDED
 */
export async function updateSettings(
  { store, limits }: RegistryDeps,
  orgId: string,
  subject: string,
  patch: SettingsPatch,
): Promise<SettingsState> {
  if (subject !== "") assertSubject(subject);
  if (subject !== "" && patch.mode === "READONLY_OVERRIDE") {
    const message = "the mode READONLY_OVERRIDE is for the whole registry";
    throw new AppError("INVALID_ARGUMENT", message, { violations: [{ field: "mode", message }] });
  }
  const org = fromUuid("org", orgId);
  const subjects = await limits.get(org, "subjects");
  return store.change(orgId, [subject], async (change) => {
    const pair = await change.settings(subject);
    const own = ownOf(pair, subject);
    const next: OwnSettings = {
      compatibility: patched(own.compatibility, patch.compatibility),
      mode: patched(own.mode, patch.mode),
    };
    const isNew = own.compatibility === undefined && own.mode === undefined;
    if (isNew && subject !== "") assertRoom(org, "subjects", await change.countSettings(), subjects);
    await change.putSettings(subject, next);
    const after = subject === "" ? { ...pair, org: next } : { ...pair, subject: next };
    return { own, effective: effectiveSettings(after) };
  });
}

function ownOf(pair: SettingsPair, subject: string): OwnSettings {
  return subject === "" ? pair.org : pair.subject;
}

function patched<T extends string>(before: T | undefined, patch: T | "inherit" | undefined): T | undefined {
  if (patch === undefined) return before;
  return patch === "inherit" ? undefined : patch;
}
