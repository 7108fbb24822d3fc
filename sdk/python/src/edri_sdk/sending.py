"""What whoever sends over a connection shares: events by their names and types, and values out of responses."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Coroutine, Dict, Iterable, List, Optional, Set, Tuple, TypeVar

from .calls import Calls
from .errors import Mismatch, RequestError
from .events import FRAME_OF_KIND, Event
from .frames import FRAME_BYTES_MAX, Fields, unpack
from .names import check_name
from .shape import Shape

T = TypeVar("T")

#: Payloads longer than this are measured against the limit of the node; a frame around one is never as long again.
LARGE = 512 << 10
_AROUND = 64 << 10


class Sending:
    """One side of a connection that sends events: a worker, or a client."""

    #: What to do about a type that belongs to no event.
    HOW_TO_DECLARE = "declare one with worker.sends(...)"

    calls: Calls
    loop: asyncio.AbstractEventLoop
    node: str
    manager: str
    instance: int
    arguments: Any

    def begin_sending(self, events: Iterable[Event[Any]]) -> None:
        """Knows these events from the beginning."""
        self._thread = threading.current_thread()
        self._frame_bytes_max = FRAME_BYTES_MAX
        self._declared: Set[str] = set()
        self._events: Dict[str, Event[Any]] = {}
        self._events_of_type: Dict[type, List[Event[Any]]] = {}
        for event in events:
            self._know(event)

    def put(self, name: str, fields: Fields) -> None:
        """Sends a frame."""
        raise NotImplementedError

    def announce(self, declaration: Fields) -> None:
        """An event is about to be sent for the first time."""
        raise NotImplementedError

    def fits(self, size: int) -> bool:
        """Whether a payload fits into a frame."""
        return size + _AROUND <= self._frame_bytes_max

    def check_length(self, size: int, what: str) -> None:
        """Raises :class:`RequestError` when a payload does not fit into a frame."""
        if size > LARGE and not self.fits(size):
            raise RequestError("frame_too_long", f"{what} has {size} bytes, and {self._frame_bytes_max} is the most for a frame")

    def run_blocking(self, work: Coroutine[Any, Any, T]) -> T:
        """In a thread of a plain handler: runs the coroutine in the event loop and waits for it."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a context of a plain function would block the event loop here: use it in that function only")
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def resolve(self, kind: str, event: Any, payload: Any, is_alone: bool) -> Tuple[str, Optional[Event[Any]], Any]:
        """The name, declaration and payload of an event to send, declared to the node if it is new."""
        known: Optional[Event[Any]]
        if isinstance(event, Event):
            known, name = event, event.name
            if name not in self._declared:
                self._know(event)
                self.announce(event.declaration())
        elif isinstance(event, str):
            name, known = event, self._events.get(event)
            if known is None and name not in self._declared:
                check_name(name)
                self._declared.add(name)
                self.announce({"name": name, "kind": kind})
        elif is_alone:
            known, payload = self._event_of(kind, event), event
            name = known.name
        else:
            raise TypeError(f"an event is named by its declaration or its name, not {event!r}")
        if known is not None and known.kind != kind:
            raise RequestError("wrong_kind", f"{name} is a {known.kind}: use cx.{FRAME_OF_KIND[known.kind]}")
        return name, known, payload

    def _event_of(self, kind: str, payload: Any) -> Event[Any]:
        found = [event for event in self._events_of_type.get(type(payload), ()) if event.kind == kind]
        if len(found) == 1:
            return found[0]
        cls = type(payload).__name__
        if found:
            names = " and ".join(event.name for event in found)
            raise TypeError(f"{cls} is the payload of {names}: give the event first, as in cx.{FRAME_OF_KIND[kind]}(event, payload)")
        raise TypeError(f"{cls} is the payload of no {kind} that is known here: {self.HOW_TO_DECLARE}")

    def _know(self, event: Event[Any]) -> None:
        self._declared.add(event.name)
        self._events[event.name] = event
        if event.payload.type is not None:
            self._events_of_type.setdefault(event.payload.type, []).append(event)

    def value_of(self, response: Fields, shape: Optional[Shape], what: str) -> Any:
        """The value of a response; raises :class:`RequestError` when it is a failure or an error."""
        if response.get("error") is not None:
            raise RequestError.of_fault(response["error"])
        if response.get("failure") is not None:
            raise RequestError.of_fault(response["failure"], is_failure=True)
        try:
            plain = unpack(response.get("value"))
            return plain if shape is None else shape.read(plain)
        except (ValueError, Mismatch) as error:
            raise RequestError("invalid_payload", f"{what}: {error}") from None
