"""Calls that the worker makes to the node. All of it belongs to the event loop's thread."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Callable, Deque, Dict, List, Optional, Protocol

from .errors import RequestError
from .frames import Fields

if TYPE_CHECKING:
    from .tunnels import Tunnel

#: The node ends a call at its time-out and says more about it than the worker can; only when nothing has come so many
#: seconds later, the worker ends it itself.
GRACE = 1.0
#: The window of a node that does not say.
CALLS = 64
BYTES = 8 << 20


class Frames(Protocol):
    """Where frames are put to be sent."""

    def put(self, name: str, fields: Dict[str, Any]) -> int:
        """Puts a frame down; returns how long it is."""


class OpenCall:
    """A call that the node has not answered to the end."""

    __slots__ = ("number", "bytes", "answer", "answers", "tunnel")

    def __init__(self, number: int, size: int, answer: asyncio.Future[Fields], tunnel: Optional[Tunnel[Any, Any, Any]]) -> None:
        self.number = number
        self.bytes = size
        #: Becomes the fields of the last ``response``.
        self.answer = answer
        #: Responses with ``more``, before the last one.
        self.answers: List[Fields] = []
        self.tunnel = tunnel


class Calls:
    """Numbers calls, keeps them within the node's window, and finds the call that a response answers."""

    def __init__(self, outbox: Frames, schedule_flush: Callable[[], None]) -> None:
        self._outbox = outbox
        self._schedule_flush = schedule_flush
        self._open: Dict[int, OpenCall] = {}
        self._open_bytes = 0
        self._next = 1
        self._calls_max = CALLS
        self._bytes_max = BYTES
        self._waiting: Deque[asyncio.Future[None]] = deque()
        self._closed: Optional[RequestError] = None

    def set_window(self, fields: Any) -> None:
        """What ``welcome`` or ``window`` says that the node takes at once."""
        if isinstance(fields, dict):
            calls, size = fields.get("calls"), fields.get("bytes")
            self._calls_max = CALLS if calls is None else int(calls)
            self._bytes_max = BYTES if size is None else int(size)
            self._let_in()

    def find(self, number: Any) -> Optional[OpenCall]:
        """The open call of this number."""
        return self._open.get(number)

    def was_made(self, number: Any) -> bool:
        """Whether the number is of a call that was made, open or not."""
        return isinstance(number, int) and 0 < number < self._next and number % 2 == 1

    async def make(
        self, verb: str, fields: Fields, size: int, tunnel: Optional[Tunnel[Any, Any, Any]] = None
    ) -> OpenCall:
        """Makes a call as soon as the window has room, in the order of asking. ``size``: the bytes of its payload."""
        if self._waiting or not self._has_room():
            await self._wait_for_room()
        if self._closed is not None:
            raise self._closed
        number = self._next
        self._next += 2
        call = OpenCall(number, size, asyncio.get_running_loop().create_future(), tunnel)
        if tunnel is not None:
            tunnel.number = number
        self._outbox.put(verb, {"id": number, **fields})
        self._open[number] = call
        self._open_bytes += size
        self._schedule_flush()
        return call

    async def wait(self, call: OpenCall, timeout: Optional[float]) -> Fields:
        """The answer to a call; cancels the call when the task that waits is cancelled, or nothing comes in time."""
        answer = call.answer
        try:
            if timeout is None:
                return await asyncio.shield(answer)
            return await asyncio.wait_for(asyncio.shield(answer), timeout + GRACE)
        except asyncio.TimeoutError:
            self.cancel(call)
            raise RequestError("timed_out", f"the node has not answered within {timeout:.3f} s") from None
        except asyncio.CancelledError:
            self.cancel(call)
            raise

    def cancel(self, call: OpenCall) -> None:
        """Says that nobody waits for the call any more. It stays in the window until the node has answered it."""
        if call.number in self._open:
            self._outbox.put("cancel", {"id": call.number})
            self._schedule_flush()

    def on_response(self, fields: Fields) -> bool:
        """A ``response`` has come. Returns false when no open call has its number."""
        call = self._open.get(fields["id"])
        if call is None:
            return False
        if fields.get("more"):
            call.answers.append(fields)
            return True
        del self._open[call.number]
        self._open_bytes -= call.bytes
        if not call.answer.done():
            call.answer.set_result(fields)
        if call.tunnel is not None:
            call.tunnel.on_response(fields)
        self._let_in()
        return True

    def close(self, error: RequestError) -> None:
        """Ends all open calls with this error, and all later ones."""
        self._closed = error
        for number in list(self._open):
            self.on_response({"id": number, "error": {"code": error.code, "message": error.message}})
        self._let_in()

    def reopen(self) -> None:
        """Calls can be made again after :meth:`close`."""
        self._closed = None

    def _has_room(self) -> bool:
        # One call may go beyond the bytes, so a payload larger than the window gets through.
        return len(self._open) < self._calls_max and self._open_bytes < self._bytes_max

    async def _wait_for_room(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            while self._closed is None and not (self._waiting[0] is turn and self._has_room()):
                await turn
                index = self._waiting.index(turn)
                turn = asyncio.get_running_loop().create_future()
                self._waiting[index] = turn
        finally:
            self._waiting.remove(turn)
            self._let_in()

    def _let_in(self) -> None:
        """Lets the first in line look whether it has room, or everybody when there is nothing to wait for any more."""
        for turn in self._waiting:
            if not turn.done():
                turn.set_result(None)
            if self._closed is None:
                break
