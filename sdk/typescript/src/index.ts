export { Client, connect, type ConnectOptions, type Socket, type SocketConstructor, type State } from "./client.js";
export { type Encoding, json } from "./encoding.js";
export { EdriError, Failure, type Wait } from "./errors.js";
export type { AnyEvents, Condition, Events, EventTypes, Receipt, Received, SendOptions } from "./events.js";
export type { Answer } from "./peer.js";
export { Subscription, type SubscribeOptions } from "./subscription.js";
export { Tunnel } from "./tunnel.js";
export type { Opened } from "./verbs.js";
