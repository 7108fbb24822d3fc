"""The socket: reading, and a watchdog that keeps it alive while handlers compute.

Why one thread and a watchdog: the thread of the event loop reads, calls handlers and writes. A connection with a thread of
its own would cost two hand-overs of the interpreter lock for each batch of calls, about a third of the throughput. What it
would give, a connection that is served while a handler blocks the loop, the watchdog gives too: it looks every few
milliseconds (every quarter of a second when nothing happens) whether bytes lie unread that lay there before, and then
reads them itself. It answers pings, marks calls as cancelled, sees the end of the connection, and keeps everything else
for the loop, in order.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from typing import Callable, List, Optional

from .errors import ProtocolError, clean
from .frames import Frame, FrameReader
from .outbox import Outbox

#: How often the watchdog looks, in seconds, while frames come and while none do.
BUSY_TICK = 0.01
IDLE_TICK = 0.25
#: Until `welcome` says otherwise.
SILENCE = 30.0


class Connection:
    """A connected stream socket with frames on it.

    ``read`` belongs to the thread of the event loop; ``outbox`` to everybody. The others are called by the watchdog when it
    reads because the loop is busy: ``on_cancel`` for a ``cancel`` that came, ``on_backlog`` when ``read`` has something to
    give, ``on_end`` when the connection has ended (``None``) or is broken (why).
    """

    def __init__(
        self,
        sock: socket.socket,
        on_cancel: Callable[[object], None],
        on_backlog: Callable[[], None],
        on_end: Callable[[Optional[ProtocolError]], None],
    ) -> None:
        sock.setblocking(True)
        self.outbox = Outbox(sock)
        #: The node takes this worker for hung after so many seconds without a frame.
        self.silence = SILENCE
        self._sock = sock
        self._reader = FrameReader()
        self._reading = threading.Lock()
        self._reads = 0
        self._backlog: List[Frame] = []
        self._on_cancel = on_cancel
        self._on_backlog = on_backlog
        self._on_end = on_end
        self._closed = threading.Event()
        self._ended = False
        self._watchdog = threading.Thread(target=self._watch, name="edri-watchdog", daemon=True)

    def start(self) -> None:
        """Starts the watchdog."""
        self._watchdog.start()

    def close(self) -> None:
        """Writes what is left and ends. Nothing is read any more."""
        self.outbox.flush(wait=True)
        self._closed.set()
        if self._watchdog.is_alive() and threading.current_thread() is not self._watchdog:
            self._watchdog.join(1.0)
        self._sock.close()

    def refuse(self, error: ProtocolError) -> None:
        """Tells the node why the connection is of no use any more."""
        if not error.is_the_nodes:
            self.outbox.put("error", {"code": error.code, "message": clean(error.message)})
        self.outbox.flush()

    def fileno(self) -> int:
        """The descriptor, for the event loop."""
        return self._sock.fileno()

    def read(self) -> Optional[List[Frame]]:
        """The frames that have come; ``None`` at the end of the connection. Never waits.

        Raises :class:`ProtocolError`.
        """
        with self._reading:
            frames, self._backlog = self._backlog, []
            fresh = self._receive()
        if fresh is None:
            return frames or None
        frames += fresh
        return frames

    def _receive(self) -> Optional[List[Frame]]:
        self._reads += 1
        if self._ended:
            return None
        try:
            count = self._sock.recv_into(self._reader.space(), 0, socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            count = 0
        if count == 0:
            self._ended = True
            return None
        return self._reader.filled(count)

    # ---- the watchdog ----------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        # `poll` and not `select`: a worker may have more than 1024 files open.
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        seen, lay_unread, tick = -1, False, BUSY_TICK
        while not self._closed.wait(min(tick, self.silence / 12)):
            reads = self._reads
            lies_unread = bool(poll.poll(0))
            if lies_unread and lay_unread and reads == seen and not self._ended:
                self._take_over()
                reads = self._reads
            tick = IDLE_TICK if reads == seen and not lies_unread else BUSY_TICK
            seen, lay_unread = reads, lies_unread
            # What a handler that blocks has left behind, and what a `call_soon` of the loop would only write later.
            self.outbox.flush()
            if time.monotonic() - self.outbox.last_sent > self.silence / 3:
                self.outbox.put("ping", {})
                self.outbox.flush()

    def _take_over(self) -> None:
        """Reads in the place of the loop, which is busy."""
        problem: Optional[ProtocolError] = None
        with self._reading:
            try:
                frames = self._receive()
            except ProtocolError as error:
                frames, problem = None, error
                self._ended = True
                self.refuse(error)
            for name, fields in frames or ():
                if name == "ping" and isinstance(fields, dict):
                    self.outbox.put("pong", {"id": fields.get("id") or 0})
                    continue
                if name == "cancel" and isinstance(fields, dict):
                    self._on_cancel(fields.get("id"))
                self._backlog.append((name, fields))
        if frames is None:
            self._on_end(problem)
        elif self._backlog:
            self._on_backlog()
