"""A client: a program that sends events to a node through its gateway, and is given those that it subscribes to.

::

    async with edri_sdk.connect("ws://127.0.0.1:8080", token="...") as client:
        risk = await client.request("risk.assess", {"region": "north"})
        async with client.subscribe("quake.>", conditions={"magnitude": {"gte": 5}}) as quakes:
            async for quake in quakes:
                print(quake.name, quake.payload, quake.missed)

A connection that breaks is made again, and the session goes on: no event is lost and none comes twice. When the node has
not kept it, calls end with ``peer_lost``, and subscriptions begin again, which :attr:`Received.gap` tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, AsyncIterator, Deque, Dict, Generator, Iterable, Iterator, Mapping, Optional, Tuple, Type

from . import __version__
from .calls import Calls, OpenCall
from .context import Context, SyncContext
from .errors import ConnectError, EdriError, NodeGone, RequestError, TunnelBroken, clean
from .events import Event
from .frames import VERSION, Fields, encode, pack, unpack_frame
from .frames import unpack as unpack_payload
from .sending import Sending
from .websocket import Pauses, Token, address_of, library, options, refusal

_log = logging.getLogger("edri_sdk")
_PREFIX_BYTES = 4
#: The node is told what has come after so many frames, or so many seconds.
_ACK_FRAMES = 64
_ACK_TIME = 0.2
#: How many events of a subscription the node may send before they are taken, unless it is said.
_BUFFER = 1024


@dataclass(frozen=True)
class Received:
    """An event of a subscription."""

    name: str
    #: A dataclass when the subscription named a declared event, otherwise plain.
    payload: Any
    #: How many were left out just before it, because they were not taken fast enough.
    missed: int = 0
    #: Whether an unknown number may have been lost before it: the node had not kept the session.
    gap: bool = False
    id: Optional[str] = None
    key: Optional[str] = None
    origin: Optional[str] = None
    cause: Optional[str] = None
    trace: Optional[str] = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Subscription:
    """Events as they come: ``async for event in subscription``; ``await subscription.next()`` gives one.

    What is not taken waits here, at most ``buffer`` of them, and then at the node, at most ``capacity``.
    """

    def __init__(self, session: ClientSession, event: Optional[Event[Any]], fields: Fields, buffer: int) -> None:
        self._session = session
        self._event = event
        self._fields = fields
        self._buffer = buffer
        self._arrived: Deque[Received] = deque()
        self._taken = 0
        self._missed, self._gap = 0, False
        self._ended: Optional[EdriError] = None
        self._waiter: Optional[asyncio.Future[None]] = None
        self._number = 0
        #: How many events were left out in all.
        self.missed = 0

    async def __aenter__(self) -> Subscription:
        await self._begin()
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    async def _begin(self) -> None:
        """Raises :class:`RequestError` when the node refuses it."""
        session = self._session
        call = await session.calls.make("subscribe", {**self._fields, "credit": self._buffer}, 0)
        # Events may come in the same breath as the answer.
        self._number = call.number
        session.subscriptions[call.number] = self
        try:
            session.value_of(await session.calls.wait(call, None), None, "the subscription")
        except BaseException:
            session.subscriptions.pop(call.number, None)
            raise

    def close(self) -> None:
        """Ends the subscription. Whoever waits for the next event learns that it is the end."""
        if self._session.subscriptions.pop(self._number, None) is not None:
            self._session.put("unsubscribe", {"id": self._number})
        self._end(NodeGone("the subscription has ended"))

    async def next(self) -> Received:
        """The next event. Raises :class:`EdriError` at the end."""
        while not self._arrived:
            if self._ended is not None:
                raise self._ended
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self._taken += 1
        if self._taken * 2 >= self._buffer and self._ended is None:
            self._session.put("credit", {"id": self._number, "items": self._taken})
            self._taken = 0
        return self._arrived.popleft()

    def __aiter__(self) -> AsyncIterator[Received]:
        return self

    async def __anext__(self) -> Received:
        try:
            return await self.next()
        except NodeGone:
            raise StopAsyncIteration from None

    # ---- for the session -------------------------------------------------------------------------------------------

    def on_event(self, fields: Fields) -> None:
        """An event has come."""
        try:
            payload = unpack_payload(fields.get("payload"))
            if self._event is not None:
                payload = self._event.payload.read(payload)
        except (ValueError, EdriError) as error:
            _log.warning("an event %s is left out: %s", fields.get("event"), error)
            self.on_missed(1)
            return
        get = fields.get
        missed, gap = self._missed, self._gap
        self._missed, self._gap = 0, False
        headers = get("headers") or {}
        event = Received(
            str(fields["event"]), payload, missed, gap, get("event_id"), get("key"), get("origin"), get("cause"), get("trace"), headers
        )
        self._arrived.append(event)
        self._wake()

    def on_missed(self, count: int) -> None:
        """So many were left out before the next."""
        self._missed += count
        self.missed += count

    async def begin_again(self) -> None:
        """In a new session."""
        self._gap, self._taken = True, len(self._arrived)
        try:
            await self._begin()
        except RequestError as error:
            if error.code != "peer_lost":
                self._end(error)

    def _end(self, error: EdriError) -> None:
        if self._ended is None:
            self._ended = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Sent:
    """Frames that the node has not acknowledged, in order, and how far they are on their way."""

    def __init__(self) -> None:
        self._frames: Deque[bytes] = deque()
        #: How many frames were acknowledged, and how many were given out.
        self._first, self._next = 0, 0
        self._waiter: Optional[asyncio.Future[None]] = None

    def put(self, name: str, fields: Dict[str, Any]) -> int:
        """Adds a frame."""
        frame = encode(name, fields)[_PREFIX_BYTES:]
        self._frames.append(frame)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        return len(frame)

    async def next(self) -> bytes:
        """The next frame to be sent."""
        while self._next - self._first >= len(self._frames):
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        frame = self._frames[self._next - self._first]
        self._next += 1
        return frame

    def received(self, count: int) -> None:
        """The node has so many."""
        if not self._first <= count <= self._next:
            raise EdriError(f"the node says that it has {count} frames, and {self._first} to {self._next} are possible")
        while self._first < count:
            self._frames.popleft()
            self._first += 1

    def reconnect(self, count: int) -> None:
        """The node has so many, and is sent the others again."""
        self.received(count)
        self._next = count

    def clear(self) -> None:
        """A new session has begun."""
        self._frames.clear()
        self._first, self._next = 0, 0


class ClientSession(Sending):
    """A session, and its connections one after another. It belongs to an event loop."""

    HOW_TO_DECLARE = "name the event first, as in client.request(event, payload), or give it to connect(events=[...])"

    def __init__(self, url: str, token: Token, ssl: Any, events: Iterable[Event[Any]]) -> None:
        self._url = address_of(url)
        self._token, self._ssl = token, ssl
        self.begin_sending(events)
        self._outbox = _Sent()
        self.calls = Calls(self._outbox, lambda: None)
        self.subscriptions: Dict[int, Subscription] = {}
        self.node, self.manager, self.instance, self.arguments = "", "", 0, None
        self._id: Optional[str] = None
        self._keep = 0.0
        self._silence = 30.0
        self._received, self._told = 0, 0
        self._line: Any = None
        self._much_came: asyncio.Event
        self._closing = False
        self._task: Optional[asyncio.Task[None]] = None
        self._beginning: "set[asyncio.Task[None]]" = set()

    def put(self, name: str, fields: Fields) -> None:
        self._outbox.put(name, fields)

    def announce(self, declaration: Fields) -> None:
        """A client declares nothing: it reaches what is exposed."""

    # ---- connections -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connects for the first time. Raises :class:`ConnectError` when it is refused, :class:`NodeGone` when nobody is there."""
        self.loop, self._thread = asyncio.get_running_loop(), threading.current_thread()
        self._much_came = asyncio.Event()
        line = await self._dial()
        self._task = self.loop.create_task(self._keep_up(line))

    async def close(self) -> None:
        """Says ``bye`` and ends: calls that are open end with ``stopping``."""
        self._closing = True
        self.calls.close(RequestError("stopping", "the client was closed"))
        self._end_subscriptions(NodeGone("the client was closed"))
        if self._line is not None:
            # The node has what was sent before, and answers with its own.
            self.put("bye", {})
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=5.0 if self._line is not None else 0.0)
            self._task.cancel()
            await asyncio.gather(self._task, *self._beginning, return_exceptions=True)

    async def _dial(self) -> Any:
        """A connection on which the node has said welcome."""
        websockets = library()
        try:
            line = await websockets.asyncio.client.connect(self._url, **options(self._token, self._ssl))
        except (OSError, EOFError, asyncio.TimeoutError, websockets.exceptions.WebSocketException) as error:
            raise refusal(error, again=self._id is not None) or NodeGone(f"{self._url}: {error or type(error).__name__}") from error
        try:
            session = {} if self._id is None else {"id": self._id, "received": self._received}
            agent = f"edri-sdk-python {__version__}"
            hello = {"version": VERSION, "role": "client", "agent": agent, "session": session}
            await line.send(encode("hello", hello)[_PREFIX_BYTES:])
            name, fields = unpack_frame(await asyncio.wait_for(line.recv(), 30.0))
            if name == "error":
                raise _refused(fields)
            if name != "welcome":
                raise NodeGone(f"{self._url} says {name} where welcome was expected")
            self._welcome(fields)
        except (OSError, EOFError, asyncio.TimeoutError, websockets.exceptions.WebSocketException) as error:
            raise NodeGone(f"{self._url}: {error or type(error).__name__}") from error
        except BaseException:
            await line.close()
            raise
        return line

    def _welcome(self, fields: Fields) -> None:
        session = fields.get("session") or {}
        self.node = str(fields["node"])
        self._frame_bytes_max = int(fields["frame_bytes_max"])
        self._silence = max(0.1, int(fields["silence_ms"]) / 1000)
        self._keep = int(session.get("keep_ms") or 0) / 1000
        again = self._id is not None
        self._id = session.get("id")
        if again and session.get("resumed"):
            self._outbox.reconnect(int(session.get("received") or 0))
            self._told = self._received
            return
        if again:
            self._lose("the node has not kept the session")
        self._outbox.clear()
        self._received = self._told = 0
        self.calls.reopen()
        self.calls.set_window(fields.get("window"))
        subscriptions = list(self.subscriptions.values())
        self.subscriptions.clear()
        for subscription in subscriptions:
            task = self.loop.create_task(subscription.begin_again())
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)

    def _lose(self, why: str) -> None:
        self.calls.close(RequestError("peer_lost", why))

    async def _keep_up(self, line: Any) -> None:
        """Serves one connection after another."""
        pauses = Pauses()
        while True:
            began = time.monotonic()
            why = await self._serve(line)
            if self._closing:
                return
            _log.info("the connection to %s is lost: %s", self._url, why)
            lost = time.monotonic()
            if lost - began > 10:
                pauses.reset()
            while True:
                try:
                    line = await self._dial()
                    break
                except ConnectError as error:
                    if error.code not in ("overloaded", "stopping", "timed_out"):
                        self._lose(str(error))
                        self._end_subscriptions(error)
                        return
                except EdriError as error:
                    _log.debug("no connection to %s: %s", self._url, error)
                if time.monotonic() - lost > self._keep:
                    # Nobody waits for ever.
                    self._lose(f"there is no connection to {self._url}")
                await asyncio.sleep(pauses.next())

    async def _serve(self, line: Any) -> str:
        """Reads and writes until the connection ends; why it did."""
        self._line = line
        writing = self.loop.create_task(self._write(line))
        telling = self.loop.create_task(self._tell(line))
        why = "it was closed"
        try:
            async for message in line:
                if not self._on_message(message):
                    why = "the node said bye"
                    break
        except EdriError as error:
            why = str(error)
        except Exception as error:  # Of the library, and of frames that are none.
            why = f"{type(error).__name__}: {error}"
        finally:
            self._line = None
            for task in (writing, telling):
                task.cancel()
            await asyncio.gather(writing, telling, return_exceptions=True)
            with contextlib.suppress(Exception):
                await line.close()
        return why

    async def _write(self, line: Any) -> None:
        with contextlib.suppress(Exception):  # Whoever reads finds the end.
            while True:
                await line.send(await self._outbox.next())
        with contextlib.suppress(Exception):
            await line.close()

    async def _tell(self, line: Any) -> None:
        """Tells the node now and then what has come. Alone: an older count must not follow a newer."""
        with contextlib.suppress(Exception):  # Whoever reads finds the end.
            while True:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._much_came.wait(), _ACK_TIME)
                self._much_came.clear()
                if self._told < self._received:
                    self._told = self._received
                    await line.send(encode("ack", {"received": self._told})[_PREFIX_BYTES:])

    # ---- what comes ------------------------------------------------------------------------------------------------

    def _on_message(self, message: Any) -> bool:
        """Takes a frame; false when it is the last."""
        name, fields = unpack_frame(message)
        if name == "ack" and fields.get("received") is not None:
            self._outbox.received(int(fields["received"]))
            return True
        self._received += 1
        if self._received - self._told >= _ACK_FRAMES:
            self._much_came.set()
        if name == "publish":
            subscription = self.subscriptions.get(fields.get("subscription") or 0)
            if subscription is not None:
                subscription.on_event(fields)
        elif name == "missed":
            subscription = self.subscriptions.get(fields["id"])
            if subscription is not None:
                subscription.on_missed(int(fields["count"]))
        elif name == "response":
            self.calls.on_response(fields)
        elif name in ("data", "credit", "end", "abort"):
            self._on_tunnel(name, fields)
        elif name == "ping":
            self.put("pong", {"id": fields.get("id") or 0})
        elif name == "error":
            self._on_error(fields)
        elif name == "bye":
            error = fields.get("error")
            if isinstance(error, dict):
                _log.warning("the node ends the session: %s: %s", error.get("code"), error.get("message"))
                return False
            # What is open is finished still, unless this is the answer to ours.
            return not self._closing
        return True

    def _on_tunnel(self, name: str, fields: Fields) -> None:
        call: Optional[OpenCall] = self.calls.find(fields["id"])
        tunnel = None if call is None else call.tunnel
        if tunnel is None:
            return
        if name == "data":
            tunnel.on_data(fields)
        elif name == "credit":
            tunnel.on_credit(fields)
        elif name == "end":
            tunnel.on_end()
        else:
            reason = RequestError.of_fault(fields.get("failure"))
            tunnel.break_with(TunnelBroken(reason.code, reason.message, reason.detail, is_failure=True))

    def _on_error(self, fields: Fields) -> None:
        code, message = str(fields.get("code")), str(fields.get("message") or "")
        number = fields.get("id")
        if self.calls.find(number) is not None:
            self.calls.on_response({"id": number, "error": {"code": code, "message": message}})
        else:
            _log.warning("the node says %s: %s", code, message)

    def _end_subscriptions(self, error: EdriError) -> None:
        for subscription in list(self.subscriptions.values()):
            subscription._end(error)
        self.subscriptions.clear()


