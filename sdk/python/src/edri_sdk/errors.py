"""What can go wrong, as exceptions."""

from __future__ import annotations

import traceback
from typing import Any, Dict, List, Optional

#: Longer texts in faults and log records are cut, so that no message can outgrow a frame.
TEXT_MAX = 64 << 10


class EdriError(Exception):
    """The base of what this package raises."""


class DeclarationError(EdriError):
    """A worker, event or type is declared in a way that cannot work. Raised where it is declared."""


class Failure(EdriError):
    """Raised in a handler: it cannot do what the event asks.

    ``code`` is stable, programs compare it; ``message`` is for people. ``detail`` is more for people who look for the
    cause, as a traceback.
    """

    def __init__(self, code: str, message: str = "", detail: Optional[str] = None) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class RequestError(EdriError):
    """A call to the node came to nothing.

    ``code`` is the failure's own when a handler failed (``is_failure`` is true then), otherwise one of edri's:
    ``no_handler``, ``timed_out``, ``overloaded``, ``worker_lost``, ... ``wait`` says what was waited for in vain, when
    that is why: ``{"waited_ms": 1500, "groups": ["risk"], "cycle": []}``.
    """

    def __init__(
        self,
        code: str,
        message: str = "",
        detail: Optional[str] = None,
        wait: Optional[Dict[str, Any]] = None,
        is_failure: bool = False,
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.detail = detail
        self.wait = wait
        self.is_failure = is_failure

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    @classmethod
    def of_fault(cls, fault: Any, is_failure: bool = False) -> RequestError:
        """The error that a fault of the wire says."""
        if not isinstance(fault, dict):
            fault = {}
        return cls(
            str(fault.get("code") or "failed"),
            str(fault.get("message") or ""),
            fault.get("detail"),
            fault.get("wait"),
            is_failure,
        )


class TunnelBroken(RequestError):
    """The tunnel ended before its time: aborted by the other side, or dropped (code ``cancelled``)."""


class TunnelEnded(EdriError):
    """Nothing more comes: the other side has finished its direction."""


class ProtocolError(EdriError):
    """The node said what is no frame, or no frame for now. The connection is of no use any more.

    ``is_the_nodes``: it is the node that found something wrong, and said so.
    """

    def __init__(self, code: str, message: str, is_the_nodes: bool = False) -> None:
        super().__init__(code, message)
        self.is_the_nodes = is_the_nodes
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class ConnectError(EdriError):
    """The node does not let this program in, and would not if it came again; ``code`` says why, as ``unauthorized``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class NodeGone(EdriError):
    """The node has closed the connection."""


class Mismatch(EdriError):
    """A value is not what its type says; :attr:`path` tells where: ``regions[2].name``."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.steps: List[str] = []

    def within(self, step: str) -> Mismatch:
        """The same, seen from one level further out. ``step`` is ``.name`` or ``[2]``."""
        self.steps.insert(0, step)
        return self

    @property
    def path(self) -> str:
        """Where in the value; empty for the value itself."""
        return "".join(self.steps).lstrip(".")

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.steps else self.message


def clean(text: str) -> str:
    """``text`` without what cannot be written as UTF-8, and not longer than a frame likes."""
    if len(text) > TEXT_MAX:
        text = text[:TEXT_MAX] + " ..."
    return text.encode("utf-8", "replace").decode("utf-8")


def fault(code: str, message: str, detail: Optional[str] = None) -> Dict[str, Any]:
    """A fault as it is written in frames."""
    fields: Dict[str, Any] = {"code": clean(code), "message": clean(message)}
    if detail:
        fields["detail"] = clean(detail)
    return fields


def fault_of(error: BaseException, code: str = "failed") -> Dict[str, Any]:
    """What an exception of user code becomes: a :class:`Failure` as it is, anything else ``code`` with a traceback."""
    if isinstance(error, Failure):
        return fault(str(error.code), str(error.message), error.detail)
    try:
        text = str(error)
    except Exception:  # A broken `__str__` must not hide the exception.
        text = "(its text cannot be had)"
    name = type(error).__name__
    detail = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    if len(detail) > TEXT_MAX:  # The end of a traceback says more than its beginning.
        detail = "... " + detail[-TEXT_MAX + 4 :]
    return fault(code, f"{name}: {text}" if text else name, detail)
