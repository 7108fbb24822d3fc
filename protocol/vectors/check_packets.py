#!/usr/bin/env python3
"""Reads the vectors of packets with a reader that shares no code with edri, written from docs/PROTOCOL.md alone.

Needs Python 3.9 and the package msgpack. Run it as a program, or let pytest collect its test functions.
"""

import json
import pathlib

import msgpack

VECTORS = json.loads(pathlib.Path(__file__).with_name("packets.json").read_text(encoding="utf-8"))
PAYLOAD_MAX = 16 << 20
TEXT_MAX = 1 << 20


class Wrong(Exception):
    """The bytes are no packet, or no body."""


def need(condition, says):
    if not condition:
        raise Wrong(says)


class Input:
    def __init__(self, data):
        self.data, self.at = data, 0

    def rest(self):
        return len(self.data) - self.at

    def take(self, count):
        need(count <= self.rest(), "ends early")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self):
        return self.take(1)[0]

    def random(self):
        return int.from_bytes(self.take(8), "big")

    def life(self):
        life = self.random()
        need(life, "an incarnation of zero")
        return f"{life:016x}"

    def number(self, bits=64):
        number = shift = 0
        while True:
            byte = self.byte()
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                need(byte or shift == 7, "not the shortest form")
                need(number < 1 << bits, f"more than {bits} bits")
                return number
            need(shift < 70, "a number without end")

    def count(self, most):
        count = self.number()
        need(count <= most, "too many")
        return count

    def text(self, most=TEXT_MAX):
        try:
            return self.take(self.count(most)).decode()
        except UnicodeDecodeError as error:
            raise Wrong("no text") from error


# ---- packets ---------------------------------------------------------------------------------------------------------


def lane(data):
    tag = data.byte()
    need(tag < 4, "an unknown lane")
    return ("high", "normal")[tag] if tag < 2 else {("up", "down")[tag - 2]: data.number()}


def read_data(data):
    flags = data.byte()
    need(flags < 2, "an unknown flag")
    fields = {"redelivered": bool(flags), "hops": data.byte(), "origin": data.life(), "lane": lane(data)}
    fields["age_ms"] = data.number(32)
    fields["destinations"], groups_left = [], 65536
    for _ in range(data.count(4096)):
        to = {"node": data.life(), "session": data.number(32), "sequence": data.number()}
        to["base"] = to["sequence"] - data.number()
        need(to["base"] >= 0, "a base below zero")
        to["groups"] = [data.number(32) for _ in range(data.count(groups_left))]
        groups_left -= len(to["groups"])
        fields["destinations"].append(to)
    fields["body"] = data.take(data.rest()).hex()
    return {"data": fields}


def held_ranges(data, end):
    for _ in range(data.count(16)):
        gap, length = data.number(), data.number()
        need(gap and length, "an empty range or gap")
        start, end = end + gap, end + gap + length
        need(end < 1 << 64, "a range without end")
        yield [start, end]


def read_packet(octets):
    data = Input(octets)
    kind = data.byte()
    if kind == 1:
        return read_data(data)
    need(2 <= kind <= 5, "an unknown kind")
    name = (None, None, "ack", "query", "probe", "alive")[kind]
    fields = {"hops": data.byte(), "origin": data.life(), "to": data.life()}
    if name in ("probe", "alive"):
        fields["number"] = data.number()
    else:
        fields["session"] = data.number(32)
    if name == "ack":
        fields["lanes"] = []
        for _ in range(data.count(4096)):
            of, first = lane(data), data.number()
            fields["lanes"].append({"lane": of, "next": first, "held": list(held_ranges(data, first))})
        fields["credits"] = [
            {"group": data.number(32), "events": data.number(), "bytes": data.number()}
            for _ in range(data.count(65536))
        ]
    need(not data.rest(), "bytes behind it")
    return {name: fields}


# ---- items -----------------------------------------------------------------------------------------------------------


