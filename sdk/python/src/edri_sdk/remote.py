"""A worker over a network: it connects to the gateway of a node by WebSocket, and again when it has lost it.

The session is that of a process, on one end of a pair of local sockets. A thread of its own carries frames between the other
end and the WebSocket, so that the connection is served whatever handlers do::

    gateway <- WebSocket -> thread <- local sockets -> Session
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any, List, Optional

from .errors import ConnectError, NodeGone, ProtocolError
from .logs import NodeHandler
from .session import Session
from .websocket import Pauses, Token, address_of, library, options, refusal

if TYPE_CHECKING:
    from .worker import Worker

_log = logging.getLogger("edri_sdk")
_PREFIX = struct.Struct(">I")
#: Codes of refusals that another attempt may not meet.
_PASSING = frozenset({"stopping", "overloaded", "timed_out"})
#: A node says something several times in its limit of silence; one that is silent for so many limits is out of reach.
_SILENCES = 2


class _Line(threading.Thread):
    """Carries frames between a WebSocket and a local socket, until either has ended."""

    def __init__(self, url: str, token: Token, ssl: Any, sock: socket.socket, owner: _Serving) -> None:
        super().__init__(name="edri-websocket", daemon=True)
        self._url, self._token, self._ssl = url, token, ssl
        self._sock = sock
        self._owner = owner
        self._heard = time.monotonic()
        #: The limit of silence, once the node has said it.
        self.silence: Optional[float] = None

    def run(self) -> None:
        """Connects, carries, closes."""
        error: Optional[BaseException] = None
        try:
            asyncio.run(self._carry())
        except Exception as caught:
            error = caught
        finally:
            self._sock.close()
            self._owner.line_ended(error)

    async def _carry(self) -> None:
        websockets = library()
        self._sock.setblocking(False)
        async with websockets.asyncio.client.connect(self._url, **options(self._token, self._ssl)) as line:
            self._owner.connected()
            tasks = [asyncio.ensure_future(task) for task in (self._up(line), self._down(line), self._watch())]
            try:
                # What the worker said last is on its way when the first of them ends.
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _up(self, line: Any) -> None:
        """Frames of the session become messages."""
        loop, waiting = asyncio.get_running_loop(), bytearray()
        while True:
            chunk = await loop.sock_recv(self._sock, 256 << 10)
            if not chunk:
                return
            waiting += chunk
            begin = 0
            while len(waiting) - begin >= _PREFIX.size:
                end = begin + _PREFIX.size + _PREFIX.unpack_from(waiting, begin)[0]
                if end > len(waiting):
                    break
                await line.send(bytes(waiting[begin + _PREFIX.size : end]))
                begin = end
            del waiting[:begin]

    async def _down(self, line: Any) -> None:
        """Messages become frames of the node."""
        loop = asyncio.get_running_loop()
        async for message in line:
            self._heard = time.monotonic()
            data = message if isinstance(message, bytes) else message.encode()
            await loop.sock_sendall(self._sock, _PREFIX.pack(len(data)) + data)

    async def _watch(self) -> None:
        """Ends when the node is silent: the network may be gone without a word."""
        while self.silence is None or time.monotonic() - self._heard < _SILENCES * self.silence:
            await asyncio.sleep(0.25 if self.silence is None else min(1.0, self.silence / 4))


class _Serving:
    """A worker and its connections, one after another. It belongs to the event loop of whoever serves."""

    def __init__(self, worker: Worker, url: str, manager: str, token: Token, ssl: Any, log_level: int, send_logs: bool) -> None:
        self._worker = worker
        self._url = address_of(url)
        self._manager = manager
        self._token, self._ssl = token, ssl
        self._log_level, self._send_logs = log_level, send_logs
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._session: Optional[Session] = None
        self._was_there = False
        self._connected: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()

    def stop(self) -> None:
        """Finishes what is open, then ends."""
        self._stop.set()
        if self._session is None:
            return
        if self._session.is_welcome:
            self._session.ask_to_stop(False)
        else:
            self._session.fail(NodeGone("it was asked to end before it was welcomed"))

    async def run(self) -> int:
        """Serves until it is stopped; the exit code. Raises :class:`ConnectError`."""
        pauses = Pauses()
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                code = await self._live()
                if code or self._stop.is_set():
                    return code
                _log.info("the node %s is done with this worker: connecting again when it is back", self._url)
            except ProtocolError as error:
                if error.is_the_nodes and error.code not in _PASSING:
                    raise ConnectError(error.code, error.message) from None
                _log.warning("the connection to %s has ended: %s", self._url, error)
            except (NodeGone, OSError, EOFError, asyncio.TimeoutError) as error:
                if not self._stop.is_set():
                    _log.warning("no connection to %s: %s", self._url, error or type(error).__name__)
            if time.monotonic() - began > 10:
                pauses.reset()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pauses.next())
        return 0

    async def _live(self) -> int:
        """One connection, and the worker's life on it."""
        theirs, ours = socket.socketpair()
        self._connected, self._ended = self._loop.create_future(), self._loop.create_future()
        line = _Line(self._url, self._token, self._ssl, theirs, self)
        line.start()
        try:
            stop = asyncio.ensure_future(self._stop.wait())
            waiting: List[asyncio.Future[Any]] = [self._connected, self._ended, stop]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            if self._stop.is_set():
                return 0
            if not self._connected.done():
                await self._ended
                raise NodeGone("it closed the connection")
            return await self._work(ours, line)
        finally:
            ours.close()
            # It closes the WebSocket in good order.
            await asyncio.wait({self._ended}, timeout=5.0)
            if self._ended.done() and not self._ended.cancelled():
                self._ended.exception()

    async def _work(self, sock: socket.socket, line: _Line) -> int:
        session = self._session = Session(self._worker, sock, self._node_gone, {"manager": self._manager})
        root, handler = logging.getLogger(), None
        if self._send_logs:
            handler = NodeHandler(session)
            handler.setLevel(self._log_level)
            root.addHandler(handler)

        def welcomed() -> None:
            line.silence = session.connection.silence
            _log.info("serving as instance %s of %s at %s", session.instance, session.manager, session.node)

        session.on_welcome = welcomed
        try:
            return await session.run()
        finally:
            if handler is not None:
                root.removeHandler(handler)
            self._session = None

    # ---- in other threads ------------------------------------------------------------------------------------------

    def connected(self) -> None:
        """The line is there."""
        self._was_there = True
        self._tell(self._connected, None)

    def line_ended(self, error: Optional[BaseException]) -> None:
        """The line is gone; why, when it never was there."""
        refused = refusal(error, again=self._was_there) if error is not None else None
        self._tell(self._ended, refused or (None if error is None else NodeGone(str(error) or type(error).__name__)))

    def _tell(self, future: asyncio.Future[None], error: Optional[BaseException]) -> None:
        def tell() -> None:
            if not future.done():
                future.set_exception(error) if error is not None else future.set_result(None)

        with contextlib.suppress(RuntimeError):  # The loop has ended.
            self._loop.call_soon_threadsafe(tell)

    def _node_gone(self, problem: Optional[ProtocolError]) -> None:
        session = self._session
        if session is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(session.fail, problem or NodeGone("the connection is gone"))


