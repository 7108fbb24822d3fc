"""Calls that wait for a handler, and what the node is told of how far the worker is."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Callable, Deque, List, Optional

if TYPE_CHECKING:
    from .context import Context

#: The most calls that are said to have begun at once.
BATCH_MAX = 32
#: A batch that took less, in seconds, may be twice as large the next time; after one that took more each call is said alone.
QUICK = 0.0002
SLOW = 0.001


class Inbox:
    """Calls in the order they came, for runners on several threads.

    Before the first call of a batch is given out, ``say_begun`` tells the node the number of its last one. When this
    process dies, the node takes what had begun for its possible causes, so the batch is one call where handlers last, and
    grows where they take microseconds: there a frame for each call would cost as much as the call.
    """

    def __init__(self, say_begun: Callable[[int], None]) -> None:
        self._say_begun = say_begun
        self._lock = threading.Lock()
        self._waiting: Deque[Context] = deque()
        self._begun = 0
        self._batch = 1
        self._batch_began: Optional[float] = None

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, call: Context) -> None:
        """Adds a call behind the others."""
        self._waiting.append(call)

    def take(self, only_plain: bool = False) -> Optional[Context]:
        """The next call, which the caller handles now; ``None`` when there is none.

        With ``only_plain``, ``None`` also when the next one needs the event loop.
        """
        with self._lock:
            if not self._waiting:
                self._measure()
                return None
            if only_plain and not self._waiting[0].handler.is_plain:
                return None
            call = self._waiting.popleft()
            if call.number > self._begun:
                self._measure()
                batch = min(self._batch, len(self._waiting) + 1)
                self._begun = call.number if batch == 1 else max(call.number, self._waiting[batch - 2].number)
                # Under the lock: nobody takes a call of this batch before the node was told.
                self._say_begun(self._begun)
                self._batch_began = time.perf_counter()
            return call

    def drop_all(self) -> List[Context]:
        """Takes everything out."""
        with self._lock:
            calls = list(self._waiting)
            self._waiting.clear()
            return calls

    def _measure(self) -> None:
        """The batch before is over: chooses the size of the next."""
        if self._batch_began is None:
            return
        took = time.perf_counter() - self._batch_began
        self._batch_began = None
        if took < QUICK:
            self._batch = min(2 * self._batch, BATCH_MAX)
        elif took > SLOW:
            self._batch = 1
