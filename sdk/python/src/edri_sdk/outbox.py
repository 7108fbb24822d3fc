"""What goes to the node: frames gathered and written together."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from typing import Any, Deque, Dict, List, Optional

from .frames import ACKS_MAX, encode

#: With so many bytes gathered, they are written.
FLUSH_BYTES = 64 << 10


class Outbox:
    """Frames that wait to be written, from whatever thread.

    Frames and acks are put down without a lock (a deque's ``append`` needs none), and ``flush`` writes them with one
    ``sendall``: the socket blocks. That is on purpose. A node always reads, so a write that waits means a node under load,
    and to wait is all the backpressure that is needed; meanwhile the watchdog of the connection goes on reading, so the
    two cannot wait for each other.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._frames: Deque[bytes] = deque()
        self._done: Deque[int] = deque()
        self._begun: Optional[int] = None
        self._bytes = 0
        self._lock = threading.Lock()
        #: Nothing can be written any more: the node is gone. What is put down is dropped.
        self.is_broken = False
        #: When something was last written, of ``time.monotonic``.
        self.last_sent = time.monotonic()

    def put(self, name: str, fields: Dict[str, Any]) -> int:
        """Puts a frame down; returns how long it is with its length."""
        frame = encode(name, fields)
        self.put_encoded(frame)
        return len(frame)

    def put_encoded(self, frame: bytes) -> None:
        """Puts a frame down that is encoded already."""
        self._frames.append(frame)
        # Threads may lose an addition of one another: it is only about when to write.
        self._bytes += len(frame)
        if self._bytes > FLUSH_BYTES:
            self.flush()

    def done(self, number: int) -> None:
        """Puts down that the call succeeded without a value."""
        self._done.append(number)

    def say_begun(self, number: int) -> None:
        """Tells the node, before this returns, that handlers are called for all calls up to ``number``."""
        self._begun = number
        self.flush(wait=True)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self._frames or self._done or self._begun is not None)

    def flush(self, wait: bool = False) -> None:
        """Writes what there is.

        While another thread writes, that one writes this too, and unless ``wait`` says so, nobody waits for it. So a
        signal handler that logs in the middle of a write harms nothing.
        """
        while not self.is_empty:
            if not self._lock.acquire(wait):
                return
            try:
                self._write()
            finally:
                self._lock.release()

    def _write(self) -> None:
        pieces = _take_all(self._frames)
        self._bytes = 0
        done, begun = _take_all(self._done), self._begun
        self._begun = None
        ack: Dict[str, Any] = {}
        for begin in range(0, len(done), ACKS_MAX):
            ack = {"done": done[begin : begin + ACKS_MAX]}
            if begin + ACKS_MAX < len(done):
                pieces.append(encode("ack", ack))
        if begun is not None:
            ack["begun"] = begun
        if ack:
            pieces.append(encode("ack", ack))
        if self.is_broken or not pieces:
            return
        try:
            self._sock.sendall(pieces[0] if len(pieces) == 1 else b"".join(pieces))
            self.last_sent = time.monotonic()
        except OSError:
            # The node has closed its end. Whoever reads finds what it last said, and the end.
            self.is_broken = True


def _take_all(items: Deque[Any]) -> List[Any]:
    """Takes what is in ``items``; others may append meanwhile."""
    taken = []
    try:
        for _ in range(len(items)):
            taken.append(items.popleft())
    except IndexError:
        pass
    return taken