async def serve_async(
    worker: Worker,
    url: str,
    *,
    manager: str,
    token: Token = None,
    ssl: Any = None,
    log_level: int = logging.INFO,
    send_logs: bool = True,
    stop: Optional[asyncio.Event] = None,
) -> int:
    """As :func:`serve`, in an event loop that runs already; ends when ``stop`` is set. Returns the exit code, 0 when all is well."""
    library()
    serving = _Serving(worker, url, manager, token, ssl, log_level, send_logs)
    watching: List[asyncio.Task[None]] = []
    if stop is not None:
        event = stop

        async def watch() -> None:
            await event.wait()
            serving.stop()

        watching.append(asyncio.ensure_future(watch()))
    try:
        return await serving.run()
    finally:
        for task in watching:
            task.cancel()


def serve(
    worker: Worker,
    url: str,
    *,
    manager: str,
    token: Token = None,
    ssl: Any = None,
    log_level: int = logging.INFO,
    send_logs: bool = True,
) -> int:
    """Connects to a node's gateway (``ws://host:port``) and handles events as a worker of ``manager``.

    ``token``: a text, or a function that gives one for each connection; ``ssl``: an ``ssl.SSLContext``, for ``wss``. A lost
    connection is made again, after a pause that grows to 10 s; each connection is a life of the worker of its own, so the hooks
    ``started`` and ``stopping`` run in each. SIGTERM and SIGINT: what is in hand is finished, then this returns, 0 when all is well.
    Records of `logging` from ``log_level`` on go to the node too, unless ``send_logs`` is false.

    Raises :class:`ConnectError` when the node refuses this worker and would again: ``unauthorized``, ``forbidden``,
    ``unknown_manager``, ``wrong_handlers``, ``name_taken``, ``invalid_name``.
    """

    async def live() -> int:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):  # Not in the main thread.
                loop.add_signal_handler(number, stop.set)
        return await serve_async(
            worker, url, manager=manager, token=token, ssl=ssl, log_level=log_level, send_logs=send_logs, stop=stop
        )

    return asyncio.run(live())
