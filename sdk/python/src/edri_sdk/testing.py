"""A node for tests: a worker at work in this process, on the real connection, without a node.

::

    with TestNode(worker) as node:
        node.answer("stock.count", lambda ask: 3)
        node.publish("quake.recorded", {"region": "north", "magnitude": 4.7})
        assert node.request("risk.assess", {"region": "north"}) == {"probability": 0.5}
        assert [event.name for event in node.published] == ["risk.assessed"]

The worker's event loop runs in a thread of its own; everything here blocks, and nothing longer than ``timeout`` seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import socket
import threading
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from .errors import EdriError, Failure, NodeGone, ProtocolError, RequestError, TunnelBroken, TunnelEnded, fault, fault_of
from .frames import FRAME_BYTES_MAX, VERSION, Fields, FrameReader, encode, pack, unpack
from .names import matches
from .session import Session
from .worker import Worker

_CREDIT = {"items": 64, "bytes": 1 << 20}


@dataclass(frozen=True)
class Published:
    """A notification, request or tunnel that the worker sent."""

    name: str
    payload: Any
    key: Optional[str] = None
    cause: Optional[str] = None
    headers: Dict[str, str] = field(default_factory=dict)
    #: All fields of the frame but the payload.
    fields: Dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Logged:
    """A record that the worker logged."""

    level: str
    message: str
    target: Optional[str] = None
    event_id: Optional[str] = None


class TestCall:
    """A call to the worker that may not be answered yet."""

    __test__ = False

    def __init__(self, node: TestNode, number: int) -> None:
        self.number = number
        self._node = node
        self._answer: queue.SimpleQueue[Fields] = queue.SimpleQueue()

    def result(self) -> Any:
        """The value of the answer, plain. Raises :class:`RequestError`, ``TimeoutError`` when there is none in time."""
        response = self._node.wait_for(self._answer, f"an answer to call {self.number}")
        for kind in ("failure", "error"):
            if kind in response:
                raise RequestError.of_fault(response[kind], kind == "failure")
        return unpack(response.get("value"))

    def cancel(self) -> None:
        """Tells the worker that nobody waits any more."""
        self._node.send("cancel", {"id": self.number})

    def answer(self, response: Fields) -> None:
        """What the worker said. For the node."""
        self._answer.put(response)


class TestTunnel(TestCall):
    """The node's end of a tunnel. Items are plain."""

    def __init__(self, node: TestNode, number: int) -> None:
        super().__init__(node, number)
        self._items: queue.SimpleQueue[Tuple[str, Any]] = queue.SimpleQueue()
        self._credit = threading.Condition()
        self.credit_items, self.credit_bytes = 0, 0

    def send(self, item: Any) -> None:
        """Sends an item as soon as the worker has given credit for it."""
        payload = pack(item)
        with self._credit:
            if not self._credit.wait_for(lambda: self.credit_items > 0 and self.credit_bytes > 0, self._node.timeout):
                raise TimeoutError("the worker gives no credit")
            self.credit_items -= 1
            self.credit_bytes -= len(payload)
        self._node.send("data", {"id": self.number, "payload": payload})

    def recv(self) -> Any:
        """The next item. Raises :class:`TunnelEnded` at the end, :class:`TunnelBroken` when it was aborted."""
        kind, value = self._node.wait_for(self._items, f"an item of tunnel {self.number}")
        if kind == "data":
            self._node.send("credit", {"id": self.number, "items": 1, "bytes": len(value)})
            return unpack(value)
        self._items.put((kind, value))  # It stays ended.
        if kind == "abort":
            reason = RequestError.of_fault(value)
            raise TunnelBroken(reason.code, reason.message, is_failure=True)
        raise TunnelEnded("the worker has finished")

    def __iter__(self) -> Iterator[Any]:
        while True:
            try:
                yield self.recv()
            except TunnelEnded:
                return

    def finish(self) -> None:
        """Says that nothing more comes from this side."""
        self._node.send("end", {"id": self.number})

    def abort(self, code: str, message: str = "") -> None:
        """Breaks the tunnel."""
        self._node.send("abort", {"id": self.number, "failure": fault(code, message)})

    def arrived(self, kind: str, value: Any) -> None:
        """An item came, or the end. For the node."""
        self._items.put((kind, value))

    def give(self, fields: Fields) -> None:
        """The worker gives credit. For the node."""
        with self._credit:
            self.credit_items += fields.get("items", 0)
            self.credit_bytes += fields.get("bytes", 0)
            self._credit.notify_all()

    def answer(self, response: Fields) -> None:
        super().answer(response)
        self.arrived("end", None)


