"""The bare child of the reference: reads frames, decodes payloads, answers; nothing else."""

import os
import socket
import struct

import msgpack


def main():
    connection = socket.socket(fileno=os.dup(0))
    prefix, unpackb, pack = struct.Struct(">I"), msgpack.unpackb, msgpack.Packer().pack
    hello = pack({"hello": {"version": 1, "role": "worker"}})
    connection.sendall(prefix.pack(len(hello)) + hello)
    rest = b""
    while True:
        data = connection.recv(256 << 10)
        if not data:
            return
        if rest:
            data = rest + data
        at, end, out, done = 0, len(data), [], []
        while end - at >= 4:
            (length,) = prefix.unpack_from(data, at)
            if end - at - 4 < length:
                break
            ((name, fields),) = unpackb(data[at + 4 : at + 4 + length]).items()
            at += 4 + length
            if name == "request":
                event = unpackb(fields["payload"])
                frame = pack({"response": {"id": fields["id"], "value": pack(event["number"] + len(event["data"]))}})
            elif name == "publish":
                unpackb(fields["payload"])
                done.append(fields["id"])
                continue
            elif name == "welcome":
                frame = pack({"ready": {}})
            elif name == "bye":
                return
            else:
                raise ValueError(name)
            out.append(prefix.pack(len(frame)) + frame)
        rest = data[at:]
        if done:
            frame = pack({"ack": {"done": done}})
            out.append(prefix.pack(len(frame)) + frame)
        if out:
            connection.sendall(b"".join(out))


main()
