// Builds the page's program: `node build.mjs OUT`, in a copy of this folder beside the SDK's packages; `tests/page.test.mjs` of the
// SDK does it, and compares. With EDRI_BLESS=1 it writes `page/app.js` anew.

import { join } from "node:path";

import { build } from "esbuild";

await build({
  entryPoints: [join(import.meta.dirname, "main.ts")],
  outfile: process.argv[2],
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "none",
  banner: { js: "// Built from examples/quakes/web: change it there. The land is from Natural Earth (public domain)." },
});
