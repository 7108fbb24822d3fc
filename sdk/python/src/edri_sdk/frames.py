"""Frames from bytes and to bytes. No socket, no clock.

A frame is a map of one entry, its name and a map of its fields; on a stream it follows its length, four bytes, most
significant first. A payload in it is a byte string that holds its own MessagePack.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import struct
import threading
from typing import Any, Dict, List, Tuple

import msgpack

from .errors import ProtocolError

#: The version of the protocol.
VERSION = 1
#: The longest frame, without its length, unless the node says otherwise.
FRAME_BYTES_MAX = 16 << 20
#: The most calls that one ``ack`` settles.
ACKS_MAX = 65_536
#: The most headers of a call.
HEADERS_MAX = 64
#: The most figures of a report.
FIGURES_MAX = 64

Fields = Dict[str, Any]
#: A name and its fields. The fields of a frame that nobody knows may be anything.
Frame = Tuple[str, Any]

_PREFIX = struct.Struct(">I")
_BUFFER = 128 << 10
#: A packer keeps the memory of the largest value it packed; one that has packed more than this is thrown away.
_PACKER_KEEPS = 1 << 20


class FrameReader:
    """Takes bytes in whatever pieces they come and gives frames.

    Write up to ``len(space())`` bytes to ``space()``, then say how many with ``filled``.
    """

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self.frame_bytes_max = frame_bytes_max
        self._view = memoryview(bytearray(_BUFFER))
        self._end = 0
        # One unpacker for all frames of a batch is a quarter faster than `unpackb` of each.
        self._unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=2 * frame_bytes_max + 2 * _BUFFER)
        self._fed = 0

    def space(self) -> memoryview:
        """Where the next bytes go; never empty."""
        return self._view[self._end :]

    def filled(self, count: int) -> List[Frame]:
        """The frames that ``count`` more bytes completed.

        Raises :class:`ProtocolError` for what is no frame, or too long; the reader is of no use any more then.
        """
        view, end = self._view, self._end + count
        begin, bounds, needed = 0, [], _PREFIX.size
        while end - begin >= _PREFIX.size:
            (length,) = _PREFIX.unpack_from(view, begin)
            if length > self.frame_bytes_max:
                raise ProtocolError("frame_too_long", f"a frame of {length} bytes, where {self.frame_bytes_max} is the most")
            needed = _PREFIX.size + length
            if end - begin < needed:
                break
            begin += needed
            bounds.append(begin)
        frames = self._decode(view[:begin], bounds) if bounds else []
        self._keep(begin, end, needed)
        return frames

    def _keep(self, begin: int, end: int, needed: int) -> None:
        """Moves the beginning of an unfinished frame to the front, into a buffer that can take all of it."""
        rest = end - begin
        size = max(_BUFFER, needed if rest >= _PREFIX.size else 0)
        if size != len(self._view):
            fresh = memoryview(bytearray(size))
            fresh[:rest] = self._view[begin:end]
            self._view = fresh
        elif begin and rest:
            self._view[:rest] = bytes(self._view[begin:end])
        self._end = rest

    def _decode(self, data: memoryview, bounds: List[int]) -> List[Frame]:
        unpacker, fed = self._unpacker, self._fed
        frames: List[Frame] = []
        try:
            unpacker.feed(data)
            skip, next_frame, tell, append = unpacker.read_bytes, unpacker.unpack, unpacker.tell, frames.append
            for bound in bounds:
                skip(4)
                ((name, fields),) = next_frame().items()
                if tell() != fed + bound:
                    raise ValueError("its length is not the length before it")
                append((name, fields))
        except Exception as error:  # Whatever the unpacker raises, it was no frame.
            raise ProtocolError("malformed_frame", f"not a frame: {type(error).__name__}: {error}") from error
        self._fed = fed + len(data)
        return frames


class _Packers(threading.local):
    """A packer belongs to one thread. Payloads have their own: packing one may run code of the user (a property of a
    dataclass, for one), which may log, which packs a frame."""

    def __init__(self) -> None:
        self.frames = msgpack.Packer()
        self.payloads = msgpack.Packer(default=_plain)


def _plain(value: Any) -> Any:
    """What MessagePack has no kind for, as something it has."""
    known = _WIRE_NAMES.get(type(value))  # To ask whether it is a dataclass takes longer than all the rest.
    if known is not None:
        return {wire: getattr(value, name) for name, wire in known}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {wire: getattr(value, name) for name, wire in wire_names(type(value))}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, int):
        raise OverflowError(f"the integer {value} cannot be sent: an integer has 64 bits")
    raise TypeError(
        f"a value of the type {type(value).__name__} cannot be sent: use None, bool, int, float, str, bytes, list, "
        "tuple, dict, Enum or a dataclass of these"
    )


_WIRE_NAMES: Dict[type, List[Tuple[str, str]]] = {}


def wire_names(cls: type) -> List[Tuple[str, str]]:
    """The fields of a dataclass: the name in Python and the name in payloads.

    They differ where ``field(metadata={"name": "from"})`` says so.
    """
    names = _WIRE_NAMES.get(cls)
    if names is None:
        fields = dataclasses.fields(cls)  # type: ignore[arg-type, unused-ignore]
        names = _WIRE_NAMES[cls] = [(field.name, field.metadata.get("name", field.name)) for field in fields]
    return names


_packers = _Packers()
_unpackb = functools.partial(msgpack.unpackb, strict_map_key=False)


def encode(name: str, fields: Fields) -> bytes:
    """The frame after its length."""
    packed: bytes = _packers.frames.pack({name: fields})
    if len(packed) > _PACKER_KEEPS:
        _packers.frames = msgpack.Packer()
    return _PREFIX.pack(len(packed)) + packed


# A response is written by hand: it is the most frequent frame of all, and the packer takes twice as long for it. All its
# numbers have the long form, whatever their size, so that everything before the payload has one length.
_RESPONSE_BEGIN = b"\x81\xa8response\x82\xa2id"
_RESPONSE_VALUE = b"\xa5value\xc6"
_RESPONSE_HEAD = struct.Struct(f">I {len(_RESPONSE_BEGIN)}s B Q {len(_RESPONSE_VALUE)}s I")
_RESPONSE_REST = _RESPONSE_HEAD.size - _PREFIX.size


def encode_response(number: int, payload: bytes) -> bytes:
    """The frame ``{"response": {"id": number, "value": payload}}`` after its length."""
    size = len(payload)
    return _RESPONSE_HEAD.pack(_RESPONSE_REST + size, _RESPONSE_BEGIN, 0xCF, number, _RESPONSE_VALUE, size) + payload


def pack(value: Any) -> bytes:
    """The payload's MessagePack. Raises ``TypeError``, ``ValueError`` or ``OverflowError`` for what cannot be sent."""
    packed: bytes = _packers.payloads.pack(value)
    if len(packed) > _PACKER_KEEPS:
        _packers.payloads = msgpack.Packer(default=_plain)
    return packed


def unpack_frame(message: Any) -> Frame:
    """The frame in a message of a WebSocket. Raises :class:`ProtocolError`."""
    try:
        ((name, fields),) = _unpackb(message).items()
        if type(name) is not str or type(fields) is not dict:
            raise ValueError("a frame is a name and a map")
    except Exception as error:  # Whatever the unpacker raises, it was no frame.
        raise ProtocolError("malformed_frame", f"not a frame: {type(error).__name__}: {error}") from error
    return name, fields


def unpack(payload: Any) -> Any:
    """The value of a payload; ``None`` for an absent one. Raises ``ValueError`` for what is no MessagePack."""
    if payload is None:
        return None
    try:
        return _unpackb(payload)
    except Exception as error:  # Many kinds, and all mean the same.
        raise ValueError(f"not a MessagePack value: {type(error).__name__}: {error}") from error
