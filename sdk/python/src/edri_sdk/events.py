"""Events: what a worker handles and sends."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, Generic, Mapping, Optional, Sequence, TypeVar, Union

from .errors import DeclarationError
from .names import check_name
from .shape import UNKNOWN, Shape, ShapeLike, shape_of

P = TypeVar("P")
R = TypeVar("R")
U = TypeVar("U")
D = TypeVar("D")

#: Kinds of events, and the frames that carry them.
FRAME_OF_KIND = {"notification": "publish", "request": "request", "tunnel": "open"}


@dataclasses.dataclass(frozen=True)
class Cache:
    """For how long, in seconds, the response to a request may be given again to the same request. ``public``: whoever asks;
    ``stale_on``: notifications that end it sooner, one with a key only what has the same key."""

    lifetime: float
    public: bool = False
    stale_on: Sequence[str] = ()

    def fields(self) -> Dict[str, Any]:
        """What is said, as a declaration has it."""
        said: Dict[str, Any] = {"lifetime_ms": max(1, round(self.lifetime * 1000))}
        if self.public:
            said["public"] = True
        if self.stale_on:
            said["stale_on"] = list(self.stale_on)
        return said


@dataclasses.dataclass(frozen=True)
class Expose:
    """How an event is reached from outside, through a gateway: ``routes`` like ``"GET /risk/{region}"``, and fields that come from a
    header or a cookie, by its name, and from nowhere else. Without routes it is there under ``POST /events/{name}`` only."""

    routes: Sequence[str] = ()
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cookies: Mapping[str, str] = dataclasses.field(default_factory=dict)
    #: The template that shows the answer to a browser, in the gateway's folder of pages.
    page: Optional[str] = None
    #: The template that shows the form again when what was sent in it is wrong.
    form: Optional[str] = None
    #: Where a browser goes after its form was taken: ``/tickets/{id}``.
    then: Optional[str] = None
    #: For how long a response may be given again.
    cache: Optional[Cache] = None

    def fields(self) -> Dict[str, Any]:
        """What is said, as a declaration has it."""
        said: Dict[str, Any] = {"routes": list(self.routes), "headers": dict(self.headers), "cookies": dict(self.cookies)}
        said.update(page=self.page, form=self.form, then=self.then)
        if self.cache is not None:
            said["cache"] = self.cache.fields()
        return {what: value for what, value in said.items() if value}


#: ``True``, one route, several, or all there is to say.
Exposed = Union[bool, str, Sequence[str], Expose]
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def expose_of(said: Exposed, event: str) -> Optional[Expose]:
    """What ``expose=`` says of an event; None when it is not exposed."""
    if said is None or said is False:
        return None
    if isinstance(said, str):
        said = [said]
    expose = Expose() if said is True else said if isinstance(said, Expose) else Expose(list(said))  # type: ignore[arg-type, unused-ignore]
    for route in expose.routes:
        method, space, path = str(route).partition(" ")
        if not space or method not in _METHODS or not path.startswith("/"):
            raise DeclarationError(f"{event}: {route!r} is no route: write it like 'GET /risk/{{region}}'")
    return expose


class Event(Generic[P]):
    """A declared event. Make one with :func:`notification_event`, :func:`request_event` or :func:`tunnel_event`."""

    kind = ""

    def __init__(
        self,
        name: str,
        payload: ShapeLike = Any,
        *,
        key: Optional[str] = None,
        time_limit: Optional[float] = None,
        idempotent: bool = False,
        description: str = "",
        expose: Exposed = False,
    ) -> None:
        self.name = check_name(name)
        self.expose = expose_of(expose, name)
        self.payload: Shape = shape_of(payload, f"the payload of {name}")
        self.output: Shape = UNKNOWN
        self.up: Shape = UNKNOWN
        self.down: Shape = UNKNOWN
        self.key = key
        self.time_limit = time_limit
        self.idempotent = idempotent
        self.description = description
        self._check()

    def _check(self) -> None:
        schema = self.payload.schema
        if isinstance(schema, dict) and schema.get("type", "object") != "object":
            raise DeclarationError(
                f"the payload of {self.name} is a map with named fields: make a dataclass of it, or take a dict"
            )
        if self.key is not None:
            properties = schema.get("properties") if isinstance(schema, dict) else None
            if isinstance(properties, dict) and self.key not in properties:
                known = ", ".join(properties) or "none"
                raise DeclarationError(f"{self.name}: the key {self.key!r} is no field of its payload; its fields: {known}")
        if self.time_limit is not None and not self.time_limit > 0:
            raise DeclarationError(f"{self.name}: a time limit is more than 0 seconds, not {self.time_limit!r}")

    def declaration(self) -> Dict[str, Any]:
        """The event as ``hello`` and ``declare`` say it."""
        fields: Dict[str, Any] = {"name": self.name, "kind": self.kind}
        if self.key is not None:
            fields["key"] = self.key
        if self.time_limit is not None:
            fields["time_limit_ms"] = max(1, round(self.time_limit * 1000))
        if self.idempotent:
            fields["idempotent"] = True
        if self.description:
            fields["description"] = self.description
        if self.expose is not None:
            fields["expose"] = self.expose.fields()
        shapes = {"event": self.payload, "output": self.output, "up": self.up, "down": self.down}
        schemas = {place: shape.schema for place, shape in shapes.items() if shape.schema is not None}
        if schemas:
            fields["schemas"] = schemas
        return fields

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"


class NotificationEvent(Event[P]):
    """A notification: delivered to everybody who is interested."""

    kind = "notification"


class RequestEvent(Event[P], Generic[P, R]):
    """A request: it has exactly one response, of the shape ``output``."""

    kind = "request"


class TunnelEvent(Event[P], Generic[P, U, D, R]):
    """A tunnel: a stream in both directions between its opener (who sends ``up``) and a worker (who sends ``down``)."""

    kind = "tunnel"


def notification_event(
    name: str,
    payload: Any = Any,
    *,
    key: Optional[str] = None,
    time_to_live: Optional[float] = None,
    description: str = "",
    expose: Exposed = False,
) -> NotificationEvent[Any]:
    """Declares a notification.

    ``payload`` is a dataclass (or other type hint), or a JSON Schema as a dict. ``key`` names the field whose value is the
    key: same key, same worker, in order. ``time_to_live`` in seconds: later it is not handled any more. ``expose``: how it is
    reached through a gateway.
    """
    return NotificationEvent(name, payload, key=key, time_limit=time_to_live, description=description, expose=expose)


def request_event(
    name: str,
    payload: Any = Any,
    response: Any = Any,
    *,
    key: Optional[str] = None,
    timeout: Optional[float] = None,
    idempotent: bool = False,
    description: str = "",
    expose: Exposed = False,
) -> RequestEvent[Any, Any]:
    """Declares a request.

    ``timeout`` in seconds, 30 when it is not given. An ``idempotent`` request is tried again when its worker is lost.
    """
    event: RequestEvent[Any, Any] = RequestEvent(
        name, payload, key=key, time_limit=timeout, idempotent=idempotent, description=description, expose=expose
    )
    event.output = shape_of(response, f"the response of {name}")
    return event


def tunnel_event(
    name: str,
    payload: Any = Any,
    *,
    up: Any = Any,
    down: Any = Any,
    result: Any = Any,
    key: Optional[str] = None,
    idle_timeout: Optional[float] = None,
    description: str = "",
    expose: Exposed = False,
) -> TunnelEvent[Any, Any, Any, Any]:
    """Declares a tunnel. ``idle_timeout`` in seconds: a tunnel in which nothing moves for so long breaks."""
    event: TunnelEvent[Any, Any, Any, Any] = TunnelEvent(
        name, payload, key=key, time_limit=idle_timeout, description=description, expose=expose
    )
    event.up = shape_of(up, f"the items up of {name}")
    event.down = shape_of(down, f"the items down of {name}")
    event.output = shape_of(result, f"the result of {name}")
    return event
