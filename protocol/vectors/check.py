#!/usr/bin/env python3
"""Compares the vectors with a MessagePack and a JSON reader that share no code with edri.

Needs Python 3.9 and the package msgpack. Run it as a program, or let pytest collect its test functions.
"""

import json
import math
import pathlib

import msgpack

VECTORS = json.loads(pathlib.Path(__file__).with_name("frames.json").read_text(encoding="utf-8"))
# Where a frame has its payload.
PAYLOADS = {
    "publish": "payload",
    "request": "payload",
    "open": "payload",
    "data": "payload",
    "response": "value",
    "welcome": "arguments",
    "subscribe": "conditions",
}
# What a field may be in `frame` that is missing or null in the bytes.
DEFAULTS = (None, False, 0, "", [], {}, {"calls": 64, "bytes": 8388608}, 64, 8388608)


def unpack(data):
    return msgpack.unpackb(data, raw=False, strict_map_key=False)


def in_json(value):
    """What the value is in JSON."""
    if isinstance(value, bytes):
        return list(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [in_json(item) for item in value]
    if isinstance(value, dict):
        return {key: in_json(item) for key, item in value.items()}
    return value


def read(data):
    """The MessagePack frame as JSON, and the bytes of its payload."""
    ((name, fields),) = unpack(data).items()
    payload = None
    field = PAYLOADS.get(name)
    if field and fields.get(field) is not None:
        payload = fields[field]
        assert isinstance(payload, bytes), f"{name}.{field} is no byte string"
        fields[field] = unpack(payload)
    return {name: in_json(fields)}, payload


def says(written, frame):
    """Whether everything that `frame` says is written, or is a default that is missing or null."""
    if isinstance(written, dict) and isinstance(frame, dict):
        return all(
            says(written[field], value) or (written[field] is None and value in DEFAULTS)
            if field in written
            else value in DEFAULTS
            for field, value in frame.items()
        )
    if isinstance(written, list) and isinstance(frame, list):
        return len(written) == len(frame) and all(map(says, written, frame))
    # In Python 1 == True.
    return written == frame and isinstance(written, bool) == isinstance(frame, bool)


def test_both_encodings_say_the_same():
    names = set()
    for vector in VECTORS["frames"]:
        name = vector["name"]
        assert name not in names, f"two vectors are called {name}"
        names.add(name)
        frame, payload = read(bytes.fromhex(vector["messagepack"]))
        assert frame == json.loads(vector["json"]), name
        assert says(frame, vector["frame"]), name
        assert (payload.hex() if payload is not None else None) == vector.get("payload"), name


def test_what_others_may_write_says_the_same():
    for vector in VECTORS["accepted"]:
        forms = [json.loads(vector["json"])] if "json" in vector else []
        if "messagepack" in vector and "newer" not in vector["frame"]:
            forms.append(read(bytes.fromhex(vector["messagepack"]))[0])
        for frame in forms:
            if "newer" in vector["frame"]:
                assert list(frame) == ["newer"], vector["name"]
            elif "event_id" not in str(vector["frame"]) and "trace" not in str(vector["frame"]):
                assert says(frame, vector["frame"]), vector["name"]


def test_what_is_rejected_is_well_written():
    for vector in VECTORS["rejected"]:
        data = bytes.fromhex(vector["bytes"])
        assert vector["encoding"] in ("json", "messagepack"), vector["name"]
        assert vector["code"] == "malformed_frame", vector["name"]
        # The first byte tells the encoding, but for what a JSON writer may put before it by mistake.
        if vector["encoding"] == "messagepack":
            assert not data.startswith(b"{"), vector["name"]


def test_streams_split_into_frames():
    for vector in VECTORS["streams"]:
        data, frames, code = bytes.fromhex(vector["bytes"]), [], None
        while len(data) >= 4:
            length = int.from_bytes(data[:4], "big")
            if length > vector["max"]:
                code = "frame_too_long"
                break
            if len(data) < 4 + length:
                break
            frames.append(data[4 : 4 + length].hex())
            data = data[4 + length :]
        assert (frames, code) == (vector["frames"], vector.get("code")), vector["name"]


if __name__ == "__main__":
    for function in [value for name, value in sorted(globals().items()) if name.startswith("test_")]:
        function()
    print(", ".join(f"{len(value)} {name}" for name, value in VECTORS.items() if isinstance(value, list)))