class Body:
    def __init__(self, octets):
        self.data, self.names, self.managers, self.processes = Input(octets), [], [], []

    def items(self):
        while self.data.rest():
            yield self.item()

    def known(self, table, new):
        number = self.data.number()
        if number == 0:
            table.append(new())
        need(number <= len(table), "what was not written")
        return table[number - 1]

    def id(self):
        process = self.known(self.processes, lambda: [self.data.random(), 0])
        difference = self.data.number()
        difference = -(difference + 1) // 2 if difference & 1 else difference // 2
        process[1] = (process[1] + difference) % (1 << 64)
        need(process[0], "an id of the process zero")
        return f"{process[0]:016x}{process[1]:016x}"

    def payload(self):
        length = int.from_bytes(self.data.take(4), "big")
        encoding, length = ("messagepack", "json")[length >> 31], length & 0x7FFFFFFF
        need(length <= PAYLOAD_MAX, "too long")
        return {"encoding": encoding, "bytes": self.data.take(length).hex()}

    def fault(self):
        octets = self.data.take(self.data.count(PAYLOAD_MAX))
        try:
            fault = msgpack.unpackb(octets, raw=False)
        except Exception as error:
            raise Wrong("no fault") from error
        need(isinstance(fault, dict) and isinstance(fault.get("code"), str), "no fault")
        known = {field: fault[field] for field in ("detail", "wait") if fault.get(field) is not None}
        return {"code": fault["code"], "message": fault.get("message") or "", **known}

    def outcome(self):
        tag = self.data.byte()
        need(tag < 3, "an unknown outcome")
        return {"value": self.payload()} if tag == 0 else {("failure", "error")[tag - 1]: self.fault()}

    def grant(self):
        return {"items": self.data.number(), "bytes": self.data.number()}

    def event(self):
        event, flags = {"payload": self.payload()}, self.data.byte()
        need(flags < 128, "an unknown flag")
        event["name"] = self.known(self.names, self.data.text)
        event["id"] = self.id()
        if flags & 1:
            event["manager"] = self.known(self.managers, self.data.text)
        if flags & 2:
            event["key"] = self.data.text()
        if flags & 4:
            event["cause"] = self.id()
        if flags & 8:
            trace, span, bits = self.data.take(16), self.data.take(8), self.data.take(1)
            need(any(trace) and any(span), "a trace of zero")
            event["trace"] = f"00-{trace.hex()}-{span.hex()}-{bits.hex()}"
        if flags & 16:
            event["timeout_ms"] = self.data.number()
        if flags & 32:
            headers = {}
            for _ in range(self.data.count(64)):
                name, value = self.data.text(8192), self.data.text(8192)
                need(len((name + value).encode()) <= 8192, "too long a header")
                headers[name] = value
            if headers:
                event["headers"] = headers
        if flags & 64:
            tried = self.data.number(33)
            event.update({"tried": tried >> 1} if tried > 1 else {}, **({"redelivered": True} if tried & 1 else {}))
        return event

    def sized(self, kind, data):
        if kind == 128:
            keys = {"manager": data.text(), "version": data.number(), "member": bool(data.byte() & 1)}
            slots = {field: int.from_bytes(data.take(8), "big") for field in ("owned", "releasing", "claiming")}
            return {"keys": {**keys, **slots}}
        if kind == 129:
            noted = {"manager": data.text(), "version": data.number()}
            return {"noted": {**noted, "agreed": int.from_bytes(data.take(8), "big")}}
        return {"unknown": {"kind": kind}}

    def item(self):
        kind = self.data.byte()
        if kind >= 128:
            return self.sized(kind, Input(self.data.take(self.data.number())))
        need(1 <= kind <= 12, "an unknown item")
        if kind == 1:
            return {"event": self.event()}
        if kind == 2:
            return {"request": {"call": self.data.number(), "event": self.event()}}
        if kind == 3:
            return {"open": {"credit": self.grant(), "event": self.event()}}
        if kind == 4:
            return {"response": {"call": self.data.number(), "outcome": self.outcome()}}
        if kind == 5:
            return {"cancel": {"call": self.data.number()}}
        if kind == 6:
            return {"data": self.payload()}
        if kind == 7:
            return {"grant": self.grant()}
        if kind == 8:
            return "end"
        if kind == 9:
            return {"abort": self.fault()}
        if kind == 10:
            return {"outcome": self.outcome()}
        if kind == 11:
            return {"left": {"group": self.data.number(32)}}
        return {"differs": {"event": self.data.text(), "why": self.data.text()}}


def read_body(octets):
    return list(Body(octets).items())


# ---- tests -----------------------------------------------------------------------------------------------------------


def test_packets_say_what_they_should():
    for vector in VECTORS["packets"]:
        assert read_packet(bytes.fromhex(vector["bytes"])) == vector["packet"], vector["name"]


def test_bodies_hold_what_they_should():
    for vector in VECTORS["bodies"] + VECTORS["accepted"]:
        assert read_body(bytes.fromhex(vector["bytes"])) == vector["items"], vector["name"]


def test_what_is_none_is_refused():
    for vector in VECTORS["rejected"]:
        read = {"packet": read_packet, "body": read_body}[vector["of"]]
        try:
            read(bytes.fromhex(vector["bytes"]))
        except Wrong:
            continue
        raise AssertionError(f"{vector['name']} was read")


def test_names_are_unique():
    names = [vector["name"] for section in ("packets", "bodies", "accepted", "rejected") for vector in VECTORS[section]]
    assert len(names) == len(set(names))


if __name__ == "__main__":
    for function in [value for name, value in sorted(globals().items()) if name.startswith("test_")]:
        function()
    print(", ".join(f"{len(value)} {name}" for name, value in VECTORS.items() if isinstance(value, list)))
