import { expect, test } from "vitest";
import { createAuthorityRule } from "./authority.ts";

test.each<[string, readonly string[], Readonly<Record<string, boolean>>]>([
  [
    "127.0.0.1",
    [],
    {
      "localhost:8010": true,
      "LOCALHOST:8010": true,
      "console.localhost:8010": true,
      "127.0.0.1:8010": true,
      "127.8.9.1:8010": true,
      "[::1]:8010": true,
      "localhost:8011": true,
      localhost: true,
      "evil.test:8010": false,
      "localhost.evil.test:8010": false,
      "evillocalhost:8010": false,
      "127.0.0.1.evil.test:8010": false,
      "127.evil.test:8010": false,
      "192.168.1.5:8010": false,
      "0.0.0.0:8010": false,
      "[::ffff:127.0.0.1]:8010": false,
      "localhost.:8010": false,
      ".localhost:8010": false,
      "": false,
    },
  ],
  ["::1", [], { localhost: true, "[::1]": true, "localhost:8010": true }],
  [
    "localhost",
    ["Cadre.example.com"],
    { "cadre.example.com": true, "CADRE.example.com:9999": true, "localhost:8010": true, "example.com": false },
  ],
  [
    "0.0.0.0",
    [],
    {
      "192.168.1.5:8010": true,
      "10.0.0.1:31000": true,
      "[fd00::1]:8010": true,
      "localhost:9000": true,
      "cadre.example.com": false,
      "1.2.3.4.evil.test:8010": false,
    },
  ],
  [
    "0.0.0.0",
    ["cadre.example.com", "[fd00::1]"],
    { "cadre.example.com": true, "[fd00::1]:1": true, "192.168.1.5": false, "localhost:8010": false },
  ],
])("a server on %s with the names %j", (host, named, expected) => {
  const rule = createAuthorityRule({ host, named });
  expect(Object.fromEntries(Object.keys(expected).map((name) => [name, rule.admits(name)]))).toEqual(expected);
});
