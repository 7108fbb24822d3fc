"""A worker without an SDK, from docs/PROTOCOL.md alone, that can also misbehave in every way there is.

The first argument says how. Speaks JSON; the standard library is enough.
"""

import json
import os
import signal
import socket
import struct
import sys
import threading
import time

HOW = sys.argv[1] if len(sys.argv) > 1 else "well"


class Connection:
    def __init__(self):
        self.socket = socket.socket(fileno=os.dup(0))
        self.read = b""
        self.number = -1
        self.lock = threading.Lock()
        self.later = []

    def send(self, name, **fields):
        self.send_bytes(json.dumps({name: fields}).encode())

    def send_bytes(self, frame):
        with self.lock:
            self.socket.sendall(struct.pack(">I", len(frame)) + frame)

    def next(self):
        return self.later.pop(0) if self.later else self.receive()

    def receive(self):
        frame = self.take(struct.unpack(">I", self.take(4))[0])
        ((name, fields),) = json.loads(frame).items()
        return name, fields

    def take(self, count):
        while len(self.read) < count:
            chunk = self.socket.recv(1 << 16)
            if not chunk:
                os._exit(0)
            self.read += chunk
        taken, self.read = self.read[:count], self.read[count:]
        return taken

    def call(self, name, **fields):
        """Makes a call and waits for its answer; what else comes has to wait too."""
        self.number += 2
        self.send(name, id=self.number, **fields)
        while True:
            frame, answer = self.receive()
            if frame == "response" and answer["id"] == self.number:
                return answer
            if frame == "ping":
                self.send("pong", id=answer.get("id", 0))
            else:
                self.later.append((frame, answer))


def main():
    node = Connection()
    if HOW == "exits":
        print("cannot find the thing I need", file=sys.stderr)
        sys.exit(3)
    if HOW == "mute":
        time.sleep(60)
    if HOW == "rubbish-first":
        node.socket.sendall(b"GET / HTTP/1.1\r\n\r\n")
        time.sleep(60)
    events = [
        {"name": "test.noted", "kind": "notification", "key": "key"},
        {"name": "test.asked", "kind": "request"},
        {"name": "test.followed", "kind": "notification"},
    ]
    if HOW == "meets":
        # Says hello once the others have come too.
        open(os.path.join(os.environ["PLACE"], os.environ["EDRI_WORKER"]), "w").close()
        while len(os.listdir(os.environ["PLACE"])) < 3:
            time.sleep(0.01)
    version = 99 if HOW == "future" else 1
    select = "not a name" if HOW == "misnamed" else "test.noted"
    handlers = [{"select": select}, {"select": "test.asked"}]
    window = {"calls": int(os.environ.get("WINDOW", "64"))}
    node.send("hello", version=version, role="worker", agent="by hand", events=events, handlers=handlers, window=window)
    name, welcome = node.receive()
    assert name == "welcome", (name, welcome)
    if HOW == "no-start":
        node.send("bye", error={"code": "start_failed", "message": "the database is away"})
        sys.exit(1)
    node.send("ready")
    handled = 0
    while True:
        name, fields = node.next()
        if name == "ping":
            if HOW != "no-pong":
                node.send("pong", id=fields.get("id", 0))
        elif name == "publish":
            number = fields["payload"]["number"]
            node.send("ack", begun=fields["id"])
            misbehave(node, number, fields)
            handled += 1
            node.send("ack", done=[fields["id"]])
        elif name == "request":
            node.send("ack", begun=fields["id"])
            if fields["payload"]["number"] == 13 and HOW == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            node.send("response", id=fields["id"], value=fields["payload"]["number"] * 2)
        elif name == "bye":
            node.send("bye")
            sys.exit(0)


def misbehave(node, number, fields):
    if HOW == "follows":
        answer = node.call("publish", event="test.followed", payload={"number": number}, cause=fields["event_id"])
        assert answer["value"]["groups"] == 1, answer
    if number != 13:
        return
    if HOW == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if HOW == "leaves":
        os._exit(0)
    if HOW == "stops":
        os.kill(os.getpid(), signal.SIGSTOP)
    if HOW == "rubbish":
        node.send_bytes(b"\xc1rubbish")
        time.sleep(60)
    if HOW == "too-long":
        node.socket.sendall(b"\xff\xff\xff\xff")
        time.sleep(60)
    if HOW == "half":
        node.socket.shutdown(socket.SHUT_WR)
        time.sleep(60)
    if HOW == "deaf":
        node.socket.shutdown(socket.SHUT_RD)
        time.sleep(60)
    if HOW == "forges":
        node.send("ack", done=[0, 1, 2**53 - 1])
        node.send("response", id=4711, value=1)
        node.send("data", id=4712, payload=1)
        node.send("nonsense", of={"any": "kind"})
    if HOW == "floods":
        for line in range(100_000):
            print("line", line)
        sys.stdout.flush()
    if HOW == "children":
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        print("child of", os.getpid(), flush=True)
    if HOW == "eats":
        bytearray(4 << 30)
    if HOW == "spins":
        while True:
            pass
    if HOW == "tells":
        told = int(os.environ["TOLD"]) if os.listdir(".") == ["here"] and "LEFT_OUT" not in os.environ else 0
        node.call("publish", event="test.followed", payload={"number": told})
    if HOW in ("slow", "ignores"):
        time.sleep(60)
    if HOW == "once" and not fields.get("redelivered"):
        os.kill(os.getpid(), signal.SIGKILL)


main()
