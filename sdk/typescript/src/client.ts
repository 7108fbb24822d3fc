import { type Encoding, type Fields, json, type Message } from "./encoding.js";
import { EdriError, type Fault, readFault } from "./errors.js";
import type { AnyEvents, Condition, NamesOf, Part, Received } from "./events.js";
import { Peer } from "./peer.js";
import { Session } from "./session.js";
import { Subscription, type SubscribeOptions } from "./subscription.js";
import { Verbs } from "./verbs.js";

/** What the SDK needs of a WebSocket: that of browsers has it, and that of `ws`. */
export interface Socket {
  binaryType: string;
  readonly readyState: number;
  send(message: string | Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
  onopen: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
}

export type SocketConstructor = new (url: string, protocols: string[]) => unknown;

export interface ConnectOptions {
  /** What the client is let in with. It is sent in the first frame, never in the URL. */
  token?: string;
  /** `json` unless said otherwise; `msgpack` is in `@edri/sdk/msgpack`. */
  encoding?: Encoding;
  /** Where there is no `WebSocket` of its own. */
  WebSocket?: SocketConstructor;
  /** How long the node may take to answer the first time, in milliseconds: 10,000. */
  timeout?: number;
  /** Program and version, for the people who look after the node. */
  agent?: string;
  /** Told of each change: `connected`, `away` while it tries again, `closed`. */
  onState?: (state: State, why?: EdriError) => void;
}

export type State = "connected" | "away" | "closed";

/** Where a browser's page came from. */
function here(): string {
  const page = (globalThis as { location?: { origin?: string } }).location?.origin;
  if (!page) throw new TypeError("connect(url): say where the node is, as `ws://127.0.0.1:8080`");
  return page;
}

/** The address of a node's WebSocket: `http` and `ws` are the same, and `/ws` is added to an address without a path. */
export function socketUrl(url: string): string {
  const parsed = new URL(url);
  if (!["ws:", "wss:", "http:", "https:"].includes(parsed.protocol)) throw new TypeError(`${url}: not ws, wss, http or https`);
  parsed.protocol = parsed.protocol.replace("http", "ws");
  if (parsed.pathname === "/") parsed.pathname = "/ws";
  return parsed.href;
}

/**
 * Connects to a node. Rejects when it is not there or refuses; later breaks of the connection are mended: what was sent and
 * not received, in either direction, is sent again, and nothing comes twice.
 */
export async function connect<E extends object = AnyEvents>(url: string = here(), options: ConnectOptions = {}): Promise<Client<E>> {
  const client = new Client<E>(socketUrl(url), options);
  await client.opened;
  return client;
}

/** The first wait before another attempt, and the longest, in milliseconds. Each is twice the one before, less a random part. */
const WAIT_MIN = 100;
const WAIT_MAX = 5_000;
const ACK_AFTER = 200;
/** What a session ends with: another attempt with the same token would not do better. */
const FINAL = new Set(["unauthorized", "forbidden", "forbidden_origin", "unsupported_version", "unsupported_protocol", "invalid_token"]);
const OPEN = 1;

/** A client of a node. */
export class Client<E extends object = AnyEvents> extends Verbs<E> {
  /** Resolves when the node has let the client in. @internal */
  readonly opened: Promise<void>;
  #encoding: Encoding;
  #peer: Peer;
  #session = new Session();
  #subscriptions = new Set<Subscription>();
  #socket: Socket | undefined;
  /** Whether the node has let this connection in. */
  #isIn = false;
  #state: State = "away";
  #closed: EdriError | undefined;
  #attempt = 0;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #expiry: ReturnType<typeof setTimeout> | undefined;
  #ack: ReturnType<typeof setTimeout> | undefined;
  #watch: ReturnType<typeof setInterval> | undefined;
  #heard = 0;
  #keepMs = 0;
  #firstOpened!: () => void;
  #firstFailed!: (error: unknown) => void;
  #node = "";

