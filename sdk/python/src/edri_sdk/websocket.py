"""The library for WebSockets, which only those need who connect to a node: how it is found, and what it is told."""

from __future__ import annotations

import random
import ssl
from typing import Any, Callable, Dict, Optional, Union

from .errors import ConnectError, EdriError

#: Frames are MessagePack, each in a binary message.
SUBPROTOCOL = "edri.msgpack"
#: No message of a node is longer.
MESSAGE_BYTES_MAX = (16 << 20) + (1 << 16)
#: How long, in seconds, it may take to connect, and to close.
OPEN_TIMEOUT = 10.0
CLOSE_TIMEOUT = 2.0
#: The pause before the first attempt to connect again, in seconds, and the longest.
PAUSE_FIRST = 0.1
PAUSE_LONGEST = 10.0

#: A token, or what gives one, which is asked anew for each connection.
Token = Union[None, str, Callable[[], str]]


def library() -> Any:
    """The module ``websockets.asyncio.client``; an error that says what to do when it is not there."""
    try:
        import websockets.asyncio.client
        import websockets.exceptions
    except ImportError as error:
        raise EdriError(
            "to connect to a node, this needs the library `websockets`, version 13 or later: pip install 'edri-sdk[websocket]'"
        ) from error
    return websockets


def options(token: Token, context: Any) -> Dict[str, Any]:
    """What is said to the library for each connection."""
    secret = token() if callable(token) else token
    options: Dict[str, Any] = {
        "subprotocols": [SUBPROTOCOL],
        # What is compressed twice is slower and no shorter.
        "compression": None,
        "open_timeout": OPEN_TIMEOUT,
        "close_timeout": CLOSE_TIMEOUT,
        "max_size": MESSAGE_BYTES_MAX,
    }
    if secret:
        options["additional_headers"] = {"Authorization": f"Bearer {secret}"}
    if context is not None:
        options["ssl"] = context
    return options


def address_of(url: str) -> str:
    """``ws://host:port`` with the path of a node's gateway, unless it has another."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("ws", "wss"):
        raise EdriError(f"{url!r} is no address of a gateway: write it like 'ws://127.0.0.1:8080', or with wss")
    host, slash, path = rest.partition("/")
    if not host:
        raise EdriError(f"{url!r} names no host")
    return f"{scheme}://{host}/{path or 'ws'}"


def refusal(error: BaseException, again: bool = False) -> Optional[ConnectError]:
    """What the answer of a gateway means that lets nobody in; ``None`` when it is worth another attempt. ``again``: this gateway was
    trusted before, so that its certificate will be renewed if it is not now."""
    if isinstance(error, ssl.SSLCertVerificationError) and not again:
        hint = "if it is of an authority of your own, give `ssl=ssl.create_default_context(cafile=...)`"
        return ConnectError("untrusted", f"the gateway's certificate is not trusted: {error.verify_message or error}; {hint}")
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if status is None or status in (408, 425, 429, 500, 502, 503, 504):
        return None
    code = {401: "unauthorized", 403: "forbidden", 404: "not_found"}.get(status, "refused")
    text = bytes(getattr(response, "body", None) or b"").decode("utf-8", "replace")[:500]
    return ConnectError(code, f"the gateway answers {status}: {text}" if text else f"the gateway answers {status}")


class Pauses:
    """The pauses between attempts: longer and longer, and never quite the same, so that many do not come at once."""

    def __init__(self) -> None:
        self._next = PAUSE_FIRST

    def next(self) -> float:
        """How many seconds to wait now."""
        pause, self._next = self._next, min(2 * self._next, PAUSE_LONGEST)
        return pause * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """It went well."""
        self._next = PAUSE_FIRST
