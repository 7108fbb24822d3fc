import { Decoder, Encoder } from "@msgpack/msgpack";

import { type Encoding, PAYLOADS, single } from "./encoding.js";

/** Frames as MessagePack: byte strings are `Uint8Array`s. With `bigints`, 64-bit integers are `bigint`s. */
export function messagePack(options: { bigints?: boolean } = {}): Encoding {
  const frames = new Encoder({ ignoreUndefined: true });
  const payloads = new Encoder({ ignoreUndefined: true, useBigInt64: options.bigints ?? false });
  const outer = new Decoder();
  const inner = new Decoder({ useBigInt64: options.bigints ?? false });
  return {
    subprotocol: "edri.msgpack",
    pack: (value) => payloads.encode(value ?? null),
    size: (packed) => packed.length,
    encode(name, fields, payload, packed) {
      return frames.encode({ [name]: payload === undefined ? fields : { ...fields, [payload]: packed } });
    },
    decode(message) {
      if (typeof message === "string") throw new TypeError("a text, where frames are MessagePack");
      const [name, fields] = single(outer.decode(message));
      for (const field of PAYLOADS) {
        if (fields[field] instanceof Uint8Array) fields[field] = inner.decode(fields[field]);
      }
      return [name, fields];
    },
  };
}

/** Frames as MessagePack, 64-bit integers as numbers. */
export const msgpack: Encoding = messagePack();
