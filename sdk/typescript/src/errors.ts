/** What was waited for in vain. */
export interface Wait {
  waited_ms: number;
  groups?: string[];
  /** Managers that wait for one another. */
  cycle?: string[];
}

/** A fault as it is written on the wire. */
export interface Fault {
  code: string;
  message?: string;
  detail?: string;
  wait?: Wait;
}

/** Longer texts in faults are cut, so that no message can outgrow a frame. */
const TEXT_MAX = 16 << 10;

/** A call came to nothing. `code` is stable: compare it. `message` is for people. */
export class EdriError extends Error {
  override readonly name: string = "EdriError";
  readonly code: string;
  readonly detail: string | undefined;
  readonly wait: Wait | undefined;
  /** Whether the handler failed, with a code of its own; otherwise the code is one of edri's. */
  readonly isFailure: boolean;

  constructor(fault: Fault, isFailure = false) {
    super(fault.message ? `${fault.code}: ${fault.message}` : fault.code);
    this.code = fault.code;
    this.detail = fault.detail;
    this.wait = fault.wait;
    this.isFailure = isFailure;
  }
}

/** Thrown by a handler that cannot do what the event asks: its caller gets the code and the message. */
export class Failure extends Error {
  override readonly name: string = "Failure";

  constructor(
    readonly code: string,
    message = "",
    readonly detail?: string,
  ) {
    super(message);
  }
}

/** What a handler threw, as a fault. */
export function faultOf(thrown: unknown): Fault {
  if (thrown instanceof Failure) {
    return cut({ code: thrown.code, message: thrown.message, ...(thrown.detail && { detail: thrown.detail }) });
  }
  if (thrown instanceof EdriError) {
    return cut({ code: thrown.code, message: thrown.message });
  }
  if (thrown instanceof Error) {
    return cut({ code: "failed", message: `${thrown.name}: ${thrown.message}`, ...(thrown.stack && { detail: thrown.stack }) });
  }
  return cut({ code: "failed", message: String(thrown) });
}

function cut(fault: Fault): Fault {
  if (fault.message) fault.message = fault.message.slice(0, TEXT_MAX);
  if (fault.detail) fault.detail = fault.detail.slice(0, TEXT_MAX);
  return fault;
}

/** A fault of the wire, whatever the other side has made of it. */
export function readFault(value: unknown): Fault {
  const fault = (typeof value === "object" && value) || {};
  const { code, message, detail, wait } = fault as Record<string, unknown>;
  return {
    code: typeof code === "string" && code ? code : "failed",
    ...(typeof message === "string" && { message }),
    ...(typeof detail === "string" && { detail }),
    ...(typeof wait === "object" && wait && { wait: wait as Wait }),
  };
}
