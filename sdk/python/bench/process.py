"""Requests a second through a worker of the SDK, beside a bare child on the same socket with the same frames.

``python bench/process.py [--seconds 1] [--pairs 7] [--in-flight 64] [kind ...]`` with kinds ``async``, ``async16``,
``dataclass``, ``thread``, ``notify``. Ours and the bare child alternate; medians are quoted, and for what strays on a busy
machine also the processor time a request costs each of them.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import struct
import subprocess
import sys
import time
from typing import List, Tuple

import msgpack

_PREFIX = struct.Struct(">I")
_HERE = os.path.dirname(os.path.abspath(__file__))
_COUNT = 4096


def frame(name: str, fields: object) -> bytes:
    packed: bytes = msgpack.packb({name: fields})
    return _PREFIX.pack(len(packed)) + packed


def calls(verb: str) -> Tuple[List[bytes], int]:
    """A round of calls as one piece of bytes each, with numbers of the same width."""
    payload = msgpack.packb({"region": "north", "magnitude": 4.7, "note": "x" * 24})
    fields = {
        "event": "bench.ask",
        "payload": payload,
        "event_id": "0123456789abcdef" * 2,
        "origin": "bench/load",
        "timeout_ms": 30000,
        "trace": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    }
    return [frame(verb, {"id": number, **fields}) for number in range(1 << 17, (1 << 17) + 2 * _COUNT, 2)], len(payload)


def measure(kind: str, seconds: float, in_flight: int) -> Tuple[float, float]:
    """Calls a second, and microseconds of the child's processor time for each."""
    verb = "publish" if kind == "notify" else "request"
    ours, theirs = socket.socketpair()
    environment = {**os.environ, "EDRI_WORKER": "bench", "PYTHONPATH": os.path.join(_HERE, "..", "src")}
    child = subprocess.Popen([sys.executable, os.path.join(_HERE, "child.py"), kind], stdin=theirs.fileno(), env=environment)
    theirs.close()
    base = calls(verb)[0]
    # Numbers have to grow, so each round has others; only the bytes of the number change.
    answered, sent, data = 0, 0, bytearray()
    welcome = {"version": 1, "node": "bench", "incarnation": "0" * 16, "silence_ms": 30000, "frame_bytes_max": 16 << 20}
    ours.recv(1 << 16)
    ours.sendall(frame("welcome", welcome))
    marker = base[0].index(struct.pack(">BI", 0xCE, 1 << 17)) + 1
    head, tail = base[0][:marker], base[0][marker + 4 :]

    def send(count: int) -> None:
        nonlocal sent
        pieces = []
        for _ in range(count):
            pieces.append(head + _PREFIX.pack((1 << 17) + 2 * sent) + tail)
            sent += 1
        ours.sendall(b"".join(pieces))

    begun = time.perf_counter()
    begun_cpu = 0.0
    warm = False
    while True:
        data += ours.recv(1 << 17)
        at, end, answers = 0, len(data), 0
        while end - at >= 4:
            (length,) = _PREFIX.unpack_from(data, at)
            if end - at - 4 < length:
                break
            at += 4
            # An ack is \x81\xa3ack, a response \x81\xa8response, ready \x81\xa5ready.
            mark = data[at + 1]
            if mark == 0xA8:
                answers += 1
            elif mark == 0xA3:
                answers += len(msgpack.unpackb(bytes(data[at : at + length]))["ack"].get("done", ()))
            elif mark == 0xA5:
                send(in_flight)
            at += length
        del data[:at]
        answered += answers
        now = time.perf_counter()
        if not warm and answered > 4000:
            warm, begun, answered, begun_cpu = True, now, 0, _processor_seconds(child.pid)
        if warm and now - begun > seconds:
            took, cpu = now - begun, _processor_seconds(child.pid) - begun_cpu
            break
        if answers:
            send(answers)
    ours.close()
    child.wait()
    return answered / took, cpu / answered * 1e6


def _processor_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("kinds", nargs="*", default=["async", "dataclass", "thread", "async16", "notify"])
    options = parser.parse_args()
    for kind in options.kinds:
        pairs = []
        for _ in range(options.pairs):
            pairs.append((measure("bare", options.seconds, options.in_flight), measure(kind, options.seconds, options.in_flight)))
        middle = statistics.median(bare[0] for bare, _ in pairs)
        kept = [pair for pair in pairs if abs(pair[0][0] - middle) < 0.25 * middle]
        ratio = statistics.median(ours[0] / bare[0] for bare, ours in kept)
        cost = statistics.median(bare[1] / ours[1] for bare, ours in kept)
        ours_rate = statistics.median(ours[0] for _, ours in kept)
        print(
            f"{kind:10} {ours_rate:9,.0f}/s, bare {middle:9,.0f}/s: ratio {ratio:.2f} "
            f"(processor time {statistics.median(o[1] for _, o in kept):.2f} us against "
            f"{statistics.median(b[1] for b, _ in kept):.2f}, {cost:.2f}); {len(kept)} pairs",
            flush=True,
        )


if __name__ == "__main__":
    main()
