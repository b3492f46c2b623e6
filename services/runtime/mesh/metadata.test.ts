import { Metadata } from "@grpc/grpc-js";
import fc from "fast-check";
import { expect, test } from "vitest";
import { AppError } from "../errors/app-error.ts";
import { fromMetadata, toMetadata } from "./metadata.ts";

test.each([
  "grpc-timeout",
  "grpc-status",
  "grpc-anything",
  "content-type",
  "te",
  "host",
  "connection",
  "transfer-encoding",
])("%s belongs to the transport and crosses in neither direction", (name) => {
  expect(toMetadata(new Headers({ [name]: "x" })).toJSON()).toEqual({});
  const metadata = new Metadata();
  metadata.set(name, "x");
  expect([...fromMetadata(metadata)]).toEqual([]);
});

test("several binary values of one name arrive as several", () => {
  const headers = new Headers({ "data-bin": "AAEC" });
  headers.append("data-bin", "/w");
  expect(toMetadata(headers).get("data-bin")).toEqual([Buffer.from([0, 1, 2]), Buffer.from([255])]);
});

test("a value that gRPC cannot carry is refused by the name of its header", () => {
  const refused = () => toMetadata(new Headers({ "x-name": "Zo\u00eb" }));
  expect(refused).toThrowError(AppError);
  expect(refused).toThrowError("x-name: must be printable ASCII");
});

test("whatever is printable, or binary, survives both ways", () => {
  const text = fc.string({ unit: fc.integer({ min: 0x20, max: 0x7e }).map((code) => String.fromCharCode(code)) });
  const values = fc.tuple(
    fc.array(text, { minLength: 1, maxLength: 3 }),
    fc.array(fc.uint8Array(), { minLength: 1, maxLength: 3 }),
  );
  fc.assert(
    fc.property(values, ([texts, binaries]) => {
      const metadata = new Metadata();
      for (const value of texts) metadata.add("x-text", value);
      for (const value of binaries) metadata.add("x-data-bin", Buffer.from(value));
      const back = toMetadata(fromMetadata(metadata));
      // An HTTP header has no blanks around its value; gRPC joins values by commas.
      expect(back.get("x-text")).toEqual([texts.map((value) => value.trim()).join(", ")]);
      expect(back.get("x-data-bin")).toEqual(binaries.map((value) => Buffer.from(value)));
    }),
  );
});
