// Builds what users install: JavaScript and declarations of the SDK, and the
// two tarballs in dist-packages/. Fails on whatever publint or attw has to say.
//
//   npm run sdk:pack

import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dirname, "..");
const dist = join(root, "sdk", "dist");
const bin = join(root, "node_modules", ".bin");

interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly [field: string]: unknown;
}

/** Packs both packages; returns the tarballs' paths. */
export function packSdk(target: string = join(root, "dist-packages")): { readonly gen: string; readonly sdk: string } {
  rmSync(dist, { recursive: true, force: true });
  run(join(bin, "tsc"), "-p", join(root, "sdk", "tsconfig.build.json"));
  toPublishedDeclarations(join(dist, "lib"));
  const manifest = readManifest(join(root, "sdk", "package.json"));
  writeFileSync(join(dist, "package.json"), `${JSON.stringify(toPublishedManifest(manifest), null, 2)}\n`);
  for (const file of ["README.md", "LICENSE"]) {
    const source = [join(root, "sdk", file), join(root, file)].find((path) => existsSync(path));
    if (source !== undefined) cpSync(source, join(dist, file));
  }
  mkdirSync(target, { recursive: true });
  const gen = readManifest(join(root, "gen", "package.json"));
  run("npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", target, join(root, "gen"));
  run("npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", target, dist);
  return { gen: tarball(target, gen), sdk: tarball(target, manifest) };
}

/** Refuses packages that resolve wrongly somewhere. */
export function checkPackages(tarballs: readonly string[]): void {
  for (const path of tarballs) {
    run(join(bin, "publint"), "run", path, "--strict");
    // ESM only: CommonJS gets it by `require(esm)`, which Node has had since 22.12.
    run(join(bin, "attw"), path, "--profile", "esm-only", "--no-emoji");
  }
}

/** The manifest without what only the repository needs, and with the way to the built files. */
function toPublishedManifest({ exports: _, ...manifest }: Manifest): Record<string, unknown> {
  return {
    ...manifest,
    types: "./lib/index.d.ts",
    files: ["lib"],
    exports: { ".": { types: "./lib/index.d.ts", default: "./lib/index.js" }, "./package.json": "./package.json" },
  };
}

/** tsc rewrites `./x.ts` to `./x.js` in JavaScript, but not in declarations. */
function toPublishedDeclarations(directory: string): void {
  for (const name of readdirSync(directory).filter((file) => file.endsWith(".d.ts"))) {
    const path = join(directory, name);
    const text = readFileSync(path, "utf8");
    writeFileSync(path, text.replaceAll(/((?:from|import\() ?"\.\.?\/[^"]+)\.ts"/g, '$1.js"'));
  }
}

function readManifest(path: string): Manifest {
  return JSON.parse(readFileSync(path, "utf8")) as Manifest;
}

function tarball(target: string, { name, version }: Manifest): string {
  return join(target, `${name.replace("@", "").replace("/", "-")}-${version}.tgz`);
}

/** Runs a program; shows what it wrote only if it failed. */
function run(command: string, ...args: readonly string[]): void {
  const { status, error, stdout, stderr } = spawnSync(command, args, { cwd: root, encoding: "utf8" });
  if (error !== undefined) throw error;
  if (status !== 0) throw new Error(`${command} ${args.join(" ")} ended with ${status}\n${stdout}${stderr}`);
}

if (import.meta.main) {
  const { gen, sdk } = packSdk();
  checkPackages([gen, sdk]);
  process.stdout.write(`${gen}\n${sdk}\n`);
}
