import { type DescField, type DescMessage, type DescOneof, isMessage, type Message } from "@bufbuild/protobuf";

/** Told of the first read of each field; of a oneof, of the field that is set. */
export type OnFieldRead = (field: DescField) => void;

type Properties = Record<string, unknown>;

/** Elements of a list or map that are watched; what a handler reads of one it reads of the next. */
const maxElements = 100;

/**
 * Has the reads of a message's fields told, those of messages within it as
 * well. The message stays what it is: its properties become accessors, each
 * until it is first read, so that it is one message to `isMessage`, `toBinary`,
 * `create`, `structuredClone` and whoever changes it. Who copies or encodes the
 * whole reads every field. A field that is absent is told from a layer below
 * the message's own properties, where only `in` sees it.
 */
export function watchFields(schema: DescMessage, message: Message, onRead: OnFieldRead): void {
  const target = message as unknown as Properties;
  const absent: DescField[] = [];
  for (const member of schema.members) {
    if (member.kind === "oneof") watchOneof(member, target[member.localName], onRead);
    else if (!Object.hasOwn(target, member.localName)) absent.push(member);
    else watchProperty(target, member.localName, member, onRead);
  }
  if (absent.length > 0) Object.setPrototypeOf(target, absentFields(absent, target, onRead));
}

function watchOneof(oneof: DescOneof, value: unknown, onRead: OnFieldRead): void {
  const selected = value as Properties;
  const field = oneof.fields.find(({ localName }) => localName === selected["case"]);
  if (field === undefined) return;
  watchProperty(selected, "case", field, onRead);
  watchProperty(selected, "value", field, onRead);
}

function watchProperty(target: Properties, name: string, field: DescField, onRead: OnFieldRead): void {
  const value = target[name];
  Object.defineProperty(target, name, {
    enumerable: true,
    configurable: true,
    get() {
      define(target, name, value);
      onRead(field);
      if (name !== "case") watchValue(field, value, onRead);
      return value;
    },
    set(next: unknown) {
      define(target, name, next);
    },
  });
}

function watchValue(field: DescField, value: unknown, onRead: OnFieldRead): void {
  const { message } = field;
  if (message === undefined || typeof value !== "object" || value === null) return;
  const elements = field.fieldKind === "message" ? [value] : Object.values(value).slice(0, maxElements);
  for (const element of elements) {
    // Some of Protobuf's own types are plain values here, as google.protobuf.Struct is.
    if (isMessage(element, message)) watchFields(message, element, onRead);
  }
}

/** What a message inherits from: as before, but for the fields that it does not have. */
function absentFields(fields: readonly DescField[], target: Properties, onRead: OnFieldRead): object {
  const inherited = Object.getPrototypeOf(target) as Properties;
  const layer = Object.create(inherited) as object;
  for (const field of fields) {
    const name = field.localName;
    Object.defineProperty(layer, name, {
      configurable: true,
      get() {
        onRead(field);
        return inherited[name];
      },
      set(this: Properties, next: unknown) {
        define(this, name, next);
      },
    });
  }
  return layer;
}

function define(target: Properties, name: string, value: unknown): void {
  Object.defineProperty(target, name, { value, writable: true, enumerable: true, configurable: true });
}