class TestNode:
    """A node with one worker; see the module. Entering waits until the worker is ready, leaving until it has ended."""

    __test__ = False

    def __init__(
        self,
        worker: Worker,
        *,
        arguments: Any = None,
        timeout: float = 5.0,
        silence: float = 30.0,
        frame_bytes_max: int = FRAME_BYTES_MAX,
        window: Optional[Dict[str, int]] = None,
    ) -> None:
        self.timeout = timeout
        #: What the worker published, requested and opened, in order.
        self.published: List[Published] = []
        self.requested: List[Published] = []
        self.opened: List[Published] = []
        #: What it logged.
        self.logged: List[Logged] = []
        #: Its last health and figures.
        self.health: Optional[Dict[str, Any]] = None
        self.figures: Dict[str, float] = {}
        #: ``error`` frames that it sent, and the events it declared after ``hello``.
        self.errors: List[Fields] = []
        self.declared: List[Fields] = []
        #: The first and the last frame, and every frame in between.
        self.hello: Fields = {}
        self.bye: Optional[Fields] = None
        self.frames: List[Tuple[str, Fields]] = []
        #: With what the process would have ended.
        self.exit_code: Optional[int] = None
        self._welcome: Fields = {
            "version": VERSION,
            "node": "test",
            "incarnation": "0" * 16,
            "manager": "test",
            "silence_ms": int(silence * 1000),
            "frame_bytes_max": frame_bytes_max,
        }
        if arguments is not None:
            self._welcome["arguments"] = pack(arguments)
        if window is not None:
            self._welcome["window"] = window
        self._answers: Dict[str, Any] = {}
        self._tunnel_answers: Dict[str, Callable[[Any, TestTunnel], Any]] = {}
        self._calls: Dict[int, TestCall] = {}
        self._numbers = itertools.count(2, 2)
        self._changed = threading.Condition()
        self._is_ready = False
        self._is_over = False
        self._problem: Optional[BaseException] = None
        self._socket, theirs = socket.socketpair()
        self._sending = threading.Lock()
        self._session = Session(worker, theirs, self._on_end)
        self._worker_thread = threading.Thread(target=self._work, name="edri-test-worker", daemon=True)
        self._reader_thread = threading.Thread(target=self._read, name="edri-test-node", daemon=True)

    # ---- its life --------------------------------------------------------------------------------------------------

    def __enter__(self) -> TestNode:
        self._reader_thread.start()
        self._worker_thread.start()
        self.wait_until(lambda: self._is_ready or self._is_over, "the worker to start")
        if not self._is_ready:
            # What it said before its end has been read then.
            self.close()
            if self._problem is not None:
                raise self._problem
            failed = (self.bye or {}).get("error") or {}
            raise RequestError(failed.get("code", "start_failed"), failed.get("message", "the worker has ended"), failed.get("detail"))
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            self.stop()
        else:
            self.close()

    def stop(self) -> int:
        """Says `bye`, and waits until the worker has ended; its exit code. Raises what broke the connection, if anything."""
        with contextlib.suppress(OSError):  # It may have ended by itself.
            self.send("bye", {})
        self._worker_thread.join(self.timeout)
        if self._worker_thread.is_alive():
            raise TimeoutError(f"the worker has not ended within {self.timeout} s")
        self.close()
        if self._problem is not None:
            raise self._problem
        return self.exit_code or 0

    def close(self) -> None:
        """Closes the connection, as a node does that dies."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._worker_thread.join(self.timeout)
        self._reader_thread.join(self.timeout)
        self._socket.close()

    # ---- what it asks of the worker --------------------------------------------------------------------------------

    def call(self, verb: str, event: str, payload: Any = None, **fields: Any) -> TestCall:
        """Sends ``publish`` or ``request`` and does not wait. ``fields`` are those of the frame: ``timeout_ms=500``.

        The handler is the one declared for the event, or the first whose pattern selects it, unless ``handler`` says one.
        """
        call = TestCall(self, next(self._numbers))
        self._make(call, verb, event, payload, fields)
        return call

    def publish(self, event: str, payload: Any = None, **fields: Any) -> None:
        """Publishes a notification and waits until it is handled. Raises :class:`RequestError` when that fails."""
        self.call("publish", event, payload, **fields).result()

    def request(self, event: str, payload: Any = None, **fields: Any) -> Any:
        """Sends a request; the response, plain. Raises :class:`RequestError`."""
        return self.call("request", event, payload, **fields).result()

    def open(self, event: str, payload: Any = None, **fields: Any) -> TestTunnel:
        """Opens a tunnel; its ``result()`` is the handler's."""
        fields.setdefault("credit", dict(_CREDIT))
        tunnel = TestTunnel(self, next(self._numbers))
        self._make(tunnel, "open", event, payload, fields)
        return tunnel

    def _make(self, call: TestCall, verb: str, event: str, payload: Any, fields: Fields) -> None:
        if "handler" not in fields:
            selects = [handler["select"] for handler in self.hello["handlers"]]
            found = [place for place, select in enumerate(selects) if select == event]
            found += [place for place, select in enumerate(selects) if matches(select, event)]
            if not found:
                raise LookupError(f"the worker has no handler for {event}; it has: {', '.join(selects) or 'none'}")
            fields["handler"] = found[0]
        self._calls[call.number] = call
        fields.setdefault("event_id", f"{call.number:032x}")
        self.send(verb, {"id": call.number, "event": event, "payload": pack(payload), **fields})

    # ---- what it answers to the worker -----------------------------------------------------------------------------

    def answer(self, event: str, answer: Any) -> None:
        """How the worker's requests of this event are answered: a value, an exception (:class:`Failure`,
        :class:`RequestError`), or a function of the plain payload that returns or raises one. It runs where frames from
        the worker are read, so it cannot wait for the worker."""
        self._answers[event] = answer

    def answer_tunnel(self, event: str, function: Callable[[Any, TestTunnel], Any]) -> None:
        """How tunnels that the worker opens are answered: ``function(payload, tunnel)`` runs in a thread of its own; what
        it returns is the result."""
        self._tunnel_answers[event] = function

    # ---- waiting and raw frames ------------------------------------------------------------------------------------

    def send(self, name: str, fields: Fields) -> None:
        """Sends any frame."""
        self.send_bytes(encode(name, fields))

    def send_bytes(self, data: bytes) -> None:
        """Sends any bytes."""
        with self._sending:
            self._socket.sendall(data)

    def wait_until(self, condition: Callable[[], bool], what: str = "it") -> None:
        """Waits until something that the worker sends makes the condition true."""
        with self._changed:
            if not self._changed.wait_for(condition, self.timeout):
                raise TimeoutError(f"waited {self.timeout} s for {what}")

    def wait_for(self, source: queue.SimpleQueue[Any], what: str) -> Any:
        """The next of a queue that the reader fills."""
        try:
            return source.get(timeout=self.timeout)
        except queue.Empty:
            raise TimeoutError(f"waited {self.timeout} s for {what}") from self._problem

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            self.exit_code = asyncio.run(self._session.run())
        except EdriError as error:
            self.exit_code, self._problem = 1, error
        except BaseException as error:  # `sys.exit` in a handler, too.
            self._problem = error
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()

    def _on_end(self, problem: Optional[ProtocolError]) -> None:
        end = problem or NodeGone("the node has closed the connection")
        self._session.loop.call_soon_threadsafe(self._session.fail, end)

    def _read(self) -> None:
        reader = FrameReader()
        while True:
            try:
                count = self._socket.recv_into(reader.space())
            except OSError:
                return
            if count == 0:
                return
            for name, fields in reader.filled(count):
                with self._changed:
                    self.frames.append((name, fields))
                    try:
                        self._on_frame(name, fields)
                    except OSError:  # The worker has ended meanwhile.
                        pass
                    self._changed.notify_all()

    def _on_frame(self, name: str, fields: Fields) -> None:
        if name == "hello":
            self.hello = fields
            self.send("welcome", self._welcome)
        elif name == "ready":
            self._is_ready = True
        elif name == "response":
            self._answered(fields["id"], fields)
        elif name == "ack":
            for number in fields.get("done", ()):
                self._answered(number, {})
        elif name == "publish":
            self.published.append(_published(fields))
            receipt = {"id": f"{fields['id']:032x}", "groups": 1}
            self.send("response", {"id": fields["id"], "value": pack(receipt)})
        elif name == "request":
            self.requested.append(_published(fields))
            self._answer_request(fields)
        elif name == "open":
            self.opened.append(_published(fields))
            self._answer_open(fields)
        elif name in ("data", "end", "abort"):
            self._tunnel(fields).arrived(name, fields.get("payload", fields.get("failure")))
        elif name == "credit":
            self._tunnel(fields).give(fields)
        elif name == "log":
            self.logged.append(Logged(fields["level"], fields["message"], fields.get("target"), fields.get("event_id")))
        elif name == "report":
            self.health = fields.get("health", self.health)
            self.figures.update(fields.get("figures", {}))
        elif name == "declare":
            self.declared += fields["events"]
        elif name == "error":
            self.errors.append(fields)
        elif name == "ping":
            self.send("pong", fields)
        elif name == "bye":
            self.bye = fields

    def _answered(self, number: int, response: Fields) -> None:
        call = self._calls.get(number)
        if call is not None:  # Otherwise it was made with `send`.
            call.answer(response)

    def _tunnel(self, fields: Fields) -> TestTunnel:
        tunnel = self._calls[fields["id"]]
        assert isinstance(tunnel, TestTunnel)
        return tunnel

    def _answer_request(self, fields: Fields) -> None:
        number = fields["id"]
        response = self._outcome(self._answers.get(fields["event"], _NOBODY), unpack(fields.get("payload")))
        if fields.get("all") and response is not _NO_HANDLER:
            self.send("response", {"id": number, "from": "test", "more": True, **response})
            self.send("response", {"id": number})
        elif response is not _SILENCE:
            self.send("response", {"id": number, **response})

    def _outcome(self, answer: Any, *arguments: Any) -> Fields:
        if answer is _NOBODY:
            return _NO_HANDLER
        if answer is NEVER:
            return _SILENCE
        try:
            value = answer(*arguments) if callable(answer) else answer
            if isinstance(value, BaseException):
                raise value
            return {"value": pack(value)}
        except RequestError as error:
            return {"error": fault(error.code, error.message)}
        except Exception as error:
            return {"failure": fault_of(error)}

    def _answer_open(self, fields: Fields) -> None:
        number = fields["id"]
        tunnel = self._calls[number] = TestTunnel(self, number)
        tunnel.give(fields.get("credit") or {})
        function = self._tunnel_answers.get(fields["event"])
        if function is None:
            self.send("response", {"id": number, **_NO_HANDLER})
            return
        self.send("credit", {"id": number, **_CREDIT})

        def serve() -> None:
            try:
                self.send("response", {"id": number, **self._outcome(function, unpack(fields.get("payload")), tunnel)})
            except OSError:  # The worker has ended meanwhile.
                pass

        threading.Thread(target=serve, name="edri-test-tunnel", daemon=True).start()


#: An answer that never comes.
NEVER: Any = object()
_NOBODY: Any = object()
_SILENCE: Fields = {}
_NO_HANDLER: Fields = {"error": fault("no_handler", "the test answers no such event: use node.answer(...)")}


def _published(fields: Fields) -> Published:
    payload = unpack(fields.get("payload"))
    rest = {name: value for name, value in fields.items() if name != "payload"}
    return Published(fields["event"], payload, fields.get("key"), fields.get("cause"), fields.get("headers", {}), rest)


__all__ = ["NEVER", "Failure", "Logged", "Published", "TestCall", "TestNode", "TestTunnel"]
