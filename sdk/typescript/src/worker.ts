import type { AnyEvents } from "./events.js";
import type { Context } from "./context.js";
import type { Tunnel } from "./tunnel.js";

/** How an event may be reached through a gateway. */
export interface Exposure {
  /** `GET /risk/{region}` */
  routes?: string[];
  /** Fields that come from a header, and its name. */
  headers?: Record<string, string>;
  cookies?: Record<string, string>;
  /** The template that shows the answer to a browser, in the gateway's folder of pages. */
  page?: string;
  /** The template that shows the form again when what was sent in it is wrong. */
  form?: string;
  /** Where a browser goes after its form was taken: `/tickets/{id}`. */
  then?: string;
  /** For how long a response may be given again; `public`: whoever asks; `stale_on`: notifications that end it sooner. */
  cache?: { lifetime_ms: number; public?: boolean; stale_on?: string[] };
}

/** JSON Schemas of an event. */
export interface Schemas {
  event?: object | boolean;
  /** The response, or the final result of a tunnel. */
  output?: object | boolean;
  up?: object | boolean;
  down?: object | boolean;
}

export interface EventOptions {
  /** The field whose value is the key. */
  key?: string;
  /** The time to live of a notification, the time-out of a request, the idle time-out of a tunnel, in milliseconds. */
  timeout?: number;
  /** Whether a request may be handled twice, so that it can be tried elsewhere. */
  idempotent?: boolean;
  description?: string;
  schemas?: Schemas;
  /** Lets clients reach it through a gateway. */
  expose?: boolean | Exposure;
}

export interface WorkerOptions {
  /** How many handlers may run at once: 1. */
  concurrency?: number;
  /** How many events may be in this worker's hands before it has answered earlier ones, and bytes of their payloads. */
  window?: { calls?: number; bytes?: number };
  /** Program and version, for the people who look after the node. */
  agent?: string;
}

export type Kind = "notification" | "request" | "tunnel";

// What a handler takes and gives is the business of its event.
// eslint-disable-next-line @typescript-eslint/no-explicit-any
type Payload = any;

/** @internal */
export interface Handler {
  select: string;
  kind: Kind;
  handle: (payload: Payload, cx: Context, tunnel?: Tunnel<Payload, Payload>) => unknown;
}

type Hook = (cx: Context) => unknown;

/** Handlers of events; run it with `runProcess` in a process that a node has started, or with `serve` over WebSocket. */
export class Worker<E extends object = AnyEvents> {
  /** @internal */
  readonly handlers: Handler[] = [];
  /** @internal */
  readonly declarations = new Map<string, Record<string, unknown>>();
  /** @internal */
  readonly startHooks: Hook[] = [];
  /** @internal */
  readonly stopHooks: Hook[] = [];

  constructor(readonly options: WorkerOptions = {}) {
    const { concurrency = 1 } = options;
    if (!Number.isInteger(concurrency) || concurrency < 1) throw new TypeError(`concurrency is ${concurrency}: at least 1`);
  }

  /** Handles a notification, or all that a pattern selects (`quake.*`, `quake.>`): `cx.event` is the name. */
  notification(select: string, handle: (payload: Payload, cx: Context<E>) => unknown, options: EventOptions = {}): this {
    return this.#add(select, "notification", handle as Handler["handle"], options);
  }

  /** Handles a request: what it returns is the response. It throws a `Failure` when it cannot. */
  request(name: string, handle: (payload: Payload, cx: Context<E>) => unknown, options: EventOptions = {}): this {
    return this.#add(name, "request", handle as Handler["handle"], options);
  }

  /** Handles a tunnel: what it returns is the tunnel's result. */
  tunnel(
    name: string,
    handle: (payload: Payload, tunnel: Tunnel<Payload, Payload>, cx: Context<E>) => unknown,
    options: EventOptions = {},
  ): this {
    return this.#add(name, "tunnel", (payload, cx, tunnel) => handle(payload, tunnel as Tunnel, cx as Context<E>), options);
  }

  /** Declares an event that the worker sends and does not handle; one that is sent without is declared without schemas. */
  sends(kind: Kind, name: string, options: EventOptions = {}): this {
    this.#declare(kind, name, options);
    return this;
  }

  /** Called before the worker takes events; it may make calls. A start that throws is told to the node. */
  started(hook: (cx: Context<E>) => unknown): this {
    this.startHooks.push(hook as Hook);
    return this;
  }

  /** Called when nothing more comes; it may make calls. */
  stopping(hook: (cx: Context<E>) => unknown): this {
    this.stopHooks.push(hook as Hook);
    return this;
  }

  #add(select: string, kind: Kind, handle: Handler["handle"], options: EventOptions): this {
    if (this.handlers.some((handler) => handler.select === select)) throw new TypeError(`${select} has a handler already`);
    const isPattern = /[*>]/.test(select);
    if (isPattern && kind !== "notification") throw new TypeError(`${select}: a pattern selects notifications only`);
    this.handlers.push({ select, kind, handle });
    if (!isPattern) this.#declare(kind, select, options);
    return this;
  }

  #declare(kind: Kind, name: string, options: EventOptions): void {
    const { key, timeout, idempotent, description, schemas, expose } = options;
    const exposure = expose === true ? {} : expose || undefined;
    this.declarations.set(name, {
      name,
      kind,
      ...(key !== undefined && { key }),
      ...(timeout !== undefined && { time_limit_ms: timeout }),
      ...(idempotent !== undefined && { idempotent }),
      ...(description !== undefined && { description }),
      ...(schemas !== undefined && { schemas }),
      ...(exposure !== undefined && { expose: exposure }),
    });
  }
}

