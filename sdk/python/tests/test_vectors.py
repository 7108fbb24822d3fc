"""The golden vectors that all implementations share: `protocol/vectors/frames.json`."""

import json
import math
import os
import pathlib
import struct
from typing import Any, Dict, List

import msgpack
import pytest

from edri_sdk.errors import ProtocolError
from edri_sdk.frames import FrameReader, encode, encode_response, pack, unpack

_DIRECTORY = os.environ.get("EDRI_VECTORS") or str(pathlib.Path(__file__).parents[3] / "protocol" / "vectors")
_FILE = pathlib.Path(_DIRECTORY, "frames.json")
VECTORS: Dict[str, List[Dict[str, Any]]] = json.loads(_FILE.read_text(encoding="utf-8"))

#: Where a frame has its payload.
PAYLOADS = {
    "publish": "payload",
    "request": "payload",
    "open": "payload",
    "data": "payload",
    "response": "value",
    "welcome": "arguments",
    "subscribe": "conditions",
}
DEFAULTS = (None, False, 0, "", [], {}, {"calls": 64, "bytes": 8388608}, 64, 8388608)


def named(kind: str) -> Any:
    vectors = [vector for vector in VECTORS.get(kind, ()) if "messagepack" in vector]
    return pytest.mark.parametrize("vector", vectors, ids=[vector["name"] for vector in vectors])


def read(data: bytes) -> Any:
    """The only frame of these bytes, with its payload decoded."""
    reader = FrameReader()
    data = struct.pack(">I", len(data)) + data
    reader.space()[: len(data)] = data
    ((name, fields),) = reader.filled(len(data))
    place = PAYLOADS.get(name)
    if place and fields.get(place) is not None:
        fields[place] = unpack(fields[place])
    return {name: fields}


def in_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return list(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [in_json(item) for item in value]
    if isinstance(value, dict):
        return {key: in_json(item) for key, item in value.items()}
    return value


def says(written: Any, frame: Any) -> bool:
    """Whether what was read says all that the frame says; defaults may be missing."""
    if isinstance(written, dict) and isinstance(frame, dict):
        return all(
            says(written.get(name), value) or (written.get(name) is None and value in DEFAULTS)
            for name, value in frame.items()
        )
    if isinstance(written, list) and isinstance(frame, list) and len(written) == len(frame):
        return all(says(mine, theirs) for mine, theirs in zip(written, frame))
    if isinstance(written, str) and isinstance(frame, str):
        return written.lower() == frame.lower()  # An id may come in capitals.
    return bool(written == frame)


@named("frames")
def test_a_frame_is_read_as_its_json_says(vector: Any) -> None:
    assert says(in_json(read(bytes.fromhex(vector["messagepack"]))), vector["frame"])


@named("frames")
def test_a_frame_that_is_written_again_is_read_as_the_same(vector: Any) -> None:
    ((name, fields),) = msgpack.unpackb(bytes.fromhex(vector["messagepack"])).items()
    place = PAYLOADS.get(name)
    payload = fields.get(place) if place else None
    if payload is not None:
        assert payload.hex() == vector["payload"]
        fields[place] = pack(unpack(payload))
    written = encode(name, fields)
    assert struct.unpack(">I", written[:4]) == (len(written) - 4,)
    assert written[4:].hex() == vector["messagepack"]
    if name == "response" and payload is not None and set(fields) == {"id", "value"}:
        assert read(encode_response(fields["id"], payload)[4:]) == read(written[4:])


@named("accepted")
def test_what_others_may_write_is_accepted(vector: Any) -> None:
    frame = in_json(read(bytes.fromhex(vector["messagepack"])))
    if vector["frame"] == {"newer": None}:
        assert list(frame) == ["newer"]
    else:
        assert list(frame) == list(vector["frame"])
        if not any(word in vector["name"] for word in ("schemas", "trace")):  # Those are passed on as they came.
            assert says(frame, vector["frame"])


#: Names of vectors whose bytes are no map of one entry with a text as its name; the others are frames with wrong fields.
NO_FRAME = (
    "nothing", "cut ", "bytes behind", "a cut value", "two frames", "two names", "no name", "a list", "a text",
    "invalid UTF-8 in a", "a byte string longer", "a text longer", "a list longer", "a map longer", "headers longer",
    "the byte that",
)  # fmt: skip


def test_what_is_no_frame_is_rejected() -> None:
    rejected = [vector for vector in VECTORS["rejected"] if vector["encoding"] == "messagepack"]
    checked = 0
    for vector in rejected:
        is_no_frame = vector["name"].startswith(NO_FRAME) and vector["name"] not in (
            "a text that is a number", "a text that is a list", "a text that is a byte string", "a list that is a map",
            "a list that is a byte string", "invalid UTF-8 in a payload",
        )  # fmt: skip
        try:
            read(bytes.fromhex(vector["bytes"]))
        except ProtocolError as error:
            assert error.code == vector["code"], vector["name"]
            checked += 1
        except (AttributeError, ValueError, TypeError):
            assert not is_no_frame, vector["name"]
        else:
            assert not is_no_frame, vector["name"]
    assert checked > 10


@pytest.mark.parametrize("vector", VECTORS.get("streams", ()), ids=lambda vector: vector["name"])
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_a_stream_is_split_into_its_frames(vector: Any, step: int) -> None:
    data = bytes.fromhex(vector["bytes"])
    whole = [bytes.fromhex(frame) for frame in vector["frames"]]
    reader = FrameReader(vector["max"])
    code, frames = None, []
    try:
        for begin in range(0, len(data), step):
            piece = data[begin : begin + step]
            reader.space()[: len(piece)] = piece
            frames += reader.filled(len(piece))
    except ProtocolError as error:
        code = error.code
    messagepack = [frame for frame in whole if frame[:1] == b"\x81"]
    if len(messagepack) == len(whole):
        assert code == vector.get("code")
        if step == 1:
            assert [{name: fields} for name, fields in frames] == [msgpack.unpackb(frame) for frame in whole]
    else:
        # The others are in JSON, or empty: no frames for this reader, which speaks MessagePack.
        assert code == "malformed_frame"
