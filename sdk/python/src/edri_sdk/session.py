"""A worker at work: what comes from the node is given to handlers, what they say goes back."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Set, Tuple

from .calls import Calls
from .connection import Connection
from .context import Context, SyncContext, current
from .errors import Failure, ProtocolError, RequestError, TunnelBroken, clean, fault, fault_of
from .events import Event
from .frames import FIGURES_MAX, VERSION, Fields, encode_response, pack, unpack
from .handlers import Handler, is_async
from .inbox import Inbox
from .sending import LARGE, Sending
from .tunnels import BYTES, ITEMS, SyncTunnel, Tunnel

if TYPE_CHECKING:
    from .worker import Worker

_log = logging.getLogger("edri_sdk")


class Session(Sending):
    """One life of a worker on one connection. All of it but what says otherwise belongs to the event loop's thread.

    ``on_end`` is called, in whatever thread finds out, when the node has closed the connection (``None``) or broken the
    protocol (how): a process ends itself there. Where it does not, it sees to it that ``fail`` is called. ``whose``: what its
    ``hello`` says besides.
    """

    def __init__(
        self,
        worker: Worker,
        sock: socket.socket,
        on_end: Callable[[Optional[ProtocolError]], None],
        whose: Optional[Fields] = None,
    ) -> None:
        self._worker = worker
        self._handlers: List[Handler] = worker.handlers
        self._on_end = on_end
        self.connection = Connection(sock, self._on_early_cancel, self._on_backlog, on_end)
        self._outbox = self.connection.outbox
        self._inbox = Inbox(self._outbox.say_begun)
        self.calls = Calls(self._outbox, self.schedule_flush)
        #: Calls of the node that are not answered, by number.
        self._in_hand: Dict[int, Context] = {}
        self._last_number = 0
        #: When the frames that are being dealt with came, of ``time.monotonic``.
        self._came = 0.0
        self._concurrency = worker.concurrency
        self._runners = 0
        self._has_spare = False
        self._tasks: Set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(self._concurrency, thread_name_prefix="edri-handler")
        self.begin_sending(worker.events)
        self.node = ""
        self.manager = ""
        self.instance = 0
        self.arguments: Any = None
        self._flush_scheduled = False
        self._is_ready = False
        #: Called once the node has welcomed the worker.
        self.on_welcome: Callable[[], None] = lambda: None
        # Before anything can be logged: it is the first frame.
        self._outbox.put("hello", {**worker.hello(), **(whose or {})})
        self._welcomed: asyncio.Future[Fields]
        self._stop_asked: asyncio.Future[bool]
        self._at_rest: asyncio.Future[None]
        self._failed: asyncio.Future[int]
        self._actions: Dict[str, Callable[[Fields], None]] = {
            "publish": partial(self._on_call, "publish"),
            "request": partial(self._on_call, "request"),
            "open": partial(self._on_call, "open"),
            "response": self._on_response,
            "ack": self._on_ack,
            "cancel": self._on_cancel,
            "data": self._on_data,
            "credit": self._on_credit,
            "end": self._on_tunnel_end,
            "abort": self._on_abort,
            "ping": lambda fields: self.put("pong", {"id": fields.get("id") or 0}),
            "pong": lambda fields: None,
            "welcome": self._on_welcome,
            "window": self.calls.set_window,
            "declare": lambda fields: None,
            "report": lambda fields: None,
            "log": lambda fields: None,
            "error": self._on_error,
            "bye": self._on_bye,
        }

    # ---- a worker's life -------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """From ``hello`` to ``bye``; the exit code. Raises :class:`NodeGone` or :class:`ProtocolError`."""
        loop = self.loop = asyncio.get_running_loop()
        self._thread = threading.current_thread()
        self._welcomed, self._stop_asked = loop.create_future(), loop.create_future()
        self._at_rest, self._failed = loop.create_future(), loop.create_future()
        self.schedule_flush()
        loop.add_reader(self.connection.fileno(), self._on_readable)
        self.connection.start()
        life = loop.create_task(self._live())
        try:
            await asyncio.wait({life, self._failed}, return_when=asyncio.FIRST_COMPLETED)
            return self._failed.result() if self._failed.done() else life.result()
        finally:
            loop.remove_reader(self.connection.fileno())
            self.connection.close()
            self.calls.close(RequestError("stopping", "the worker has ended"))
            for task in [life, *self._tasks]:
                task.cancel()
            self._failed.cancel()
            # Also takes note of what nobody asks about any more.
            await asyncio.gather(life, self._failed, *self._tasks, return_exceptions=True)
            self._threads.shutdown(wait=False)

    @property
    def is_welcome(self) -> bool:
        """Whether the node has welcomed the worker."""
        return self._welcomed.done()

    async def _live(self) -> int:
        await self._welcomed
        about = Context(self, {}, 0.0)
        try:
            for hook in self._worker.start_hooks:
                await self._run_hook(hook, about)
        except Exception as error:
            return await self._end_badly("start_failed", error)
        self.put("ready", {})
        self._is_ready = True
        self._wake()
        if not await self._stop_asked:
            # The node has not said that no more calls come.
            self.put("window", {"calls": 0, "bytes": 0})
        self._check_rest()
        await self._at_rest
        try:
            for hook in self._worker.stop_hooks:
                await self._run_hook(hook, about)
        except Exception as error:
            _log.exception("the worker's own stop has failed")
            return await self._end_badly("stop_failed", error)
        self.put("bye", {})
        return 0

    async def _end_badly(self, code: str, error: Exception) -> int:
        failed = fault_of(error)
        self.put("bye", {"error": {**failed, "code": code}})
        print(f"edri_sdk: {code}: {failed['message']}\n{failed.get('detail', '')}", file=sys.stderr, flush=True)
        return 1

    async def _run_hook(self, hook: Callable[..., Any], about: Context) -> None:
        if is_async(hook):
            await hook(about)
        else:
            await self.loop.run_in_executor(self._threads, hook, SyncContext(about))

    def ask_to_stop(self, no_more_calls: bool) -> None:
        """Finish what is open, then end. ``no_more_calls``: the node knows, and sends none."""
        if not self._stop_asked.done():
            self._stop_asked.set_result(no_more_calls)

    def _check_rest(self) -> None:
        if self._stop_asked.done() and not self._in_hand and not len(self._inbox) and not self._at_rest.done():
            self._at_rest.set_result(None)

    def fail(self, error: Exception) -> None:
        """Ends the session with this error: :class:`NodeGone` or :class:`ProtocolError`."""
        if not self._failed.done():
            self._failed.set_exception(error)

    # ---- reading ---------------------------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        if self._failed.done():
            return
        try:
            frames = self.connection.read()
            if frames is None:
                self.loop.remove_reader(self.connection.fileno())
                self._on_end(None)
                return
            self._dispatch(frames)
        except ProtocolError as error:
            self.connection.refuse(error)
            self._on_end(error)
            return
        if len(self._inbox):
            self._wake()

    def _dispatch(self, frames: List[Tuple[str, Fields]]) -> None:
        self._came = time.monotonic()
        actions = self._actions
        name: Any = None
        try:
            for name, fields in frames:
                action = actions.get(name)
                if action is not None:
                    if type(fields) is not dict:
                        raise ValueError("the fields of a frame are a map")
                    action(fields)
                else:
                    message = clean(f"this worker knows no frame `{name}`")
                    self.put("error", {"code": "unknown_frame", "message": message, "frame": clean(name)})
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ProtocolError("malformed_frame", f"{name}: {type(error).__name__}: {error}") from error

    def _on_call(self, verb: str, fields: Fields) -> None:
        get = fields.get
        # A field that is null is as one that is missing.
        number, place = get("id") or 0, get("handler") or 0
        if type(number) is not int or type(place) is not int or type(get("timeout_ms") or 0) is not int:
            raise ValueError("the id, the handler and the time-out of a call are numbers")
        if type(get("payload") or b"") is not bytes or type(fields["event"]) is not str:
            raise ValueError("a call has an event, and its payload is a byte string")
        if number:
            if number % 2 or number <= self._last_number:
                raise ValueError(f"a call of the node has an even number that grows, and this one has {number}")
            self._last_number = number
        if not 0 <= place < len(self._handlers):
            self._refuse(number, "no_handler", f"this worker has no handler {place}")
            return
        handler = self._handlers[place]
        if handler.verb != verb:
            self._refuse(number, "wrong_kind", f"handler {place} is for a {handler.kind}")
            return
        call = Context(self, fields, self._came, number, handler)
        if verb == "open":
            call.tunnel = Tunnel(self, handler.event, fields["event"], is_opener=False)  # type: ignore[arg-type]
            call.tunnel.number = number
            call.tunnel.on_credit(fields.get("credit") or {})
        if number:
            self._in_hand[number] = call
        self._inbox.put(call)

    def _refuse(self, number: int, code: str, message: str) -> None:
        if number:
            self.put("response", {"id": number, "error": fault(code, message)})

    def _on_response(self, fields: Fields) -> None:
        if not self.calls.on_response(fields):
            self._unknown_call("response", fields["id"])

    def _on_ack(self, fields: Fields) -> None:
        for number in fields.get("done") or ():
            self.calls.on_response({"id": number})

    def _on_cancel(self, fields: Fields) -> None:
        call = self._in_hand.get(fields["id"])
        if call is None:
            self._unknown_call("cancel", fields["id"])
            return
        call.set_cancelled()
        if call.tunnel is not None:
            call.tunnel.break_with(TunnelBroken("cancelled", f"the opener has dropped {call.event}"))

    def _on_early_cancel(self, number: object) -> None:
        """By the watchdog, while the loop is busy: a handler that looks sees it. The rest follows when the loop reads."""
        call = self._in_hand.get(number) if isinstance(number, int) else None
        if call is not None:
            call._is_cancelled = True

    def _on_backlog(self) -> None:
        """By the watchdog."""
        try:
            self.loop.call_soon_threadsafe(self._on_readable)
        except RuntimeError:  # The loop has ended.
            pass

    def _tunnel(self, frame: str, fields: Fields) -> Optional[Tunnel[Any, Any, Any]]:
        number = fields["id"]
        opened = self.calls.find(number)
        if opened is not None:
            return opened.tunnel
        call = self._in_hand.get(number)
        if call is None:
            self._unknown_call(frame, number)
            return None
        return call.tunnel

    def _unknown_call(self, frame: str, number: Any) -> None:
        """A call that has just ended may be spoken of by a node that does not know yet; one that never was is an error."""
        if self.calls.was_made(number) or (isinstance(number, int) and number % 2 == 0 and 0 < number <= self._last_number):
            return
        self.put("error", {"code": "unknown_call", "message": "there was no such call", "frame": frame, **_id_of(number)})

    def _on_data(self, fields: Fields) -> None:
        tunnel = self._tunnel("data", fields)
        if tunnel is not None and not tunnel.on_data(fields):
            message = "an item came without credit"
            self.put("error", {"code": "no_credit", "message": message, "frame": "data", "id": tunnel.number})

    def _on_credit(self, fields: Fields) -> None:
        tunnel = self._tunnel("credit", fields)
        if tunnel is not None:
            tunnel.on_credit(fields)

    def _on_tunnel_end(self, fields: Fields) -> None:
        tunnel = self._tunnel("end", fields)
        if tunnel is not None:
            tunnel.on_end()

    def _on_abort(self, fields: Fields) -> None:
        tunnel = self._tunnel("abort", fields)
        if tunnel is not None:
            reason = RequestError.of_fault(fields.get("failure"))
            tunnel.break_with(TunnelBroken(reason.code, reason.message, reason.detail, is_failure=True))

    def _on_welcome(self, fields: Fields) -> None:
        if self._welcomed.done():
            self.put("error", {"code": "out_of_order", "message": "a second welcome", "frame": "welcome"})
            return
        if fields["version"] != VERSION:
            raise ProtocolError("unsupported_version", f"the node speaks version {fields['version']}, this worker {VERSION}")
        self.node, self.manager = str(fields["node"]), str(fields.get("manager") or "")
        self.instance = int(fields.get("instance") or 0)
        self.connection.silence = max(0.1, int(fields["silence_ms"]) / 1000)
        self._frame_bytes_max = int(fields["frame_bytes_max"])
        self.arguments = unpack(fields.get("arguments"))
        self.calls.set_window(fields.get("window"))
        self._welcomed.set_result(fields)
        self.on_welcome()

    def _on_error(self, fields: Fields) -> None:
        code, message = str(fields["code"]), str(fields.get("message") or "")
        if not self._welcomed.done():
            raise ProtocolError(code, f"the node refuses this worker: {message}", is_the_nodes=True)
        number = fields.get("id")
        if self.calls.find(number) is not None:
            self.calls.on_response({"id": number, "error": {"code": code, "message": message}})
        print(f"edri_sdk: the node says {code}: {message}", file=sys.stderr, flush=True)

    def _on_bye(self, fields: Fields) -> None:
        self.ask_to_stop(no_more_calls=True)

    # ---- handling --------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        """Sees to it that somebody takes the next call, if one more may be handled at once.

        A runner goes from call to call in one task; to begin and end a task for each would cost more than a quick handler.
        One spare runner at a time is enough: when it gets to run, those before it have nothing to do but wait.
        """
        if self._is_ready and not self._has_spare and self._runners < self._concurrency:
            self._has_spare = True
            self._runners += 1
            self._tasks.add(self.loop.create_task(self._run_calls()))
            # In the same round of the loop as the task's first step: where handlers are quick, nothing is left by then.
            self.schedule_flush()

    async def _run_calls(self) -> None:
        self._has_spare = False
        take, in_order = self._inbox.take, self._concurrency == 1
        while True:
            call = take()
            if call is None:
                break
            if not in_order and len(self._inbox):
                self._wake()
            if call.handler.is_plain:
                await self.loop.run_in_executor(self._threads, self._run_plain_calls, call)
                continue
            # Not a function of its own: another coroutine for each call is a tenth of what a quick one costs.
            handler = call.handler
            current.set(call)
            if not self._flush_scheduled:
                self.schedule_flush()
            try:
                if call._is_cancelled:
                    raise asyncio.CancelledError
                if call.tunnel is None:
                    result = await handler.function(handler.read(call._fields), call)
                else:
                    result = await self._handle_tunnel(call, call.tunnel)
                self._succeed(call, result)
            except (Exception, asyncio.CancelledError) as error:
                if self._failed.done():
                    raise
                self._fail(call, error)
        self._runners -= 1
        # Not by a callback of the task, which would cost each batch one more round of the loop.
        self._tasks.discard(asyncio.current_task())
        self._outbox.flush()
        self._check_rest()

    async def _handle_tunnel(self, call: Context, tunnel: Tunnel[Any, Any, Any]) -> Any:
        event = call.handler.read(call._fields)
        tunnel.give_credit(ITEMS, BYTES, at_first=True)
        return await call.handler.function(event, tunnel, call)

    def _run_plain_calls(self, call: Optional[Context]) -> None:
        """In a thread: handles this call, and those that follow it as long as they are for plain functions, so that a
        quick one costs no hand-over between threads of its own."""
        while call is not None:
            self._handle_plain(call)
            call = self._inbox.take(only_plain=True)
        self._outbox.flush()

    def _handle_plain(self, call: Context) -> None:
        handler = call.handler
        current.set(call)
        try:
            if call._is_cancelled:
                raise asyncio.CancelledError
            event = handler.read(call._fields)
            if call.tunnel is None:
                result = handler.function(event, SyncContext(call))
            else:
                self.loop.call_soon_threadsafe(call.tunnel.give_credit, ITEMS, BYTES, True)
                result = handler.function(event, SyncTunnel(self, call.tunnel), SyncContext(call))
            self._succeed(call, result)
        except (Exception, asyncio.CancelledError) as error:
            self._fail(call, error)

    def _succeed(self, call: Context, result: Any) -> None:
        """In whatever thread."""
        handler, number = call.handler, call.number
        if handler.kind == "notification":
            if number:
                self._outbox.done(number)
        else:
            if handler.check is not None:
                handler.check.check(result, f"the response of {handler.select}")
            payload = pack(result)
            if len(payload) > LARGE:
                self._check_response(len(payload), call)
            self._outbox.put_encoded(encode_response(number, payload))
        self._in_hand.pop(number, None)
        if call.tunnel is not None:
            self._end_tunnel(call, call.tunnel)

    def _check_response(self, size: int, call: Context) -> None:
        if not self.fits(size):
            raise Failure("frame_too_long", f"the response of {call.event} has {size} bytes, {self._frame_bytes_max} is the most")

    def _fail(self, call: Context, error: BaseException) -> None:
        """In whatever thread."""
        if call.number:
            if isinstance(error, asyncio.CancelledError) and call._is_cancelled:
                answer = {"error": fault("cancelled", "nobody waits for it any more")}
            else:
                answer = {"failure": fault_of(error)}
            self._outbox.put("response", {"id": call.number, **answer})
        self._in_hand.pop(call.number, None)
        if call.tunnel is not None:
            self._end_tunnel(call, call.tunnel)

    def _end_tunnel(self, call: Context, tunnel: Tunnel[Any, Any, Any]) -> None:
        end = TunnelBroken("ended", f"the handler of {call.event} has returned")
        self.loop.call_soon_threadsafe(tunnel.break_with, end)

    # ---- sending ---------------------------------------------------------------------------------------------------

    def put(self, name: str, fields: Fields) -> None:
        """Sends a frame, soon and together with others."""
        self._outbox.put(name, fields)
        self.schedule_flush()

    def announce(self, declaration: Fields) -> None:
        """Tells the node of an event before it is sent for the first time."""
        self.put("declare", {"events": [declaration]})

    def schedule_flush(self) -> None:
        """Writes what there is once those that run now have had their turn."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        self._outbox.flush()

    def report_health(self, health: str, because: str) -> None:
        """In whatever thread: says how the worker is."""
        if health not in ("good", "degraded", "bad"):
            raise ValueError(f"a worker's health is 'good', 'degraded' or 'bad', not {health!r}")
        said = {"is": health} if health == "good" else {"is": health, "because": clean(str(because))}
        self._outbox.put("report", {"health": said})
        self._outbox.flush()

    def report_figures(self, figures: Mapping[str, float]) -> None:
        """In whatever thread: gives figures of the worker's own."""
        if len(figures) > FIGURES_MAX:
            raise ValueError(f"{len(figures)} figures, where {FIGURES_MAX} are the most")
        self._outbox.put("report", {"figures": {str(name): float(value) for name, value in figures.items()}})
        self._outbox.flush()

    def log(self, level: str, message: str, target: str, event_id: Optional[str]) -> None:
        """In whatever thread: a record in the node's log."""
        fields = {"level": level, "message": clean(message), "target": clean(target)}
        if event_id is not None:
            fields["event_id"] = event_id
        self._outbox.put("log", fields)
        self._outbox.flush()


def _id_of(number: Any) -> Fields:
    return {"id": number} if isinstance(number, int) and 0 <= number < 1 << 53 else {}
