#!/usr/bin/env node
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";

import { type Declaration, generate } from "./generate.js";

const HELP = `Writes TypeScript's types of the events that can be reached at a node.

Usage: edri-types URL [--token TOKEN] [--out FILE]

  URL            the node's gateway, as http://127.0.0.1:8080
  --token TOKEN  what it is asked with; EDRI_TOKEN when not given, which other users of this machine cannot see
  --out FILE     where the types go; otherwise to the standard output
`;

class Wrong extends Error {}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { token: { type: "string" }, out: { type: "string" }, help: { type: "boolean", short: "h" } },
  });
  const [url] = positionals;
  if (values.help || url === undefined || positionals.length > 1) {
    (values.help ? process.stdout : process.stderr).write(HELP);
    process.exitCode = values.help ? 0 : 2;
    return;
  }
  const types = generate(await declarations(url, values.token ?? process.env["EDRI_TOKEN"]), url);
  if (values.out === undefined) process.stdout.write(types);
  else writeFileSync(values.out, types);
}

async function declarations(url: string, token: string | undefined): Promise<Declaration[]> {
  const address = new URL("/events", url.replace(/^ws/, "http"));
  const headers: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` };
  const response = await fetch(address, { headers }).catch((error: Error) => {
    throw new Wrong(`${address.href} does not answer: ${String(error.cause ?? error.message)}`);
  });
  const body: unknown = await response.json().catch(() => undefined);
  if (response.ok && Array.isArray(body)) return body as Declaration[];
  const { code, detail } = (body ?? {}) as { code?: string; detail?: string };
  throw new Wrong(response.ok ? `${address.href} is no list of events: is it a node?` : `${address.href} answers ${response.status} ${code ?? ""}: ${detail ?? ""}`);
}

main().catch((error: Error) => {
  process.stderr.write(`edri-types: ${error.message}\n`);
  process.exitCode = 1;
});
