"""The program's `logging` in the node's log."""

from __future__ import annotations

import logging
import sys
import threading
from typing import TYPE_CHECKING

from .context import current

if TYPE_CHECKING:
    from .session import Session


def level_of(number: int) -> str:
    """The node's level for one of `logging`."""
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warn"
    if number >= logging.INFO:
        return "info"
    return "debug" if number >= logging.DEBUG else "trace"


class NodeHandler(logging.Handler):
    """Sends each record to the node, at once, with the id of the event in hand."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._inside = threading.local()
        self.setFormatter(logging.Formatter("%(message)s"))  # With the traceback, if there is one.

    def emit(self, record: logging.LogRecord) -> None:
        """Sends the record. Never raises."""
        if getattr(self._inside, "it", False):
            return
        self._inside.it = True
        try:
            call = current.get()
            event_id = getattr(record, "event_id", None) or (call.id if call is not None else None)
            self._session.log(level_of(record.levelno), self.format(record), record.name, event_id)
        except Exception:
            self.handleError(record)
        finally:
            self._inside.it = False


def send_logs_to_node(session: Session, level: int) -> NodeHandler:
    """Attaches the handler to the root logger, in the place of those that write to the standard output and error.

    ``level`` is the root's from now on, unless the program has set one itself.
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, logging.StreamHandler) and handler.stream in (sys.stdout, sys.stderr):
            root.removeHandler(handler)
    handler = NodeHandler(session)
    root.addHandler(handler)
    if root.level == logging.WARNING:  # What Python begins with.
        root.setLevel(level)
    return handler
