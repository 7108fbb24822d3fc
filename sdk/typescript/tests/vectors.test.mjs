import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { json, PAYLOADS } from "../dist/encoding.js";
import { messagePack } from "../dist/msgpack.js";
import { FrameReader } from "../dist/process.js";

const vectors = JSON.parse(readFileSync(process.env.EDRI_VECTORS, "utf8"));
const msgpack = messagePack();
const bytes = (hexadecimal) => Uint8Array.from(Buffer.from(hexadecimal, "hex"));
/** Their JSON says less than their MessagePack, or needs integers that JavaScript's JSON does not have. */
const MORE = new Set(["payload.bytes", "payload.not_finite", "payload.integers_of_64_bits"]);

/** A value without the defaults of declarations, which vectors write and writers need not. */
const plain = (value) => JSON.parse(JSON.stringify(value ?? null, (key, part) => (key !== "" && (part === "" || part === false) ? undefined : part)));

/** The frame without what stands for a default, as far as it is in the other one. */
function agrees(frame, wanted) {
  const [name, fields] = frame;
  const [[wantedName, wantedFields]] = Object.entries(wanted);
  assert.equal(name, wantedName);
  for (const [field, value] of Object.entries(wantedFields)) assert.deepEqual(plain(fields[field]), plain(value), field);
}

for (const vector of vectors.frames) {
  test(`${vector.name} is read, and written so that it reads the same`, () => {
    for (const [encoding, message] of [[json, vector.json], [msgpack, bytes(vector.messagepack)]]) {
      if (MORE.has(vector.name)) continue;
      const frame = encoding.decode(message);
      agrees(frame, vector.frame);
      const [name, fields] = frame;
      const payload = PAYLOADS.find((field) => field in fields);
      const rest = Object.fromEntries(Object.entries(fields).filter(([field]) => field !== payload));
      const packed = payload && encoding.pack(fields[payload]);
      assert.deepEqual(encoding.decode(encoding.encode(name, rest, payload, packed)), frame);
    }
  });
}

test("64-bit integers and byte strings keep their value in MessagePack", () => {
  const exact = messagePack({ bigints: true });
  const of = (name) => exact.decode(bytes(vectors.frames.find((vector) => vector.name === name).messagepack))[1];
  assert.ok(JSON.stringify(of("payload.integers_of_64_bits"), (_, value) => (typeof value === "bigint" ? String(value) : value)).includes("18446744073709551615"));
  const values = JSON.stringify(of("payload.bytes"), (_, value) => (value instanceof Uint8Array ? "bytes" : value));
  assert.ok(values.includes("bytes"), values);
});

for (const vector of vectors.accepted) {
  test(`accepted: ${vector.name}`, () => {
    const [wanted] = Object.keys(vector.frame);
    const read = [];
    if (vector.json) read.push(json.decode(vector.json));
    if (vector.messagepack) read.push(msgpack.decode(bytes(vector.messagepack)));
    for (const [name] of read) assert.ok(name === wanted || wanted === "newer", name);
  });
}

for (const vector of vectors.streams) {
  test(`stream: ${vector.name}`, () => {
    const all = Buffer.from(vector.bytes, "hex");
    for (const size of [1, 3, all.length || 1]) {
      const frames = [];
      const reader = new FrameReader((frame) => frames.push(Buffer.from(frame).toString("hex")));
      try {
        for (let at = 0; at < all.length; at += size) reader.read(all.subarray(at, at + size));
      } catch (error) {
        assert.ok(vector.code === "frame_too_long", String(error));
      }
      assert.deepEqual(frames.slice(0, vector.frames.length), vector.frames);
    }
  });
}