  /** @internal Use `connect`. */
  constructor(
    private readonly url: string,
    private readonly settings: ConnectOptions,
  ) {
    super();
    this.#encoding = settings.encoding ?? json;
    this.#peer = this.#fresh();
    this.opened = new Promise((resolve, reject) => {
      this.#firstOpened = resolve;
      this.#firstFailed = reject;
    });
    this.opened.catch(() => {});
    globalThis.addEventListener?.("online", this.#online);
    this.#dial();
  }

  /** The name of the node. */
  get node(): string {
    return this.#node;
  }

  get state(): State {
    return this.#closed ? "closed" : this.#state;
  }

  /**
   * Subscribes to a notification, by its name or by a pattern (`quake.*` one segment more, `quake.>` the rest). Read it with `for
   * await`; leaving the loop ends it.
   */
  subscribe<N extends NamesOf<E, "notification">>(name: N, options?: SubscribeOptions): Subscription<Received<N, Part<E, N, "event">>>;
  subscribe(pattern: string, options?: SubscribeOptions): Subscription<{ [N in NamesOf<E, "notification">]: Received<N, Part<E, N, "event">> }[NamesOf<E, "notification">]>;
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  subscribe(select: string, options: SubscribeOptions = {}): Subscription<any> {
    const subscription: Subscription = new Subscription(select, options, () => this.#subscriptions.delete(subscription));
    this.#subscriptions.add(subscription);
    if (this.#closed) subscription.fail(this.#closed);
    else subscription.begin(this.#peer, false);
    return subscription;
  }

  /** Says goodbye. What is open ends with the code `closed`. */
  close(): void {
    if (this.#isIn && !this.#closed) this.#peer.say("bye", {});
    this.#close({ code: "closed", message: "the client was closed" });
  }

  [Symbol.dispose](): void {
    this.close();
  }

  protected override peer(): Peer {
    return this.#peer;
  }

  #fresh(): Peer {
    const session = new Session();
    this.#session = session;
    return new Peer(this.#encoding, (message) => {
      session.keep(message);
      if (this.#isIn && session === this.#session) this.#write(message);
    });
  }

  #write(message: Message): void {
    if (this.#socket?.readyState === OPEN) this.#socket.send(message);
  }

  #dial(): void {
    clearTimeout(this.#retry);
    const Constructor = this.settings.WebSocket ?? (globalThis as { WebSocket?: SocketConstructor }).WebSocket;
    if (!Constructor) return this.#close({ code: "no_websocket", message: "there is no WebSocket here: give one in the options" });
    let socket: Socket;
    try {
      socket = new Constructor(this.url, [this.#encoding.subprotocol]) as Socket;
    } catch (error) {
      return this.#close({ code: "invalid_url", message: String(error) });
    }
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    const late = setTimeout(() => this.#gone(socket, "no `welcome` came in time"), this.settings.timeout ?? 10_000);
    const session = { received: this.#session.received, ...(this.#session.id !== undefined && { id: this.#session.id }) };
    const { token, agent = "@edri/sdk" } = this.settings;
    socket.onopen = () => {
      socket.send(this.#encoding.encode("hello", { version: 1, role: "client", agent, session, ...(token !== undefined && { token }) }));
    };
    socket.onmessage = ({ data }: { data: string | ArrayBuffer }) => {
      if (socket !== this.#socket) return;
      clearTimeout(late);
      this.#came(socket, data);
    };
    socket.onerror = () => {};
    socket.onclose = ({ reason }: { reason?: string }) => {
      clearTimeout(late);
      this.#gone(socket, reason || "the connection was closed");
    };
  }

  #came(socket: Socket, data: string | ArrayBuffer): void {
    this.#heard = Date.now();
    let frame: [string, Fields];
    try {
      frame = this.#encoding.decode(data);
    } catch {
      // What cannot be read is counted as what can; before `welcome` it is no node of ours.
      if (!this.#isIn) this.#gone(socket, "what answers there is no node");
      else this.#count();
      return;
    }
    const [name, fields] = frame;
    if (!this.#isIn) return this.#greeted(socket, name, fields);
    if (name === "ack" && fields["received"] !== undefined) {
      this.#session.has(Number(fields["received"]));
      return;
    }
    this.#count();
    if (name === "publish") {
      for (const subscription of this.#subscriptions) if (subscription.id === fields["subscription"]) subscription.came(fields);
    } else if (name === "missed") {
      for (const subscription of this.#subscriptions) if (subscription.id === fields["id"]) subscription.missed(fields["count"] ?? undefined);
    } else if (name === "bye") {
      this.#bye(socket, fields);
    } else if (name === "response" && fields["error"]) {
      const ended = [...this.#subscriptions].find((subscription) => subscription.isReady && subscription.id === fields["id"]);
      if (ended) ended.fail(new EdriError(readFault(fields["error"])));
      else this.#peer.came(name, fields);
    } else {
      this.#peer.came(name, fields);
    }
  }

  #greeted(socket: Socket, name: string, fields: Fields): void {
    if (name !== "welcome") {
      const fault = readFault(name === "bye" ? fields["error"] : fields);
      if (FINAL.has(fault.code)) return this.#close(fault);
      return this.#gone(socket, fault.message ?? fault.code, fault.code);
    }
    const session = fields["session"] as { id: string; keep_ms: number; resumed?: boolean; received?: number } | undefined;
    this.#node = String(fields["node"] ?? "");
    this.#keepMs = session?.keep_ms ?? 0;
    const resumed = session?.resumed === true && session.id === this.#session.id && this.#session.has(session.received ?? 0);
    const isFirst = this.#session.id === undefined && !resumed;
    if (!resumed && !isFirst) this.#beginAgain();
    this.#session.id = session?.id;
    this.#isIn = true;
    this.#attempt = 0;
    clearTimeout(this.#expiry);
    for (const message of [...this.#session.lacking]) this.#write(message);
    this.#peer.window = Number(fields["window"]?.calls ?? 64);
    this.#watchSilence(socket, Number(fields["silence_ms"] ?? 30_000));
    this.#firstOpened();
    this.#tell("connected");
  }

  /** The session of before is lost, with all that was open in it; the subscriptions begin again in a new one. */
  #beginAgain(): void {
    const before = this.#peer;
    this.#peer = this.#fresh();
    before.end({ code: "peer_lost", message: "the session has ended" });
    for (const subscription of this.#subscriptions) subscription.begin(this.#peer, true);
  }

  #count(): void {
    if (this.#session.came()) return this.#acknowledge();
    this.#ack ??= setTimeout(() => this.#acknowledge(), ACK_AFTER);
  }

  #acknowledge(): void {
    clearTimeout(this.#ack);
    this.#ack = undefined;
    const received = this.#isIn ? this.#session.takeAck() : undefined;
    // Not counted, so it goes past the session.
    if (received !== undefined) this.#write(this.#encoding.encode("ack", { received }));
  }

  /** A browser does not say when the network is gone: whoever hears nothing asks, and gives up after a while. */
  #watchSilence(socket: Socket, silence: number): void {
    clearInterval(this.#watch);
    this.#heard = Date.now();
    this.#watch = setInterval(() => {
      const silent = Date.now() - this.#heard;
      if (silent >= silence) this.#gone(socket, "the node is silent");
      else if (silent >= silence / 3) this.#peer.say("ping", { id: 0 });
    }, silence / 3);
  }

  #bye(socket: Socket, fields: Fields): void {
    const fault = fields["error"] === undefined || fields["error"] === null ? undefined : readFault(fields["error"]);
    if (fault && FINAL.has(fault.code)) return this.#close(fault);
    // It finishes what is open and closes; the session is over then, and another one is asked for.
    if (fault) this.#gone(socket, fault.message ?? fault.code, fault.code);
  }

  #gone(socket: Socket, why: string, code = "unreachable"): void {
    if (socket !== this.#socket || this.#closed) return;
    this.#leave();
    const error: Fault = { code, message: `${why} (${this.url})` };
    // The first time it is for the caller to decide whether to try again.
    if (this.#session.id === undefined && !this.#node) return this.#close(error);
    if (this.#state === "connected") {
      this.#expiry = setTimeout(() => this.#beginAgain(), this.#keepMs);
    }
    this.#tell("away", new EdriError(error));
    const wait = Math.min(WAIT_MAX, WAIT_MIN * 2 ** this.#attempt) * (0.5 + Math.random() / 2);
    this.#attempt += 1;
    this.#retry = setTimeout(() => this.#dial(), wait);
  }

  /** Lets go of the socket. */
  #leave(): void {
    clearInterval(this.#watch);
    clearTimeout(this.#ack);
    this.#ack = undefined;
    const socket = this.#socket;
    this.#socket = undefined;
    this.#isIn = false;
    if (!socket) return;
    socket.onmessage = null;
    socket.onclose = null;
    try {
      socket.close();
    } catch {
      // It was closed already.
    }
  }

  #online = (): void => {
    if (this.#closed || this.#socket) return;
    this.#attempt = 0;
    this.#dial();
  };

  #close(fault: Fault): void {
    if (this.#closed) return;
    const error = new EdriError(fault);
    this.#closed = error;
    this.#leave();
    clearTimeout(this.#retry);
    clearTimeout(this.#expiry);
    globalThis.removeEventListener?.("online", this.#online);
    this.#peer.end(fault);
    for (const subscription of [...this.#subscriptions]) subscription.fail(fault.code === "closed" ? undefined : error);
    this.#firstFailed(error);
    this.#tell("closed", error);
  }

  #tell(state: State, why?: EdriError): void {
    if (this.#state === state && state !== "closed") return;
    this.#state = state;
    this.settings.onState?.(state, why);
  }
}

export type { Condition };
