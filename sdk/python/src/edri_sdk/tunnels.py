"""Both ends of a tunnel."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any, AsyncIterator, Deque, Generic, Iterator, List, Optional, Type, TypeVar

from .errors import Failure, Mismatch, RequestError, TunnelBroken, TunnelEnded, fault
from .frames import Fields, pack, unpack
from .shape import Shape

if TYPE_CHECKING:
    from .calls import OpenCall
    from .events import TunnelEvent
    from .session import Session

#: What one direction may have on its way before the receiver has taken it.
ITEMS = 64
BYTES = 1 << 20

Out = TypeVar("Out")
In = TypeVar("In")
Result = TypeVar("Result")


class Tunnel(Generic[Out, In, Result]):
    """A stream of items in both directions, each in order and with credit.

    ``async for item in tunnel`` gives what the other side sends, until it has finished; ``await tunnel.send(item)`` waits
    until the other side is ready to take more. When the tunnel breaks, both raise :class:`TunnelBroken`.
    """

    def __init__(self, session: Session, event: Optional[TunnelEvent[Any, Any, Any, Any]], name: str, is_opener: bool) -> None:
        self.name = name
        self.number = 0
        self._session = session
        self._is_opener = is_opener
        unknown = Shape(None, None, Any)
        self._out: Shape = unknown if event is None else (event.up if is_opener else event.down)
        self._in: Shape = unknown if event is None else (event.down if is_opener else event.up)
        # What came and was not taken, and how much more may come.
        self._arrived: Deque[bytes] = deque()
        self._may_come_items, self._may_come_bytes = ITEMS, BYTES
        self._taken_items, self._taken_bytes, self._taken = 0, 0, 0
        self._discards = False
        # How much the other side takes.
        self._credit_items, self._credit_bytes = 0, 0
        self._finished = False
        self._ended = False
        self._broken: Optional[RequestError] = None
        self._waiters: List[asyncio.Future[None]] = []

    # ---- sending ---------------------------------------------------------------------------------------------------

    async def send(self, item: Out) -> None:
        """Sends an item; waits while the other side is not ready to take one."""
        self._out.check(item, f"an item of {self.name}")
        payload = pack(item)
        self._session.check_length(len(payload), f"an item of {self.name}")
        while True:
            if self._broken is not None:
                raise self._broken
            if self._finished:
                raise TunnelBroken("finished", f"{self.name}: this side has finished, so it sends no more")
            if self._credit_items > 0 and self._credit_bytes > 0:
                break
            await self._change()
        self._credit_items -= 1
        self._credit_bytes -= len(payload)
        self._put("data", {"payload": payload})

    async def finish(self) -> None:
        """Says that nothing more comes from this side. The other side may go on."""
        if self._finished or self._broken is not None:
            return
        self._finished = True
        self._put("end", {})
        self._notify()

    async def abort(self, code: str, message: str = "") -> None:
        """Breaks the tunnel in both directions; the other side learns the reason."""
        if self._broken is None:
            self._put("abort", {"failure": fault(code, message)})
            self.break_with(TunnelBroken(code, message, is_failure=True))

    # ---- receiving -------------------------------------------------------------------------------------------------

    async def recv(self) -> In:
        """The next item. Raises :class:`TunnelEnded` when the other side has finished."""
        while not self._arrived:
            if self._broken is not None:
                raise self._broken
            if self._ended:
                raise TunnelEnded(f"{self.name}: the other side has finished")
            await self._change()
        payload = self._arrived.popleft()
        self._take(payload)
        try:
            value: In = self._in.read(unpack(payload))
        except (ValueError, Mismatch) as error:
            text = f"{self.name}, item {self._taken}: {error}"
            raise (RequestError if self._is_opener else Failure)("invalid_payload", text) from None
        return value

    def __aiter__(self) -> AsyncIterator[In]:
        return self

    async def __anext__(self) -> In:
        try:
            return await self.recv()
        except TunnelEnded:
            raise StopAsyncIteration from None

    def _take(self, payload: bytes) -> None:
        """Counts an item as taken, and gives credit once half of what was given is used up."""
        self._taken += 1
        self._taken_items += 1
        self._taken_bytes += len(payload)
        if self._ended or self._broken is not None:
            return
        if self._taken_items >= ITEMS // 2 or self._taken_bytes >= BYTES // 2:
            self.give_credit(self._taken_items, self._taken_bytes)
            self._taken_items, self._taken_bytes = 0, 0

    # ---- what comes from the node ----------------------------------------------------------------------------------

    def give_credit(self, items: int, size: int, at_first: bool = False) -> None:
        """Lets the other side send so much more; ``at_first`` what it may send at all."""
        if not at_first:
            self._may_come_items += items
            self._may_come_bytes += size
        self._put("credit", {"items": items, "bytes": size})

    def on_data(self, fields: Fields) -> bool:
        """An item came; false when it came without credit, and the tunnel is broken then."""
        payload = fields["payload"]
        if type(payload) is not bytes:
            raise ValueError("the payload of data is no byte string")
        if self._broken is not None or self._ended:
            return True
        if self._may_come_items <= 0 or self._may_come_bytes <= 0:
            reason = f"{self.name}: the other side sent an item without credit"
            self._put("abort", {"failure": fault("no_credit", reason)})
            self.break_with(TunnelBroken("no_credit", reason))
            return False
        self._may_come_items -= 1
        self._may_come_bytes -= len(payload)
        if self._discards:
            self._take(payload)
        else:
            self._arrived.append(payload)
            self._notify()
        return True

    def on_credit(self, fields: Fields) -> None:
        """The other side takes more."""
        self._credit_items += int(fields.get("items") or 0)
        self._credit_bytes += int(fields.get("bytes") or 0)
        self._notify()

    def on_end(self) -> None:
        """The other side has finished."""
        self._ended = True
        self._notify()

    def on_response(self, fields: Fields) -> None:
        """The worker at the other end has returned: its direction ends, or the tunnel breaks."""
        for kind in ("failure", "error"):
            if fields.get(kind) is not None:
                self.break_with(RequestError.of_fault(fields[kind], kind == "failure"))
        self._finished = True
        self.on_end()

    def break_with(self, error: RequestError) -> None:
        """Nothing goes in either direction any more. What came before can still be read."""
        if self._broken is None:
            self._broken = error
            self._notify()

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _put(self, name: str, fields: Fields) -> None:
        self._session.put(name, {"id": self.number, **fields})

    async def _change(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _notify(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class OpenedTunnel(Tunnel[Out, In, Result]):
    """The end of whoever opened the tunnel: it also has a result."""

    def __init__(self, session: Session, event: Optional[TunnelEvent[Any, Any, Any, Any]], name: str) -> None:
        super().__init__(session, event, name, is_opener=True)
        self._output: Shape = Shape(None, None, Any) if event is None else event.output
        self._call: Optional[OpenCall] = None

    async def result(self) -> Result:
        """Finishes this side and waits for what the worker returns. Items that still come are dropped.

        Raises :class:`RequestError` when there is no result.
        """
        if self._call is None:
            raise RuntimeError(f"{self.name}: open the tunnel with `async with cx.open(...) as tunnel`")
        await self.finish()
        self._discards = True
        while self._arrived:
            self._take(self._arrived.popleft())
        if isinstance(self._broken, TunnelBroken):
            raise self._broken
        fields = await self._session.calls.wait(self._call, None)
        result: Result = self._session.value_of(fields, self._output, f"the result of {self.name}")
        return result

    def opened_as(self, call: OpenCall) -> None:
        """The call that opened it."""
        self._call = call

    async def drop(self) -> None:
        """Ends the tunnel when it has not ended: the worker at the other end is told that nobody waits."""
        if self._call is not None and not self._call.answer.done():
            self._session.calls.cancel(self._call)
            self.break_with(TunnelBroken("cancelled", f"{self.name} was dropped by its opener"))


class Opening(Generic[Out, In, Result]):
    """A tunnel that is about to be opened: ``async with cx.open(...) as tunnel``. The end of the block drops it."""

    def __init__(self, tunnel: OpenedTunnel[Out, In, Result], fields: Fields, size: int) -> None:
        self._tunnel = tunnel
        self._fields = fields
        self._size = size

    async def __aenter__(self) -> OpenedTunnel[Out, In, Result]:
        calls = self._tunnel._session.calls
        self._tunnel.opened_as(await calls.make("open", self._fields, self._size, self._tunnel))
        return self._tunnel

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self._tunnel.drop()


class SyncTunnel(Generic[Out, In, Result]):
    """A tunnel for plain functions: the same verbs, and they block."""

    def __init__(self, session: Session, tunnel: Tunnel[Out, In, Result]) -> None:
        self._session = session
        self._tunnel = tunnel

    def send(self, item: Out) -> None:
        """As :meth:`Tunnel.send`."""
        self._session.run_blocking(self._tunnel.send(item))

    def recv(self) -> In:
        """As :meth:`Tunnel.recv`."""
        return self._session.run_blocking(self._tunnel.recv())

    def finish(self) -> None:
        """As :meth:`Tunnel.finish`."""
        self._session.run_blocking(self._tunnel.finish())

    def abort(self, code: str, message: str = "") -> None:
        """As :meth:`Tunnel.abort`."""
        self._session.run_blocking(self._tunnel.abort(code, message))

    def result(self) -> Result:
        """As :meth:`OpenedTunnel.result`."""
        if not isinstance(self._tunnel, OpenedTunnel):
            raise RuntimeError(f"{self._tunnel.name}: only who opened a tunnel has its result")
        result: Result = self._session.run_blocking(self._tunnel.result())
        return result

    def __iter__(self) -> Iterator[In]:
        while True:
            try:
                yield self.recv()
            except TunnelEnded:
                return


class SyncOpening(Generic[Out, In, Result]):
    """``with cx.open(...) as tunnel`` in a plain function."""

    def __init__(self, session: Session, opening: Opening[Out, In, Result]) -> None:
        self._session = session
        self._opening = opening

    def __enter__(self) -> SyncTunnel[Out, In, Result]:
        return SyncTunnel(self._session, self._session.run_blocking(self._opening.__aenter__()))

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._session.run_blocking(self._opening.__aexit__(kind, error, trace))