def _refused(fields: Fields) -> EdriError:
    code, message = str(fields.get("code")), clean(str(fields.get("message") or ""))
    return ConnectError(code, message)


class Client(Context):
    """A client of a node: the verbs of a worker's :class:`Context`, and :meth:`subscribe`. :func:`connect` makes it."""

    def __init__(self, session: ClientSession) -> None:
        super().__init__(session, {}, 0.0)  # type: ignore[arg-type]
        self._client = session

    def subscribe(
        self,
        event: Any,
        *,
        key: Optional[str] = None,
        conditions: Optional[Mapping[str, Mapping[str, Any]]] = None,
        capacity: int = 0,
        buffer: int = _BUFFER,
        slow: str = "missed",
    ) -> Subscription:
        """``async with client.subscribe("quake.>") as events``: the events of a name, a pattern or a declaration, from then on.

        ``key``: only with this key; ``conditions``: only those whose payload holds all of them, as ``{"magnitude": {"gte": 5}}``.
        ``buffer``: how many may wait here; ``capacity``: how many beyond may wait at the node, 1,024 when it is 0. When more
        come, the oldest are left out and counted (``slow="missed"``), or the session ends (``"bye"``).
        """
        known = event if isinstance(event, Event) else None
        fields: Fields = {"select": known.name if known is not None else str(event)}
        if key is not None:
            fields["key"] = key
        if conditions is not None:
            fields["conditions"] = pack(conditions)
        if capacity:
            fields["capacity"] = capacity
        if slow != "missed":
            fields["slow"] = slow
        return Subscription(self._client, known, fields, max(1, buffer))

    async def close(self) -> None:
        """Ends the session and all that is open in it."""
        await self._client.close()


