import { BlockList } from "node:net";
import { expect, test } from "vitest";
import { createConnectionGate, plainAddress, sourceOf } from "./connection-gate.ts";

test.each([
  ["10.0.0.1", "10.0.0.1"],
  ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
  ["2001:db8:1:2::", "2001:db8:1:2::/64"],
  ["2001:0db8::1", "2001:db8:0:0::/64"],
  ["::1", "0:0:0:0::/64"],
  ["fe80::1%eth0", "fe80:0:0:0::/64"],
])("%s counts as %s", (address, source) => {
  expect(sourceOf(address)).toBe(source);
});

test("IPv4 in IPv6 is IPv4", () => {
  expect(plainAddress("::ffff:10.0.0.1")).toBe("10.0.0.1");
});

test("a source, and the process, have their limits; what is released may come again", () => {
  const proxies = new BlockList();
  proxies.addAddress("10.9.9.9");
  const gate = createConnectionGate({ maxConnections: 5, maxConnectionsPerSource: 2 }, proxies);
  const first = gate.admit("10.0.0.1");
  expect(gate.admit("10.0.0.1").admitted).toBe(true);
  expect(gate.admit("10.0.0.1")).toEqual({ admitted: false, reason: "source" });
  if (first.admitted) first.release();
  expect(gate.admit("10.0.0.1").admitted).toBe(true);
  for (let index = 0; index < 3; index++) expect(gate.admit("10.9.9.9").admitted).toBe(true);
  expect(gate.admit("10.0.0.2")).toEqual({ admitted: false, reason: "process" });
  expect(gate.open).toBe(5);
});
