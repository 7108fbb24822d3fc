"""A worker: its handlers, and its life in a process of its own."""

from __future__ import annotations

import inspect
import logging
from typing import Any, Callable, Dict, List, Optional, TypeVar, Union

from . import __version__
from .errors import DeclarationError
from .events import Event, Exposed, NotificationEvent, RequestEvent, TunnelEvent
from .frames import VERSION
from .handlers import NOT_GIVEN, Handler, Spec, name_of, notification_spec, request_spec, tunnel_spec

F = TypeVar("F", bound=Callable[..., Any])
E = TypeVar("E", bound=Event[Any])

#: The attribute by which methods of a class are known as handlers.
_MARK = "__edri_specs__"
_HANDLERS_MAX = 4096


class Worker:
    """What a process handles.

    ``concurrency``: how many handlers run at once. With 1 they run one after the other, in the order in which the events
    came; with more, no order is promised. ``calls`` and ``bytes`` are the window: how many events, and bytes of their
    payloads, the node hands over before earlier ones are answered.
    """

    def __init__(self, concurrency: int = 1, *, calls: Optional[int] = None, bytes: int = 8 << 20) -> None:
        if not isinstance(concurrency, int) or concurrency < 1:
            raise DeclarationError(f"concurrency is how many handlers run at once, 1 or more, not {concurrency!r}")
        self.concurrency = concurrency
        self._window = {"calls": max(64, concurrency) if calls is None else calls, "bytes": bytes}
        self.handlers: List[Handler] = []
        self.start_hooks: List[Callable[..., Any]] = []
        self.stop_hooks: List[Callable[..., Any]] = []
        self._events: Dict[str, Event[Any]] = {}

    # ---- declaring -------------------------------------------------------------------------------------------------

    def notification(
        self,
        event: Union[str, NotificationEvent[Any]],
        *,
        payload: Any = NOT_GIVEN,
        key: Optional[str] = None,
        time_to_live: Optional[float] = None,
        description: str = "",
        expose: Exposed = False,
    ) -> Callable[[F], F]:
        """Makes a function the handler of a notification, or of all that a pattern selects (``quake.*``, ``quake.>``).

        The function takes the event and, if it wants, the context. Its first type hint says what the event is: a dataclass,
        or ``dict`` for the plain payload. Raises :class:`DeclarationError`.
        """
        return self._decorator(notification_spec(event, payload, key, time_to_live, description, expose))

    def request(
        self,
        event: Union[str, RequestEvent[Any, Any]],
        *,
        payload: Any = NOT_GIVEN,
        response: Any = NOT_GIVEN,
        key: Optional[str] = None,
        timeout: Optional[float] = None,
        idempotent: bool = False,
        description: str = "",
        expose: Exposed = False,
    ) -> Callable[[F], F]:
        """Makes a function the handler of a request: what it returns is the response.

        ``timeout`` in seconds, for requesters that give none; edri's own default is 30. ``idempotent``: it may be tried
        again elsewhere when the worker that had it is lost.
        """
        return self._decorator(request_spec(event, payload, response, key, timeout, idempotent, description, expose))

    def tunnel(
        self,
        event: Union[str, TunnelEvent[Any, Any, Any, Any]],
        *,
        payload: Any = NOT_GIVEN,
        up: Any = NOT_GIVEN,
        down: Any = NOT_GIVEN,
        result: Any = NOT_GIVEN,
        key: Optional[str] = None,
        idle_timeout: Optional[float] = None,
        description: str = "",
        expose: Exposed = False,
    ) -> Callable[[F], F]:
        """Makes a function the handler of a tunnel: it takes the event, the tunnel and, if it wants, the context.

        ``up`` is what the opener sends, ``down`` what the handler sends, ``result`` what it returns. A tunnel in which
        nothing moves for ``idle_timeout`` seconds breaks.
        """
        return self._decorator(tunnel_spec(event, payload, up, down, result, key, idle_timeout, description, expose))

    def started(self, hook: F) -> F:
        """Calls ``hook(cx)`` before the first event. When it raises, the worker does not start."""
        self.start_hooks.append(_checked_hook(hook))
        return hook

    def stopping(self, hook: F) -> F:
        """Calls ``hook(cx)`` after the last event. It may still publish, request and open."""
        self.stop_hooks.append(_checked_hook(hook))
        return hook

    def sends(self, event: E) -> E:
        """Declares an event that the worker sends and does not handle, with its schemas. Returns it."""
        if not isinstance(event, Event):
            raise DeclarationError(f"{event!r} is no event: make one with notification_event, request_event or tunnel_event")
        self._declare(event)
        return event

    def add(self, owner: object) -> None:
        """Adds the handlers of an object: its methods that are decorated with ``edri_sdk.notification``, ``request``,
        ``tunnel``, ``started`` and ``stopping``."""
        found = False
        # In the order of definition, those of base classes first.
        names = dict.fromkeys(name for cls in reversed(type(owner).__mro__) for name in vars(cls))
        for name in names:
            for spec in getattr(getattr(type(owner), name, None), _MARK, ()):
                found = True
                method = getattr(owner, name)
                if isinstance(spec, Spec):
                    self._add(spec.handler(method))
                else:
                    (self.started if spec == "started" else self.stopping)(method)
        if not found:
            raise DeclarationError(f"{type(owner).__name__} has no handlers: decorate methods with `edri_sdk.notification` and so on")

    def _decorator(self, spec: Spec) -> Callable[[F], F]:
        def decorate(function: F) -> F:
            self._add(spec.handler(function))
            return function

        return decorate

    def _add(self, handler: Handler) -> None:
        for other in self.handlers:
            if other.select == handler.select:
                raise DeclarationError(f"{handler.name}: {other.name} handles {handler.select} already; a worker has one handler for it")
        if len(self.handlers) == _HANDLERS_MAX:
            raise DeclarationError(f"a worker has at most {_HANDLERS_MAX} handlers")
        if handler.event is not None:
            self._declare(handler.event)
        self.handlers.append(handler)

    def _declare(self, event: Event[Any]) -> None:
        other = self._events.get(event.name)
        if other is not None and other is not event and other.declaration() != event.declaration():
            raise DeclarationError(f"{event.name} is declared twice, and not the same: keep one declaration and use it in both places")
        if other is None:
            self._events[event.name] = event

    # ---- for the session -------------------------------------------------------------------------------------------

    @property
    def events(self) -> List[Event[Any]]:
        """What it handles and sends."""
        return list(self._events.values())

    def hello(self) -> Dict[str, Any]:
        """The fields of its first frame."""
        return {
            "version": VERSION,
            "role": "worker",
            "agent": f"edri-sdk-python {__version__}",
            "events": [event.declaration() for event in self.events],
            "handlers": [{"select": handler.select} for handler in self.handlers],
            "window": self._window,
            "concurrency": self.concurrency,
        }

    def run(self, log_level: int = logging.INFO) -> None:
        """Works until the node says that it is enough. The last line of a program that a node has started.

        Ends the process with 1 when the worker's own start fails or the node is gone, with 2 when no node has started
        it. ``log_level``: from which level on records of `logging` go to the node, unless the program has set one.
        """
        from .process import run

        run(self, log_level)


