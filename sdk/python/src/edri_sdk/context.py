"""What a handler knows of the event it has, and what it can do."""

from __future__ import annotations

import asyncio
import logging
import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, List, Mapping, Optional, Tuple, TypeVar, Union, overload

from .errors import RequestError
from .events import Event, NotificationEvent, RequestEvent, TunnelEvent
from .frames import Fields, pack
from .tunnels import BYTES, ITEMS, OpenedTunnel, Opening, SyncOpening, Tunnel

if TYPE_CHECKING:
    from .handlers import Handler
    from .sending import Sending
    from .session import Session

P = TypeVar("P")
R = TypeVar("R")
U = TypeVar("U")
D = TypeVar("D")


class _Missing:
    """What stands for an argument that was not given: None is a payload."""


_MISSING = _Missing()

#: The event in hand, for whatever logs while it is handled.
current: ContextVar[Optional[Context]] = ContextVar("edri_current", default=None)


@dataclass(frozen=True)
class Receipt:
    """What became of a published notification: every group had it in its inbox when ``publish`` returned."""

    id: str
    groups: int


@dataclass(frozen=True)
class Answer:
    """One manager's answer to a request to all: a value, or why there is none."""

    manager: str
    value: Any = None
    error: Optional[RequestError] = None


class _EventLogger(logging.LoggerAdapter):  # type: ignore[type-arg, unused-ignore]
    """Adds the event's id to records, in whatever thread they are made."""

    def process(self, msg: Any, kwargs: Any) -> Tuple[Any, Any]:
        kwargs["extra"] = {**self.extra, **(kwargs.get("extra") or {})}  # type: ignore[dict-item, unused-ignore]
        return msg, kwargs


class _About:
    """What both contexts know: the event in hand, and the worker. In ``started`` and ``stopping`` no event is in hand."""

    # Most calls never change these, so they cost nothing to make.
    _is_cancelled = False
    _cancel_waiters: Optional[List[asyncio.Future[None]]] = None
    tunnel: Optional[Tunnel[Any, Any, Any]] = None

    def __init__(self, session: Session, fields: Fields, received: float) -> None:
        self._session = session
        self._fields = fields
        self._received = received

    @property
    def event(self) -> str:
        """The event's name; empty when none is in hand."""
        return str(self._fields.get("event", ""))

    @property
    def id(self) -> Optional[str]:
        """The event's id: 32 hexadecimal digits. The same when the event is tried again."""
        return self._fields.get("event_id")

    @property
    def origin(self) -> Optional[str]:
        """Who sent the event: ``node/manager``."""
        return self._fields.get("origin")

    @property
    def key(self) -> Optional[str]:
        """The event's key, if it has one."""
        return self._fields.get("key")

    @property
    def cause(self) -> Optional[str]:
        """The id of the event that made this one."""
        return self._fields.get("cause")

    @property
    def trace(self) -> Optional[str]:
        """Where the event stands in a trace: a W3C ``traceparent``."""
        return self._fields.get("trace")

    @property
    def headers(self) -> Mapping[str, str]:
        """What the sender added."""
        return self._fields.get("headers") or {}

    @property
    def caller(self) -> Optional[str]:
        """Who sent the event from outside, by the name in its token. None: it came from within, or from somebody without one."""
        return self.headers.get("edri-caller")

    @property
    def attempt(self) -> int:
        """Which try at the event this is, from 1; 0 when none is in hand."""
        return int(self._fields.get("tried") or 0) + 1 if self._fields else 0

    @property
    def redelivered(self) -> bool:
        """Whether a worker that was lost may have handled the event already, wholly or in part."""
        return bool(self._fields.get("redelivered"))

    @property
    def deadline(self) -> Optional[float]:
        """When the answer, or the event itself, loses its meaning: seconds of ``time.monotonic``. None: never."""
        timeout_ms = self._fields.get("timeout_ms")
        return None if timeout_ms is None else self._received + timeout_ms / 1000

    @property
    def remaining(self) -> Optional[float]:
        """How many seconds are left until the deadline, 0 at least. None: no deadline."""
        deadline = self.deadline
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    @property
    def cancelled(self) -> bool:
        """Whether the requester, or the opener of the tunnel, waits no more. A handler may then stop early."""
        return self._is_cancelled

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records carry the event's id into the node's log."""
        return _EventLogger(logging.getLogger(self._session.manager or "worker"), {"event_id": self.id})

    @property
    def node(self) -> str:
        """The node's name."""
        return self._session.node

    @property
    def manager(self) -> str:
        """The name of the worker's manager."""
        return self._session.manager

    @property
    def instance(self) -> int:
        """Which of its manager's instances the worker is, from 0."""
        return self._session.instance

    @property
    def arguments(self) -> Any:
        """What the manager makes its workers with, as a plain value."""
        return self._session.arguments

    def report_health(self, health: str, because: str = "") -> None:
        """Says how the worker is: ``good``, or ``degraded`` or ``bad`` with a reason."""
        self._session.report_health(health, because)

    def report_figure(self, name: str, value: float) -> None:
        """Gives a figure of the worker's own, for the node's ``topology()``; at most 64 names."""
        self._session.report_figures({name: value})

    def report_figures(self, figures: Mapping[str, float]) -> None:
        """Gives several figures at once."""
        self._session.report_figures(figures)


