"""The children that `process.py` measures: a bare one and workers of the SDK. Started by it."""

from __future__ import annotations

import os
import socket
import struct
import sys
from dataclasses import dataclass
from typing import Any, Dict

import msgpack

from edri_sdk import Worker


@dataclass
class Ask:
    region: str
    magnitude: float
    note: str


@dataclass
class Risk:
    region: str
    magnitude: float
    note: str


def bare() -> None:
    """Decodes frames and payloads, matches ids, encodes payloads and frames; nothing else."""
    sock = socket.socket(fileno=os.dup(0))
    prefix, unpackb, pack = struct.Struct(">I"), msgpack.unpackb, msgpack.Packer().pack
    handlers = {0: lambda value: value}
    hello = pack({"hello": {"version": 1, "role": "worker"}})
    sock.sendall(prefix.pack(len(hello)) + hello)
    is_open: Dict[int, Any] = {}
    rest = b""
    while True:
        data = sock.recv(128 << 10)
        if not data:
            return
        data = rest + data
        at, end, out = 0, len(data), []
        while end - at >= 4:
            (length,) = prefix.unpack_from(data, at)
            if end - at - 4 < length:
                break
            frame = unpackb(data[at + 4 : at + 4 + length])
            at += 4 + length
            name, fields = next(iter(frame.items()))
            if name == "bye":
                return
            if name == "welcome":
                frame = pack({"ready": {}})
                out.append(prefix.pack(len(frame)) + frame)
                continue
            is_open[fields["id"]] = fields
            value = handlers[fields.get("handler", 0)](unpackb(fields["payload"]))
            is_open.pop(fields["id"])
            frame = pack({"response": {"id": fields["id"], "value": pack(value)}})
            out.append(prefix.pack(len(frame)) + frame)
        rest = data[at:]
        if out:
            sock.sendall(b"".join(out))


def worker(kind: str) -> None:
    it = Worker(concurrency=16 if kind == "async16" else 1)
    if kind in ("async", "async16"):

        @it.request("bench.ask")
        async def plain_payload(ask: dict, cx: Any) -> Any:  # type: ignore[type-arg]
            return ask

    elif kind == "thread":

        @it.request("bench.ask")
        def in_thread(ask: dict, cx: Any) -> Any:  # type: ignore[type-arg]
            return ask

    elif kind == "dataclass":

        @it.request("bench.ask", response=Risk)
        async def typed(ask: Ask, cx: Any) -> Risk:
            return Risk(ask.region, ask.magnitude, ask.note)

    elif kind == "notify":

        @it.notification("bench.ask")
        async def notified(ask: dict, cx: Any) -> None:  # type: ignore[type-arg]
            pass

    it.run()


if __name__ == "__main__":
    if sys.argv[1] == "bare":
        bare()
    elif len(sys.argv) > 2:
        import cProfile

        cProfile.run(f"worker({sys.argv[1]!r})", sys.argv[2])
    else:
        worker(sys.argv[1])
