"""Handlers: functions and what events they are for. Everything that can be wrong with one is said here."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from typing import Any, Callable, Dict, List, Optional, Union

from . import events
from .errors import DeclarationError, Failure, Mismatch
from .events import FRAME_OF_KIND, Event, Exposed, NotificationEvent, RequestEvent, TunnelEvent
from .frames import Fields, unpack
from .names import check_pattern, is_pattern
from .shape import Shape

NOT_GIVEN: Any = object()
#: How many arguments a handler takes: at least, at most.
_ARITY = {"notification": (1, 2), "request": (1, 2), "tunnel": (2, 3)}
_ARGUMENTS = {"notification": "(event, cx)", "request": "(event, cx)", "tunnel": "(event, tunnel, cx)"}


class Handler:
    """A function that handles an event, or notifications that a pattern selects."""

    __slots__ = ("select", "kind", "verb", "event", "function", "is_plain", "_decode", "check", "name")

    def __init__(self, select: str, kind: str, event: Optional[Event[Any]], function: Callable[..., Any], name: str) -> None:
        self.select = select
        self.kind = kind
        self.event = event
        #: Takes the event (a tunnel also the tunnel) and the context.
        self.function = function
        #: Whether it is a plain function, which runs in a thread.
        self.is_plain = not is_async(function)
        #: The name of the frame that calls it.
        self.verb = FRAME_OF_KIND[kind]
        self._decode = None if event is None else event.payload.decode
        #: Whether what it returns has to be looked at before it is sent.
        self.check: Optional[Shape] = None if event is None or event.output.type is None else event.output
        self.name = name

    def read(self, fields: Fields) -> Any:
        """The payload of a call as the handler takes it; :class:`Failure` when it is not what the handler's type says."""
        try:
            plain = unpack(fields.get("payload"))
            return plain if self._decode is None else self._decode(plain)
        except (ValueError, Mismatch, RecursionError) as error:
            text = "it nests too deep" if isinstance(error, RecursionError) else str(error)
            raise Failure("invalid_payload", f"the payload of {fields['event']}: {text}") from None

    def __repr__(self) -> str:
        return f"<handler {self.name} for {self.select}>"


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives something to await."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))


def name_of(function: Any) -> str:
    """How a function is called in messages."""
    return str(getattr(function, "__qualname__", repr(function)))


def hints_of(function: Callable[..., Any], name: str) -> Dict[str, Any]:
    """The type hints of a handler."""
    target: Any = function
    while isinstance(target, functools.partial):
        target = target.func
    if not (inspect.isfunction(target) or inspect.ismethod(target)):
        target = getattr(type(target), "__call__", target)
    try:
        return typing.get_type_hints(target)
    except Exception as error:
        raise DeclarationError(
            f"{name}: its type hints cannot be resolved ({error}): define the types they name at the top level of the module, "
            "or give them to the decorator, as in payload=QuakeRecorded"
        ) from error