class Context(_About):
    """The surroundings of an ``async def`` handler: the event in hand, the worker, and the verbs.

    What is sent follows from the event in hand: it carries its id as cause and its trace, and requests end with its
    deadline at the latest. An event is named by its declaration (:class:`Event`), by an instance of its dataclass, or by its
    name and a plain payload; what comes back is a dataclass in the first two cases and plain in the last.
    """

    def __init__(self, session: Session, fields: Fields, received: float, number: int = 0, handler: Optional[Handler] = None) -> None:
        self._session = session
        self._fields = fields
        self._received = received
        self.number = number
        #: In ``started`` and ``stopping`` there is none, and nobody looks.
        self.handler: Handler = handler  # type: ignore[assignment]

    async def wait_cancelled(self) -> None:
        """Returns once the requester, or the opener of the tunnel, waits no more; never for a notification."""
        if self._is_cancelled:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._cancel_waiters is None:
            self._cancel_waiters = []
        self._cancel_waiters.append(waiter)
        await waiter

    def set_cancelled(self) -> None:
        """Nobody waits any more. Only the session calls this."""
        self._is_cancelled = True
        for waiter in self._cancel_waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    # ---- verbs -----------------------------------------------------------------------------------------------------

    @overload
    async def publish(
        self, event: NotificationEvent[P], payload: P, *, key: Optional[str] = None, headers: Optional[Mapping[str, str]] = None
    ) -> Receipt: ...
    @overload
    async def publish(
        self, event: object, payload: Any = ..., *, key: Optional[str] = None, headers: Optional[Mapping[str, str]] = None
    ) -> Receipt: ...
    async def publish(
        self, event: Any, payload: Any = _MISSING, *, key: Optional[str] = None, headers: Optional[Mapping[str, str]] = None
    ) -> Receipt:
        """Publishes a notification; returns once every group of subscribers has it in its inbox.

        Raises :class:`RequestError` when a group had no room in time (``overloaded``), or the payload is none.
        """
        _, fields, size = self._call("notification", event, payload, key, headers)
        call = await self._session.calls.make("publish", fields, size)
        value = self._session.value_of(await self._session.calls.wait(call, None), None, "the receipt")
        value = value if isinstance(value, dict) else {}
        return Receipt(str(value.get("id", "")), int(value.get("groups", 0)))

    @overload
    async def request(
        self,
        event: RequestEvent[P, R],
        payload: P,
        *,
        timeout: Optional[float] = None,
        key: Optional[str] = None,
        headers: Optional[Mapping[str, str]] = None,
    ) -> R: ...
    @overload
    async def request(
        self,
        event: object,
        payload: Any = ...,
        *,
        timeout: Optional[float] = None,
        key: Optional[str] = None,
        headers: Optional[Mapping[str, str]] = None,
    ) -> Any: ...
    async def request(
        self,
        event: Any,
        payload: Any = _MISSING,
        *,
        timeout: Optional[float] = None,
        key: Optional[str] = None,
        headers: Optional[Mapping[str, str]] = None,
    ) -> Any:
        """Sends a request and returns its response.

        ``timeout`` in seconds; never more than the event in hand has left. Raises :class:`RequestError`.
        """
        return await self._request({}, event, payload, timeout, key, headers)

    async def request_to(
        self,
        manager: str,
        event: Any,
        payload: Any = _MISSING,
        *,
        timeout: Optional[float] = None,
        key: Optional[str] = None,
        headers: Optional[Mapping[str, str]] = None,
    ) -> Any:
        """As :meth:`request`, to one manager by name."""
        return await self._request({"to": manager}, event, payload, timeout, key, headers)

    async def request_all(
        self,
        event: Any,
        payload: Any = _MISSING,
        *,
        timeout: Optional[float] = None,
        key: Optional[str] = None,
        headers: Optional[Mapping[str, str]] = None,
    ) -> List[Answer]:
        """Asks every manager that answers; returns when all have answered or the time is over."""
        known, fields, size, seconds = self._request_call({"all": True}, event, payload, timeout, key, headers)
        session = self._session
        call = await session.calls.make("request", fields, size)
        last = await session.calls.wait(call, seconds)
        if not call.answers and not last.get("from"):
            session.value_of(last, None, "the answers")  # Nobody was asked: raises, or is null.
        answers = []
        for response in call.answers + ([last] if last.get("from") else []):
            manager = str(response.get("from", ""))
            try:
                shape = None if known is None else known.output
                answers.append(Answer(manager, session.value_of(response, shape, f"the response of {fields['event']}")))
            except RequestError as error:
                answers.append(Answer(manager, error=error))
        return answers

    @overload
    def open(
        self,
        event: TunnelEvent[P, U, D, R],
        payload: P,
        *,
        key: Optional[str] = None,
        headers: Optional[Mapping[str, str]] = None,
    ) -> Opening[U, D, R]: ...
    @overload
    def open(
        self, event: object, payload: Any = ..., *, key: Optional[str] = None, headers: Optional[Mapping[str, str]] = None
    ) -> Opening[Any, Any, Any]: ...
    def open(
        self, event: Any, payload: Any = _MISSING, *, key: Optional[str] = None, headers: Optional[Mapping[str, str]] = None
    ) -> Opening[Any, Any, Any]:
        """Opens a tunnel: ``async with cx.open(event, payload) as tunnel``. The end of the block drops it."""
        known, fields, size = self._call("tunnel", event, payload, key, headers)
        fields["credit"] = {"items": ITEMS, "bytes": BYTES}
        tunnel: OpenedTunnel[Any, Any, Any] = OpenedTunnel(self._session, known, fields["event"])  # type: ignore[arg-type]
        return Opening(tunnel, fields, size)

    # ---- inside ----------------------------------------------------------------------------------------------------

    async def _request(
        self,
        more: Fields,
        event: Any,
        payload: Any,
        timeout: Optional[float],
        key: Optional[str],
        headers: Optional[Mapping[str, str]],
    ) -> Any:
        known, fields, size, seconds = self._request_call(more, event, payload, timeout, key, headers)
        call = await self._session.calls.make("request", fields, size)
        response = await self._session.calls.wait(call, seconds)
        shape = None if known is None else known.output
        return self._session.value_of(response, shape, f"the response of {fields['event']}")

    def _request_call(
        self,
        more: Fields,
        event: Any,
        payload: Any,
        timeout: Optional[float],
        key: Optional[str],
        headers: Optional[Mapping[str, str]],
    ) -> Tuple[Optional[Event[Any]], Fields, int, Optional[float]]:
        known, fields, size = self._call("request", event, payload, key, headers)
        remaining = self.remaining
        limits = [limit for limit in (timeout, remaining) if limit is not None]
        seconds = min(limits) if limits else None
        if seconds is not None:
            if seconds <= 0:
                raise RequestError("timed_out", f"no time is left to request {fields['event']}")
            fields["timeout_ms"] = max(1, int(seconds * 1000))
        elif known is not None and known.time_limit is not None:
            seconds = known.time_limit  # The node knows it from the declaration.
        fields.update(more)
        return known, fields, size, seconds

    def _call(
        self, kind: str, event: Any, payload: Any, key: Optional[str], headers: Optional[Mapping[str, str]]
    ) -> Tuple[Optional[Event[Any]], Fields, int]:
        """The fields that all calls have. Only an event that was not meant by its plain name is returned as known."""
        by_name = isinstance(event, str)
        name, known, value = self._session.resolve(kind, event, None if payload is _MISSING else payload, payload is _MISSING)
        if known is not None and not by_name:
            known.payload.check(value, f"the payload of {name}")
        packed = pack(value)
        self._session.check_length(len(packed), f"the payload of {name}")
        fields: Fields = {"event": name, "payload": packed}
        if self._fields:
            if self.id is not None:
                fields["cause"] = self.id
            if self.trace is not None:
                fields["trace"] = self.trace
        if key is not None:
            fields["key"] = key
        if headers:
            fields["headers"] = {str(header): str(text) for header, text in headers.items()}
        return (None if by_name else known), fields, len(packed)


