/** The fields of a frame. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type Fields = Record<string, any>;

/** A payload as it goes into a frame. */
export type Packed = string | Uint8Array<ArrayBuffer>;

/** A frame as it goes into a message. */
export type Message = string | Uint8Array<ArrayBuffer>;

/** How frames are written: `json`, or `msgpack` of `@edri/sdk/msgpack`. */
export interface Encoding {
  /** The subprotocol of WebSocket that stands for it. */
  readonly subprotocol: "edri.json" | "edri.msgpack";
  /** Throws a `TypeError` for what cannot be written. */
  pack(value: unknown): Packed;
  /** The bytes that a payload takes from a tunnel's credit. */
  size(packed: Packed): number;
  /** `payload` is the field that holds `packed`. */
  encode(name: string, fields: Fields, payload?: string, packed?: Packed): Message;
  /** Throws for what is no frame. */
  decode(message: string | ArrayBuffer | Uint8Array): [name: string, fields: Fields];
}

const utf8 = new TextEncoder();
const text = new TextDecoder();

/**
 * Frames as JSON, what browsers read fastest. Integers beyond 2^53 lose their last digits, and a byte string is a list of
 * numbers: events with such fields are better read with `msgpack`.
 */
export const json: Encoding = {
  subprotocol: "edri.json",

  pack(value) {
    const packed = JSON.stringify(value ?? null);
    if (packed === undefined) throw new TypeError(`a ${typeof value} cannot be sent`);
    return packed;
  },

  size(packed) {
    return utf8.encode(packed as string).length;
  },

  encode(name, fields, payload, packed) {
    const written = JSON.stringify(fields);
    if (payload === undefined) return `{${JSON.stringify(name)}:${written}}`;
    const before = written === "{}" ? "{" : `${written.slice(0, -1)},`;
    return `{${JSON.stringify(name)}:${before}${JSON.stringify(payload)}:${packed as string}}}`;
  },

  decode(message) {
    return single(JSON.parse(typeof message === "string" ? message : text.decode(message)));
  },
};

/** The name and the fields of a map that has one entry. */
export function single(frame: unknown): [string, Fields] {
  if (typeof frame === "object" && frame !== null) {
    const entries = Object.entries(frame);
    const [name, fields] = entries[0] ?? [];
    if (entries.length === 1 && name !== undefined && typeof fields === "object" && fields !== null) return [name, fields as Fields];
  }
  throw new TypeError("a frame is a map of one entry");
}

/** The fields that hold payloads: in MessagePack they are byte strings. */
export const PAYLOADS = ["payload", "value", "arguments", "conditions"] as const;