class SyncSubscription:
    """``with client.subscribe(...) as events: for event in events``; see :class:`Subscription`."""

    def __init__(self, session: ClientSession, subscription: Subscription) -> None:
        self._session = session
        self._subscription = subscription

    @property
    def missed(self) -> int:
        """How many events were left out in all."""
        return self._subscription.missed

    def __enter__(self) -> SyncSubscription:
        self._session.run_blocking(self._subscription.__aenter__())
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._session.run_blocking(self._subscription.__aexit__(None, None, None))

    def next(self, timeout: Optional[float] = None) -> Received:
        """The next event. Raises ``TimeoutError`` when none comes within ``timeout`` seconds, :class:`EdriError` at the end."""

        async def wait() -> Received:
            return await asyncio.wait_for(self._subscription.next(), timeout)

        try:
            return self._session.run_blocking(wait())
        except asyncio.TimeoutError:
            raise TimeoutError(f"no event came within {timeout} s") from None

    def __iter__(self) -> Iterator[Received]:
        while True:
            try:
                yield self.next()
            except NodeGone:
                return


class SyncClient(SyncContext):
    """A client for plain functions: the same verbs, and they block. ``with edri_sdk.connect(...) as client``."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self._client = client

    def subscribe(self, event: Any, **options: Any) -> SyncSubscription:
        """As :meth:`Client.subscribe`, with a plain ``with`` and ``for``."""
        return SyncSubscription(self._client._client, self._client.subscribe(event, **options))


class Connecting:
    """A connection that is about to be made: ``async with``, ``await``, or a plain ``with``."""

    def __init__(self, url: str, token: Token, ssl: Any, events: Iterable[Event[Any]]) -> None:
        self._made = (url, token, ssl, tuple(events))
        self._client: Optional[Client] = None
        self._thread: Optional[Tuple[threading.Thread, asyncio.AbstractEventLoop]] = None

    async def _connect(self) -> Client:
        session = ClientSession(*self._made)
        await session.start()
        self._client = Client(session)
        return self._client

    def __await__(self) -> Generator[Any, None, Client]:
        return self._connect().__await__()

    async def __aenter__(self) -> Client:
        return await self._connect()

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if self._client is not None:
            await self._client.close()

    def __enter__(self) -> SyncClient:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="edri-client", daemon=True)
        thread.start()
        self._thread = thread, loop
        try:
            return SyncClient(asyncio.run_coroutine_threadsafe(self._connect(), loop).result())
        except BaseException:
            self._end_thread()
            raise

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if self._thread is not None and self._client is not None:
            asyncio.run_coroutine_threadsafe(self._client.close(), self._thread[1]).result()
        self._end_thread()

    def _end_thread(self) -> None:
        if self._thread is not None:
            thread, loop = self._thread
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
            self._thread = None


def connect(url: str, *, token: Token = None, ssl: Any = None, events: Iterable[Event[Any]] = ()) -> Connecting:
    """Connects to a node's gateway (``ws://host:port``) as a client.

    ``async with edri_sdk.connect(url) as client`` gives a :class:`Client`, a plain ``with`` a :class:`SyncClient`, whose verbs
    block. ``token``: a text, or a function that gives one for each connection; ``ssl``: an ``ssl.SSLContext``, for ``wss``;
    ``events``: declarations, so that instances of their dataclasses can be sent without naming the event.

    Raises :class:`ConnectError` when the gateway refuses, :class:`EdriError` when nobody is there.
    """
    library()
    return Connecting(url, token, ssl, events)