class SyncContext(_About):
    """The surroundings of a plain function, which runs in a thread: the verbs of :class:`Context`, and they block."""

    def __init__(self, context: Context) -> None:
        super().__init__(context._session, context._fields, context._received)
        self._context = context

    @property
    def cancelled(self) -> bool:
        """Whether the requester, or the opener of the tunnel, waits no more. A handler may then stop early."""
        return self._context._is_cancelled

    @overload
    def publish(self, event: NotificationEvent[P], payload: P, **options: Any) -> Receipt: ...
    @overload
    def publish(self, event: object, payload: Any = ..., **options: Any) -> Receipt: ...
    def publish(self, event: Any, payload: Any = _MISSING, **options: Any) -> Receipt:
        """As :meth:`Context.publish`."""
        return self._session.run_blocking(self._context.publish(event, payload, **options))

    @overload
    def request(self, event: RequestEvent[P, R], payload: P, **options: Any) -> R: ...
    @overload
    def request(self, event: object, payload: Any = ..., **options: Any) -> Any: ...
    def request(self, event: Any, payload: Any = _MISSING, **options: Any) -> Any:
        """As :meth:`Context.request`."""
        return self._session.run_blocking(self._context.request(event, payload, **options))

    def request_to(self, manager: str, event: Any, payload: Any = _MISSING, **options: Any) -> Any:
        """As :meth:`Context.request_to`."""
        return self._session.run_blocking(self._context.request_to(manager, event, payload, **options))

    def request_all(self, event: Any, payload: Any = _MISSING, **options: Any) -> List[Answer]:
        """As :meth:`Context.request_all`."""
        return self._session.run_blocking(self._context.request_all(event, payload, **options))

    @overload
    def open(self, event: TunnelEvent[P, U, D, R], payload: P, **options: Any) -> SyncOpening[U, D, R]: ...
    @overload
    def open(self, event: object, payload: Any = ..., **options: Any) -> SyncOpening[Any, Any, Any]: ...
    def open(self, event: Any, payload: Any = _MISSING, **options: Any) -> SyncOpening[Any, Any, Any]:
        """As :meth:`Context.open`, with a plain ``with``."""
        return SyncOpening(self._session, self._context.open(event, payload, **options))


#: Either of them.
AnyContext = Union[Context, SyncContext]

