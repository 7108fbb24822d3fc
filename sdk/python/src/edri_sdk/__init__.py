"""Workers for edri in Python.

A :class:`Worker` has handlers for notifications, requests and tunnels, which a node gives to it over a socket::

    worker = Worker()

    @worker.notification("quake.recorded", key="region")
    async def recorded(quake: QuakeRecorded, cx: Context) -> None: ...

    if __name__ == "__main__":
        worker.run()
"""

__version__ = "0.1.0"

from .client import Client, Received, Subscription, SyncClient, SyncSubscription, connect
from .context import Answer, Context, Receipt, SyncContext
from .errors import (
    ConnectError,
    DeclarationError,
    EdriError,
    Failure,
    Mismatch,
    ProtocolError,
    RequestError,
    TunnelBroken,
    TunnelEnded,
)
from .events import Cache, Event, Expose, NotificationEvent, RequestEvent, TunnelEvent, notification_event, request_event, tunnel_event
from .remote import serve, serve_async
from .tunnels import OpenedTunnel, SyncTunnel, Tunnel
from .worker import Worker, notification, request, started, stopping, tunnel

__all__ = [
    "Answer",
    "Client",
    "ConnectError",
    "Context",
    "DeclarationError",
    "EdriError",
    "Event",
    "Cache",
    "Expose",
    "Failure",
    "Mismatch",
    "NotificationEvent",
    "OpenedTunnel",
    "ProtocolError",
    "Receipt",
    "Received",
    "RequestError",
    "RequestEvent",
    "Subscription",
    "SyncClient",
    "SyncContext",
    "SyncSubscription",
    "SyncTunnel",
    "Tunnel",
    "TunnelBroken",
    "TunnelEnded",
    "TunnelEvent",
    "Worker",
    "__version__",
    "connect",
    "notification",
    "notification_event",
    "request",
    "request_event",
    "serve",
    "serve_async",
    "started",
    "stopping",
    "tunnel",
    "tunnel_event",
]
