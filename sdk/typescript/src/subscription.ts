import type { Fields } from "./encoding.js";
import { EdriError } from "./errors.js";
import type { Condition, Received } from "./events.js";
import type { Peer } from "./peer.js";
import { Queue } from "./queue.js";

export interface SubscribeOptions {
  /** Only events with this key. */
  key?: string;
  /** Only events whose payload holds these, by field: `{ magnitude: { gte: 5 }, "place.country": { eq: "CL" } }`. */
  where?: Record<string, Condition>;
  /** First so many past events of a history that the node keeps of the name or pattern, then what comes. */
  last?: number;
  /** First what came after this: a `position`, or the id of an event that the history still has. Not together with `last`. */
  since?: string;
  /** How many events the node keeps for a reader that does not take them: 1,024. */
  capacity?: number;
  /** What happens when more come: `missed` leaves out the oldest and tells how many, `bye` ends the connection. */
  slow?: "missed" | "bye";
}

/** So many events may come before the reader has taken them. */
const CREDIT = 256;

/** Events as they come. */
export class Subscription<R = Received> implements AsyncIterable<R> {
  /** The number of its call in the session of now. @internal */
  id = 0;
  #events: Queue<R>;
  #peer: Peer | undefined;
  #taken = 0;
  #missed = 0;
  /** Of the last event of a history. */
  #position: string | undefined;
  #ready!: () => void;
  #refused!: (error: unknown) => void;
  /** Whether the node has it in place in the session of now. @internal */
  isReady = false;
  /** Resolves when the node has it in place: what is published from then on comes. */
  readonly ready: Promise<void>;

  /** @internal */
  constructor(
    readonly select: string,
    private readonly options: SubscribeOptions,
    private readonly over: () => void,
  ) {
    this.#events = new Queue<R>(
      () => this.#take(),
      () => this.close(),
    );
    this.ready = new Promise((resolve, reject) => {
      this.#ready = resolve;
      this.#refused = reject;
    });
    this.ready.catch(() => {});
  }

  [Symbol.asyncIterator](): AsyncIterator<R> {
    return this.#events;
  }

  /** Ends it. */
  close(): void {
    this.over();
    if (this.#peer && this.id !== 0) this.#peer.say("unsubscribe", { id: this.id });
    this.#peer = undefined;
    this.#events.end();
  }

  /** @internal Asks for it in a session; `again` after that of before was lost. */
  begin(peer: Peer, again: boolean): void {
    const { key, where, capacity, slow } = this.options;
    this.#peer = peer;
    this.isReady = false;
    this.#taken = 0;
    // What came in between is in the history, if there is one.
    const { last, since } = this.#position === undefined ? this.options : { last: undefined, since: this.#position };
    if (again && this.#position === undefined) this.#missed = Infinity;
    const fields = {
      select: this.select,
      credit: CREDIT,
      ...(key !== undefined && { key }),
      ...(capacity !== undefined && { capacity }),
      ...(slow !== undefined && { slow }),
      ...(last !== undefined && { last }),
      ...(since !== undefined && { since }),
    };
    const sent = (id: number) => {
      this.id = id;
    };
    const begun = (value: unknown) => {
      const { position } = (value ?? {}) as { position?: string };
      this.#position ??= position;
      this.isReady = true;
      this.#ready();
    };
    peer.call("subscribe", fields, where && ["conditions", where], { sent }).then(begun, (error: unknown) => {
      // Lost with its session, it is asked for in the next.
      if (peer === this.#peer) this.fail(error);
    });
  }

  /** @internal */
  came(fields: Fields): void {
    const { event, payload, event_id, key, origin, cause, trace, headers, position } = fields;
    // Null is absent.
    const present = (value: unknown) => value !== undefined && value !== null;
    const received = {
      name: event,
      payload: payload ?? null,
      id: event_id,
      ...(present(key) && { key }),
      ...(present(origin) && { origin }),
      ...(present(cause) && { cause }),
      ...(present(trace) && { trace }),
      ...(present(position) && { position }),
      headers: headers ?? {},
      missed: this.#missed,
    };
    this.#missed = 0;
    if (typeof position === "string") this.#position = position;
    this.#events.push(received as R);
  }

  /** @internal */
  missed(count: number | undefined): void {
    this.#missed += count ?? Infinity;
  }

  /** @internal */
  fail(error: unknown): void {
    this.over();
    this.#peer = undefined;
    this.#refused(error ?? new EdriError({ code: "closed" }));
    this.#events.end(error);
  }

  #take(): void {
    this.#taken += 1;
    if (this.#taken < CREDIT / 2 || !this.#peer) return;
    this.#peer.say("credit", { id: this.id, items: this.#taken });
    this.#taken = 0;
  }
}