def _checked_hook(hook: Any) -> Any:
    if not callable(hook):
        raise DeclarationError(f"{hook!r} is no function")


    try:
        inspect.signature(hook).bind(object())
    except TypeError:
        raise DeclarationError(f"{name_of(hook)}: a hook takes the context: def {getattr(hook, '__name__', 'hook')}(cx)") from None
    return hook


def _mark(function: F, spec: Any) -> F:
    setattr(function, _MARK, [*getattr(function, _MARK, ()), spec])
    return function


def notification(
    event: Union[str, NotificationEvent[Any]],
    *,
    payload: Any = NOT_GIVEN,
    key: Optional[str] = None,
    time_to_live: Optional[float] = None,
    description: str = "",
    expose: Exposed = False,
) -> Callable[[F], F]:
    """:meth:`Worker.notification` for a method of a class; :meth:`Worker.add` adds an object of it."""
    return lambda function: _mark(function, notification_spec(event, payload, key, time_to_live, description, expose))


def request(
    event: Union[str, RequestEvent[Any, Any]],
    *,
    payload: Any = NOT_GIVEN,
    response: Any = NOT_GIVEN,
    key: Optional[str] = None,
    timeout: Optional[float] = None,
    idempotent: bool = False,
    description: str = "",
    expose: Exposed = False,
) -> Callable[[F], F]:
    """:meth:`Worker.request` for a method of a class."""
    spec = request_spec(event, payload, response, key, timeout, idempotent, description, expose)
    return lambda function: _mark(function, spec)


def tunnel(
    event: Union[str, TunnelEvent[Any, Any, Any, Any]],
    *,
    payload: Any = NOT_GIVEN,
    up: Any = NOT_GIVEN,
    down: Any = NOT_GIVEN,
    result: Any = NOT_GIVEN,
    key: Optional[str] = None,
    idle_timeout: Optional[float] = None,
    description: str = "",
    expose: Exposed = False,
) -> Callable[[F], F]:
    """:meth:`Worker.tunnel` for a method of a class."""
    spec = tunnel_spec(event, payload, up, down, result, key, idle_timeout, description, expose)
    return lambda function: _mark(function, spec)


def started(hook: F) -> F:
    """:meth:`Worker.started` for a method of a class."""
    return _mark(hook, "started")


def stopping(hook: F) -> F:
    """:meth:`Worker.stopping` for a method of a class."""
    return _mark(hook, "stopping")
