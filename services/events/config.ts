import { defineSettings, type SettingsValues, setting } from "../runtime/config/settings.ts";

/** Settings of the events service. */
export const eventsSettings = defineSettings({
  CADRE_EVENTS_DEAD_LETTER_RETENTION_DAYS: {
    schema: setting.integer(90, { min: 1, max: 3_650 }),
    description: "How long dead letters are kept, whatever became of them, in days. Default: 90.",
  },
});

/** What the settings say. */
export type EventsConfig = SettingsValues<typeof eventsSettings>;