def parameters_of(function: Callable[..., Any], kind: str, name: str) -> List[str]:
    """The names of the parameters that are filled in by position."""
    if not callable(function):
        raise DeclarationError(f"{name} is no function")
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise DeclarationError(f"{name}: a handler returns its answer; `yield` makes it a generator, which answers nothing")
    least, most = _ARITY[kind]
    positional: List[inspect.Parameter] = []
    takes_any = False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            if parameter.default is parameter.empty or len(positional) < most:
                positional.append(parameter)
        elif parameter.kind is parameter.VAR_POSITIONAL:
            takes_any = True
        elif parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
            raise DeclarationError(f"{name}: `{parameter.name}` is keyword-only and has no default; a {kind} is handled by {_ARGUMENTS[kind]}")
    if not takes_any and not least <= len(positional) <= most:
        raise DeclarationError(f"{name} takes {len(positional)} arguments; a {kind} is handled by {_ARGUMENTS[kind]}")
    if takes_any and len(positional) < most:
        return [parameter.name for parameter in positional] + ["*"] * (most - len(positional))
    return [parameter.name for parameter in positional]


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a decorator says, until the function is there."""

    kind: str
    event: Union[str, Event[Any]]
    options: Dict[str, Any]

    def handler(self, function: Callable[..., Any]) -> Handler:
        """The handler; raises :class:`DeclarationError`."""
        name = name_of(function)
        parameters = parameters_of(function, self.kind, name)
        if len(parameters) < _ARITY[self.kind][1]:
            called = _without_context(function, self.kind)
        else:
            called = function
        if is_pattern(self.event):
            if self.kind != "notification":
                raise DeclarationError(f"{name}: a pattern selects notifications only; name the {self.kind} it handles")
            if any(value for value in self.options.values() if value is not NOT_GIVEN):
                raise DeclarationError(f"{name}: a pattern selects events that others declare, so it has no options")
            return Handler(check_pattern(str(self.event)), self.kind, None, called, name)
        event = self._event(function, parameters, name)
        return Handler(event.name, self.kind, event, called, name)

    def _event(self, function: Callable[..., Any], parameters: List[str], name: str) -> Event[Any]:
        if isinstance(self.event, Event):
            if self.event.kind != self.kind:
                raise DeclarationError(f"{name}: {self.event.name} is a {self.event.kind}, not a {self.kind}")
            given = [option for option, value in self.options.items() if value is not NOT_GIVEN and value]
            if given:
                raise DeclarationError(f"{name}: {self.event.name} is declared already, so `{given[0]}` belongs there")
            return self.event
        options = dict(self.options)
        hints = hints_of(function, name) if _wants_hints(options) else {}
        if options["payload"] is NOT_GIVEN:
            options["payload"] = hints.get(parameters[0], Any)
        for place in ("response", "result"):
            if options.get(place) is NOT_GIVEN:
                options[place] = hints.get("return", Any)
        for place in ("up", "down"):
            if options.get(place) is NOT_GIVEN:
                options[place] = Any
        if not options["description"]:
            options["description"] = _first_words(function)
        try:
            return _DECLARE[self.kind](self.event, **options)
        except DeclarationError as error:
            raise DeclarationError(f"{name}: {error}") from error


_DECLARE: Dict[str, Callable[..., Event[Any]]] = {
    "notification": events.notification_event,
    "request": events.request_event,
    "tunnel": events.tunnel_event,
}


def _wants_hints(options: Dict[str, Any]) -> bool:
    return any(options.get(place) is NOT_GIVEN for place in ("payload", "response", "result"))


def _first_words(function: Any) -> str:
    text = inspect.getdoc(function) if inspect.isroutine(function) else None
    return (text or "").split("\n\n")[0].replace("\n", " ")


def _without_context(function: Callable[..., Any], kind: str) -> Callable[..., Any]:
    """A handler that does not want the context, in the form of those that do."""
    if kind == "tunnel":
        if is_async(function):

            async def tunnel_handler(event: Any, tunnel: Any, _: Any) -> Any:
                return await function(event, tunnel)

            return tunnel_handler
        return lambda event, tunnel, _: function(event, tunnel)
    if is_async(function):

        async def handler(event: Any, _: Any) -> Any:
            return await function(event)

        return handler
    return lambda event, _: function(event)


def notification_spec(
    event: Union[str, NotificationEvent[Any]],
    payload: Any,
    key: Optional[str],
    time_to_live: Optional[float],
    description: str,
    expose: Exposed = False,
) -> Spec:
    """See :meth:`edri_sdk.Worker.notification`."""
    return Spec(
        "notification",
        event,
        {
            "payload": payload,
            "key": key,
            "time_to_live": time_to_live,
            "description": description,
            "expose": expose,
        },
    )


def request_spec(
    event: Union[str, RequestEvent[Any, Any]],
    payload: Any,
    response: Any,
    key: Optional[str],
    timeout: Optional[float],
    idempotent: bool,
    description: str,
    expose: Exposed = False,
) -> Spec:
    """See :meth:`edri_sdk.Worker.request`."""
    return Spec(
        "request",
        event,
        {
            "payload": payload,
            "response": response,
            "key": key,
            "timeout": timeout,
            "idempotent": idempotent,
            "description": description,
            "expose": expose,
        },
    )


def tunnel_spec(
    event: Union[str, TunnelEvent[Any, Any, Any, Any]],
    payload: Any,
    up: Any,
    down: Any,
    result: Any,
    key: Optional[str],
    idle_timeout: Optional[float],
    description: str,
    expose: Exposed = False,
) -> Spec:
    """See :meth:`edri_sdk.Worker.tunnel`."""
    return Spec(
        "tunnel",
        event,
        {
            "payload": payload,
            "up": up,
            "down": down,
            "result": result,
            "key": key,
            "idle_timeout": idle_timeout,
            "description": description,
            "expose": expose,
        },
    )


