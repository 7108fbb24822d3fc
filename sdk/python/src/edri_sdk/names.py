"""Names of events, and patterns that select them."""

from __future__ import annotations

import re

from .errors import DeclarationError

NAME_BYTES_MAX = 200
_SEGMENT = re.compile(r"[A-Za-z0-9_-]+\Z")


def check_name(name: object) -> str:
    """``name`` if it is a name of an event, otherwise :class:`DeclarationError` says which rule it breaks."""
    if not isinstance(name, str):
        raise DeclarationError(f"an event's name is a text like 'quake.recorded', not {name!r}")
    if len(name.encode("utf-8", "replace")) > NAME_BYTES_MAX:
        raise DeclarationError(f"the event name {name[:40]!r}... is longer than the {NAME_BYTES_MAX} bytes allowed")
    for segment in name.split("."):
        if not segment:
            raise DeclarationError(f"the event name {name!r} has an empty segment: write it like 'quake.recorded'")
        if not _SEGMENT.match(segment):
            raise DeclarationError(f"the event name {name!r} is wrong at {segment!r}: use ASCII letters, digits, '_' and '-'")
    return name


def is_pattern(select: object) -> bool:
    """Whether it selects several names: ``quake.*``, ``quake.>``."""
    return isinstance(select, str) and any(segment in ("*", ">") for segment in select.split("."))


def check_pattern(pattern: str) -> str:
    """``pattern`` if it is one, otherwise :class:`DeclarationError` says which rule it breaks."""
    segments = pattern.split(".")
    if ">" in segments[:-1]:
        raise DeclarationError(f"the pattern {pattern!r} has '>' before its end: it stands for the rest, so it comes last")
    check_name(".".join("x" if segment in ("*", ">") else segment for segment in segments))
    return pattern


def matches(select: str, name: str) -> bool:
    """Whether the pattern (or name) selects the event of this name: ``*`` is one segment, a last ``>`` one or more."""
    wanted, segments = select.split("."), name.split(".")
    if wanted[-1] == ">":
        wanted = wanted[:-1]
        if len(segments) <= len(wanted):
            return False
        segments = segments[: len(wanted)]
    return len(wanted) == len(segments) and all(want in ("*", have) for want, have in zip(wanted, segments))
