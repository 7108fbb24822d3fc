import type { Fields } from "./encoding.js";
import { EdriError } from "./errors.js";
import type { AnyEvents, SendOptions } from "./events.js";
import type { Life } from "./life.js";
import type { Peer } from "./peer.js";
import { Verbs } from "./verbs.js";
import type { Kind } from "./worker.js";

/** Where a worker works. */
export interface Place {
  node: string;
  manager: string;
  instance: number;
  /** What the worker is made with. */
  arguments: unknown;
}

/**
 * The event in hand, and the verbs. What a handler sends carries the event's id as its cause, its trace, and no more time than
 * is left.
 */
export class Context<E extends object = AnyEvents> extends Verbs<E> {
  /** The event's name; empty while starting and stopping. */
  readonly event: string;
  readonly id: string | undefined;
  readonly key: string | undefined;
  /** Who sent it, `node/manager`. */
  readonly origin: string | undefined;
  readonly cause: string | undefined;
  readonly trace: string | undefined;
  readonly headers: Readonly<Record<string, string>>;
  /** Which try it is, from 1. */
  readonly attempt: number;
  /** Whether a worker that was lost may have handled it already. */
  readonly redelivered: boolean;
  /** When nobody waits any more, of `Date.now()`. */
  readonly deadline: number | undefined;
  /** Aborted when nobody waits any more. */
  readonly signal: AbortSignal;

  /** @internal */
  constructor(
    private readonly life: Life,
    fields: Fields,
    signal: AbortSignal,
    came: number,
  ) {
    super();
    this.event = String(fields["event"] ?? "");
    this.id = fields["event_id"] ?? undefined;
    this.key = fields["key"] ?? undefined;
    this.origin = fields["origin"] ?? undefined;
    this.cause = fields["cause"] ?? undefined;
    this.trace = fields["trace"] ?? undefined;
    this.headers = fields["headers"] ?? {};
    this.attempt = Number(fields["tried"] ?? 0) + 1;
    this.redelivered = fields["redelivered"] === true;
    this.deadline = typeof fields["timeout_ms"] === "number" ? came + fields["timeout_ms"] : undefined;
    this.signal = signal;
  }

  /** Who a gateway has let in, when one sent the event. */
  get caller(): string | undefined {
    return this.headers["edri-caller"];
  }

  /** Milliseconds that are left; `undefined` when there is no limit. */
  get remaining(): number | undefined {
    return this.deadline === undefined ? undefined : Math.max(0, this.deadline - Date.now());
  }

  get place(): Place {
    return this.life.place;
  }

  /** A record in the node's log. */
  log(level: "trace" | "debug" | "info" | "warn" | "error", message: string): void {
    this.peer().say("log", { level, message, ...(this.id !== undefined && { event_id: this.id }) });
  }

  /** The worker's health, for whoever looks at the node. */
  reportHealth(is: "good" | "degraded" | "bad", because = ""): void {
    this.peer().say("report", { health: is === "good" ? { is } : { is, because } });
  }

  /** A figure of the worker's own, for whoever looks at the node. */
  reportFigure(name: string, value: number): void {
    this.peer().say("report", { figures: { [name]: value } });
  }

  protected override peer(): Peer {
    return this.life.peer;
  }

  protected override announce(kind: Kind, name: string): void {
    this.life.announce(kind, name);
  }

  protected override options(options: SendOptions): SendOptions {
    const left = this.remaining;
    const timeout = left === undefined ? options.timeout : Math.min(left, options.timeout ?? Infinity);
    if (timeout === 0) throw new EdriError({ code: "timed_out", message: "no time is left for the event in hand" });
    const cause = options.cause ?? this.id;
    const trace = options.trace ?? this.trace;
    return {
      ...options,
      ...(timeout !== undefined && { timeout }),
      ...(cause !== undefined && { cause }),
      ...(trace !== undefined && { trace }),
    };
  }
}
