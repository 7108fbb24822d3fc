// A worker for Node.js 20 without an SDK or a package, written from docs/PROTOCOL.md alone: the proof that the page suffices.
import net from "node:net";

const DECLARED = [
  { name: "foreign.seen", kind: "notification" },
  { name: "foreign.echo", kind: "request" },
  { name: "foreign.sum", kind: "request" },
  { name: "foreign.count", kind: "request" },
  { name: "foreign.upper", kind: "tunnel" },
  { name: "foreign.noted", kind: "notification" },
  { name: "foreign.ask", kind: "request" },
];

const socket = new net.Socket({ fd: 0, readable: true, writable: true });
let welcome = null;
let lastSent = Date.now();
let stopping = false;

function send(name, fields = {}) {
  const bytes = Buffer.from(JSON.stringify({ [name]: fields }));
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  socket.write(Buffer.concat([length, bytes]));
  lastSent = Date.now();
}

// Calls to the node: odd numbers, and no more open than its window says.
const asked = new Map();
const waiting = [];
let nextCall = 1;

function call(frame, fields) {
  return new Promise((resolve, reject) => {
    waiting.push(() => {
      const id = nextCall;
      nextCall += 2;
      asked.set(id, { resolve, reject });
      send(frame, { ...fields, id });
    });
    makeCalls();
  });
}

function makeCalls() {
  const most = Math.max(1, welcome?.window?.calls ?? 64);
  while (waiting.length > 0 && asked.size < most) waiting.shift()();
}

// What an event that this handler sends because of `event` says of it.
function because(event) {
  const left = event.deadline === undefined ? {} : { timeout_ms: Math.max(0, event.deadline - Date.now()) };
  return { cause: event.event_id, trace: event.trace, ...left };
}

// The other end of a tunnel. Items only: bytes are not counted, so as many are granted as there can be.
class Tunnel {
  items = [];
  credit = { items: 0, bytes: 0 };
  ended = false;
  constructor(id, credit) {
    this.id = id;
    this.grant(credit);
    send("credit", { id, items: 32, bytes: Number.MAX_SAFE_INTEGER });
  }
  grant(credit) {
    this.credit.items += credit?.items ?? 0;
    this.credit.bytes += credit?.bytes ?? 0;
    this.wake?.();
  }
  async until(condition) {
    while (!condition()) {
      if (this.fault) throw this.fault;
      await new Promise((wake) => (this.wake = wake));
    }
  }
  async next() {
    await this.until(() => this.items.length > 0 || this.ended);
    if (this.items.length === 0) return undefined;
    send("credit", { id: this.id, items: 1 });
    return this.items.shift();
  }
  async send(payload) {
    await this.until(() => this.credit.items > 0 && this.credit.bytes > 0);
    this.credit.items -= 1;
    this.credit.bytes -= Buffer.byteLength(JSON.stringify(payload));
    send("data", { id: this.id, payload });
  }
}

let seen = 0;
const HANDLERS = {
  async "foreign.seen"(event) {
    seen += 1;
    const { timeout_ms: _, ...cause } = because(event);
    await call("publish", { event: "foreign.noted", payload: { seen }, ...cause });
  },
  async "foreign.echo"(event) {
    return event.payload;
  },
  // Sums `numbers`, and what `foreign.ask` answers when `ask` is true.
  async "foreign.sum"(event) {
    const { numbers, ask } = event.payload;
    if (!Array.isArray(numbers)) throw { code: "no_numbers", message: "`numbers` must be a list" };
    const first = ask ? await call("request", { event: "foreign.ask", payload: {}, ...because(event) }) : 0;
    return numbers.reduce((sum, number) => sum + number, first);
  },
  async "foreign.count"() {
    return seen;
  },
  async "foreign.upper"(_event, tunnel) {
    let count = 0;
    for (let item; (item = await tunnel.next()) !== undefined; count += 1) await tunnel.send(item.toUpperCase());
    return count;
  },
};
const SELECTED = Object.keys(HANDLERS);

// Calls from the node that are not answered yet, each with its tunnel if it is one.
const open = new Map();

async function handle(kind, event) {
  const { id = 0, handler = 0 } = event;
  const tunnel = kind === "open" ? new Tunnel(id, event.credit) : undefined;
  const key = id || Symbol("no answer");
  open.set(key, tunnel);
  if (event.timeout_ms != null) event.deadline = Date.now() + event.timeout_ms;
  try {
    if (id > 0) send("ack", { begun: id });
    const value = await HANDLERS[SELECTED[handler]](event, tunnel);
    if (id > 0) kind === "publish" ? send("ack", { done: [id] }) : send("response", { id, value });
  } catch (error) {
    const failure = { code: String(error.code ?? "failed"), message: String(error.message), detail: error.stack };
    if (id > 0) send("response", { id, failure });
  }
  open.delete(key);
  stopWhenDone();
}

function stopWhenDone() {
  if (!stopping || open.size > 0 || asked.size > 0 || waiting.length > 0) return;
  send("bye");
  socket.end(() => process.exit(0));
}

const RECEIVE = {
  welcome(fields) {
    welcome = fields;
    setInterval(() => Date.now() - lastSent >= welcome.silence_ms / 3 && send("ping"), welcome.silence_ms / 10).unref();
    send("ready");
  },
  publish: (fields) => handle("publish", fields),
  request: (fields) => handle("request", fields),
  open: (fields) => handle("open", fields),
  response({ id, value = null, failure, error, more }) {
    const call = asked.get(id);
    if (!call || more) return;
    asked.delete(id);
    failure || error ? call.reject(failure ?? error) : call.resolve(value);
    makeCalls();
    stopWhenDone();
  },
  data: ({ id, payload }) => (open.get(id)?.items.push(payload), open.get(id)?.wake?.()),
  credit: ({ id, ...credit }) => open.get(id)?.grant(credit),
  end: ({ id }) => open.get(id) && ((open.get(id).ended = true), open.get(id).wake?.()),
  abort: ({ id, failure }) => open.get(id) && ((open.get(id).fault = failure), open.get(id).wake?.()),
  cancel({ id }) {
    const tunnel = open.get(id);
    if (tunnel) (tunnel.fault = { code: "cancelled", message: "the opener has dropped the tunnel" }), tunnel.wake?.();
  },
  window: (fields) => ((welcome.window = fields), makeCalls()),
  ping: ({ id = 0 }) => send("pong", { id }),
  pong() {},
  ack: ({ done }) => (done ?? []).forEach((id) => RECEIVE.response({ id })),
  error: (fields) => console.error("the node says", fields),
  bye() {
    stopping = true;
    stopWhenDone();
  },
};

let read = Buffer.alloc(0);
socket.on("data", (chunk) => {
  read = Buffer.concat([read, chunk]);
  while (read.length >= 4 && read.length >= 4 + read.readUInt32BE()) {
    const end = 4 + read.readUInt32BE();
    const [[name, fields]] = Object.entries(JSON.parse(read.subarray(4, end).toString()));
    read = read.subarray(end);
    if (RECEIVE[name]) RECEIVE[name](fields);
    else send("error", { code: "unknown_frame", message: `this worker does not know ${name}`, frame: name });
  }
});
socket.on("end", () => process.exit(1));
socket.on("error", () => process.exit(1));

const handlers = SELECTED.map((select) => ({ select }));
send("hello", { version: 1, role: "worker", agent: "worker.mjs", events: DECLARED, handlers });
