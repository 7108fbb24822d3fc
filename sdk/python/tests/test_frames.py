"""Bytes to frames and back."""

import struct
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, List

import pytest

from edri_sdk.errors import ProtocolError, clean, fault_of
from edri_sdk.frames import FrameReader, encode, encode_response, pack, unpack


def feed(reader: FrameReader, data: bytes, step: int) -> List[Any]:
    frames: List[Any] = []
    at = 0
    while at < len(data):
        space = reader.space()
        piece = data[at : at + min(step, len(space))]
        space[: len(piece)] = piece
        at += len(piece)
        frames += reader.filled(len(piece))
    return frames


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 7, 64, 1000, 1 << 20])
def test_frames_come_whole_however_their_bytes_come(step: int) -> None:
    said = [("ping", {"id": number}) for number in range(50)]
    said.insert(20, ("data", {"id": 2, "payload": b"x" * 700}))
    data = b"".join(encode(name, fields) for name, fields in said)
    reader = FrameReader()
    assert feed(reader, data, step) == said
    assert feed(reader, data, step) == said


def test_a_large_frame_gets_a_buffer_of_its_own_and_small_ones_follow() -> None:
    large = ("data", {"id": 2, "payload": b"\x00" * (10 << 20)})
    reader = FrameReader()
    data = encode(*large) + encode("ping", {"id": 1})
    assert feed(reader, data, 1 << 18) == [large, ("ping", {"id": 1})]
    assert len(reader.space()) < 1 << 20


def test_a_huge_length_is_refused_before_memory_is_taken() -> None:
    reader = FrameReader()
    with pytest.raises(ProtocolError) as caught:
        feed(reader, b"\xff\xff\xff\xff", 4)
    assert caught.value.code == "frame_too_long"
    assert len(reader.space()) < 1 << 20


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00",
        b"\xc1",
        b"{}",
        b'{"ping":{}}',
        b"\x80",
        b"\x81\xa4ping",
        b"\x82\xa1a\x80\xa1b\x80",
        b"\x81\xa4ping\x80\x00",
        b"\x91\xa4ping",
        b"\x81\xa4pi\xffg\x80",
        b"\x81\x91\x01\x80",
        b"\x81\xa1a" + b"\x91" * 5000 + b"\xc0",
        b"\x81\xa1a\xdf\xff\xff\xff\xff",
    ],
)
def test_what_is_no_frame_is_an_error(body: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        feed(FrameReader(), struct.pack(">I", len(body)) + body, 1 << 16)
    assert caught.value.code == "malformed_frame"


def test_a_length_that_is_not_the_frames_is_an_error() -> None:
    frame = encode("ping", {"id": 1})
    with pytest.raises(ProtocolError):
        feed(FrameReader(), struct.pack(">I", len(frame) - 4 + 1) + frame[4:] + b"\x00" + frame, 1 << 16)
    with pytest.raises(ProtocolError):
        feed(FrameReader(), struct.pack(">I", len(frame) - 4 - 1) + frame[4:] + frame, 1 << 16)


@pytest.mark.parametrize("size", [0, 1, 200, 70_000])
@pytest.mark.parametrize("number", [2, 70_000, (1 << 53) - 2])
def test_a_response_written_by_hand_is_a_response(size: int, number: int) -> None:
    payload = b"p" * size
    frames = feed(FrameReader(), encode_response(number, payload), 1 << 16)
    assert frames == [("response", {"id": number, "value": payload})]


class Colour(Enum):
    RED = "red"


@dataclass
class Inner:
    it: int
    origin: str = field(default="x", metadata={"name": "from"})


@dataclass
class Outer:
    inner: Inner
    colours: List[Colour]


def test_dataclasses_and_enums_are_packed_as_maps_and_values() -> None:
    value = Outer(Inner(1), [Colour.RED])
    assert unpack(pack(value)) == {"inner": {"it": 1, "from": "x"}, "colours": ["red"]}


def test_what_cannot_be_sent_says_what_can() -> None:
    with pytest.raises(TypeError, match="dataclass"):
        pack({"at": object()})
    with pytest.raises(OverflowError):
        pack(1 << 70)
    assert unpack(pack([1, "é", b"\x00", None, 1.5])) == [1, "é", b"\x00", None, 1.5]


def test_a_packer_that_failed_goes_on() -> None:
    with pytest.raises(TypeError):
        pack([1, 2, {3}])
    assert unpack(pack([1])) == [1]


def test_a_payload_that_is_none_is_a_value_error() -> None:
    for payload in (b"", b"\xc1", b"\x91" * 3000, b"\x01\x02", b"\xa1\xff", "text", b"\x81\x91\x01\x01"):
        with pytest.raises(ValueError):
            unpack(payload)
    assert unpack(None) is None
    assert unpack(b"\x81\x07\xa1x") == {7: "x"}


def test_texts_that_are_no_utf8_and_endless_ones_are_made_fit() -> None:
    assert clean("a\udcffb") == "a?b"
    assert len(clean("x" * 10**7)) < 70_000

    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert fault_of(Broken())["message"].startswith("Broken")
    assert fault_of(ValueError("text"))["message"] == "ValueError: text"
