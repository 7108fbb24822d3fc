/** What is known of an event's types; `npx edri-types` writes them for the events of a node. */
export interface EventTypes {
  kind: "notification" | "request" | "tunnel";
  event: unknown;
  /** The response, or the final result of a tunnel. */
  output?: unknown;
  /** What the opener of a tunnel sends. */
  up?: unknown;
  /** What the worker of a tunnel sends. */
  down?: unknown;
}

/** Events by name. */
export type Events = { [name: string]: EventTypes };

/** Any event with any payload: what a client knows that was told of no types. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type AnyEvents = { [name: string]: { kind: any; event: any; output: any; up: any; down: any } };

/** The names of the events of one kind. */
export type NamesOf<E extends object, K extends EventTypes["kind"]> = {
  [N in keyof E & string]: E[N] extends { kind: infer Kind } ? (K extends Kind ? N : never) : never;
}[keyof E & string];

/** A part of an event's types. */
export type Part<E extends object, N extends keyof E, P extends keyof EventTypes> = E[N] extends { [Q in P]: infer T } ? T : unknown;

/** Conditions on a field of the payload. All must hold. */
export interface Condition {
  eq?: unknown;
  ne?: unknown;
  in?: unknown[];
  gt?: number | string;
  gte?: number | string;
  lt?: number | string;
  lte?: number | string;
  prefix?: string;
}

/** An event that came. */
export interface Received<N extends string = string, P = unknown> {
  name: N;
  payload: P;
  id: string;
  key?: string;
  /** Who sent it, `node/manager`. */
  origin?: string;
  /** The id of the event that made it. */
  cause?: string;
  trace?: string;
  /** Its place in the history that the subscription reads. */
  position?: string;
  headers: Record<string, string>;
  /** How many events of the subscription were left out before this one; `Infinity` when nobody knows. */
  missed: number;
}

/** What became of a notification. */
export interface Receipt {
  id: string;
  /** How many groups of subscribers have it. */
  groups: number;
}

/** Options of what is sent. */
export interface SendOptions {
  /** Ends the wait, and tells the worker that nobody waits any more. */
  signal?: AbortSignal;
  /** How long it may take, in milliseconds. */
  timeout?: number;
  /** Chosen instead of the event's own key. */
  key?: string;
  headers?: Record<string, string>;
  /** The id of the event that made this one. */
  cause?: string;
  trace?: string;
}

/** The fields of a call. */
export function callFields(event: string, options: SendOptions): Record<string, unknown> {
  const { key, headers, cause, trace } = options;
  return {
    event,
    ...(key !== undefined && { key }),
    ...(headers !== undefined && { headers }),
    ...(cause !== undefined && { cause }),
    ...(trace !== undefined && { trace }),
  };
}
