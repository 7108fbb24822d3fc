import { type AnyEvents, callFields, type NamesOf, type Part, type Receipt, type SendOptions } from "./events.js";
import type { Answer, Peer } from "./peer.js";
import { Queue } from "./queue.js";
import { Tunnel } from "./tunnel.js";
import type { Kind } from "./worker.js";

/** A tunnel that was opened, and what it ends with. */
export type Opened<Up, Down, Output> = Tunnel<Up, Down> & { readonly result: Promise<Output> };

/** What can be sent, by clients and by handlers. */
export abstract class Verbs<E extends object = AnyEvents> {
  /** @internal The connection of now. */
  protected abstract peer(): Peer;
  /** @internal An event of that name is about to be sent. */
  protected announce(_kind: Kind, _name: string): void {}
  /** @internal What is added to every call. */
  protected options(options: SendOptions): SendOptions {
    return options;
  }

  /** Publishes a notification; resolves once every group of subscribers has it. */
  async publish<N extends NamesOf<E, "notification">>(name: N, payload: Part<E, N, "event">, options: SendOptions = {}): Promise<Receipt> {
    options = this.options(options);
    this.announce("notification", name);
    return (await this.peer().call("publish", callFields(name, options), ["payload", payload], options)) as Receipt;
  }

  /** Asks; resolves with the response. Throws an `EdriError` otherwise. `to` names a manager, `manager` or `node/manager`. */
  async request<N extends NamesOf<E, "request">>(
    name: N,
    payload: Part<E, N, "event">,
    options: SendOptions & { to?: string } = {},
  ): Promise<Part<E, N, "output">> {
    const all = this.options(options);
    this.announce("request", name);
    const to = options.to === undefined ? {} : { to: options.to };
    const value = await this.peer().call("request", { ...callFields(name, all), ...to }, ["payload", payload], all);
    return value as Part<E, N, "output">;
  }

  /** Asks everybody who answers; their answers as they come. */
  requestAll<N extends NamesOf<E, "request">>(name: N, payload: Part<E, N, "event">, options: SendOptions = {}): AsyncIterableIterator<Answer> {
    const all = this.options(options);
    this.announce("request", name);
    const nobody = new AbortController();
    const answers = new Queue<Answer>(undefined, () => nobody.abort());
    const signal = all.signal ? AbortSignal.any([all.signal, nobody.signal]) : nobody.signal;
    this.peer()
      .call("request", { ...callFields(name, all), all: true }, ["payload", payload], { ...all, signal, more: (answer) => answers.push(answer) })
      .then(
        () => answers.end(),
        (error: unknown) => answers.end(error),
      );
    return answers;
  }

  /** Opens a tunnel. What is wrong with it is told by its items and its `result`. */
  open<N extends NamesOf<E, "tunnel">>(
    name: N,
    payload: Part<E, N, "event">,
    options: SendOptions = {},
  ): Promise<Opened<Part<E, N, "up">, Part<E, N, "down">, Part<E, N, "output">>> {
    const all = this.options(options);
    this.announce("tunnel", name);
    return new Promise((resolve, reject) => {
      const result = this.peer().call("open", { ...callFields(name, all), credit: Tunnel.credit }, ["payload", payload], {
        ...all,
        // It may be sent within this call, which gives the result only afterwards.
        tunnel: (tunnel) => queueMicrotask(() => resolve(Object.assign(tunnel, { result }) as never)),
      });
      // Whoever does not ask for the result reads the error from the items.
      result.catch(reject);
    });
  }
}
