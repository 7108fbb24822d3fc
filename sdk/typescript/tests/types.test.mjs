import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { generate } from "../dist/types/generate.js";
import { URL_OF_NODE } from "./support.mjs";

const root = join(import.meta.dirname, "..");
const folder = join(root, ".types-test");
rmSync(folder, { recursive: true, force: true });
mkdirSync(folder);

/** What the compiler says of a program beside the types that were written. */
function compiled(types, program) {
  writeFileSync(join(folder, "events.ts"), types);
  writeFileSync(join(folder, "program.ts"), program);
  const options = ["--ignoreConfig", "--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--skipLibCheck", "--types", "node"];
  const done = spawnSync(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), ...options, join(folder, "program.ts")], { encoding: "utf8" });
  return done.stdout.trim();
}

const head = `
import { connect } from "../dist/node.js";
import type { Events } from "./events.js";
const node = await connect<Events>("ws://127.0.0.1");
`;

test("the types of a node's events accept what is right and refuse what is wrong", () => {
  const run = (...more) => spawnSync(process.execPath, [join(root, "dist/types/main.js"), ...more], { encoding: "utf8" });
  const file = join(folder, "written.ts");
  const written = run(URL_OF_NODE, "--out", file);
  assert.equal(written.status, 0, written.stderr);
  const types = readFileSync(file, "utf8");

  const right = `${head}
    const twice: number = await node.request("web.double", { number: 21 });
    await node.publish("web.tick", { lane: "a", number: twice });
    for await (const { name, payload } of node.subscribe("web.tick")) { const lane: string = payload.lane; const tick: "web.tick" = name; void [lane, tick]; }
    for await (const event of node.subscribe("web.>")) if (event.name === "web.tick") { const number: number = event.payload.number; void number; }
    const tunnel = await node.open("web.upper", {});
    await tunnel.send("word");
    for await (const word of tunnel) { const upper: string = word; void upper; }
    const count: number = await tunnel.result;
    void count;
  `;
  assert.equal(compiled(types, right), "");

  const wrong = {
    "a field of another type": `await node.request("web.double", { number: "21" });`,
    "a field that is missing": `await node.publish("web.tick", { lane: "a" });`,
    "a field too many": `await node.request("web.double", { number: 1, extra: 2 });`,
    "an event that is not there": `await node.request("web.nothing", {});`,
    "a request that is published": `await node.publish("web.double", { number: 1 });`,
    "a response of another type": `const text: string = await node.request("web.double", { number: 1 });`,
    "an item of another type": `await (await node.open("web.upper", {})).send(5);`,
  };
  for (const [what, line] of Object.entries(wrong)) assert.match(compiled(types, head + line), /error TS/, what);
});

test("what is wrong with a node is told", () => {
  const run = (...more) => spawnSync(process.execPath, [join(root, "dist/types/main.js"), ...more], { encoding: "utf8" });
  const nobody = run("http://127.0.0.1:1");
  assert.equal(nobody.status, 1);
  assert.match(nobody.stderr, /does not answer/);
  const nothing = run(`${URL_OF_NODE}`, "twice");
  assert.equal(nothing.status, 2);
});

test("schemas become types", () => {
  const schema = {
    title: "Odd",
    type: "object",
    required: ["plain", "kind"],
    properties: {
      plain: { type: "string", description: "ends a comment */ early" },
      "needs-quotes": { type: ["integer", "null"] },
      kind: { oneOf: [{ const: "a" }, { enum: ["b", "c"] }] },
      pair: { type: "array", prefixItems: [{ type: "number" }, { $ref: "#/$defs/Tree" }] },
      many: { type: "array", items: { anyOf: [{ type: "string" }, { type: "null" }] } },
      map: { type: "object", additionalProperties: { type: "boolean" } },
      anything: true,
    },
    $defs: { Tree: { type: "object", properties: { children: { type: "array", items: { $ref: "#/$defs/Tree" } } }, required: ["children"] } },
  };
  const other = { $defs: { Tree: { type: "string" } }, $ref: "#/$defs/Tree" };
  const types = generate([{ name: "odd.one", kind: "notification", schemas: { event: schema } }, { name: "odd.two", kind: "notification", schemas: { event: other } }], "a test");
  const program = `
    import type { Events, Odd, Tree } from "./events.js";
    const tree: Tree = { children: [{ children: [] }] };
    const odd: Odd = { plain: "x", "needs-quotes": null, kind: "b", pair: [1, tree], many: ["a", null], map: { yes: true }, anything: 5 };
    const two: Events["odd.two"]["event"] = "a tree is a text there";
    void [odd, two];
  `;
  assert.equal(compiled(types, program), "");
  assert.match(compiled(types, `import type { Odd } from "./events.js"; const odd: Odd = { plain: "x", kind: "d" }; void odd;`), /error TS/);
});
