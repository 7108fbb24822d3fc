"""The process around a worker: its socket, its signals, its end."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import io
import logging
import os
import signal
import socket
import stat
import sys
import threading
from typing import TYPE_CHECKING, NoReturn, Optional

from .errors import ProtocolError
from .logs import send_logs_to_node
from .session import Session

if TYPE_CHECKING:
    from .worker import Worker

_PR_SET_PDEATHSIG = 1


def run(worker: Worker, log_level: int) -> None:
    """See :meth:`edri_sdk.Worker.run`."""
    sock = _take_socket()
    if threading.current_thread() is not threading.main_thread():
        _end(2, "call worker.run() in the main thread: it takes care of signals")
    # Ctrl-C in a terminal goes to the whole group: the node decides what becomes of its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_the_node()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Each line becomes a record in the node's log, so it goes there when it is a line.
            stream.reconfigure(line_buffering=True)
    session = Session(worker, sock, _end_at_once)
    handler = send_logs_to_node(session, log_level)

    async def live() -> int:
        # As if the node had said `bye`.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, session.ask_to_stop, False)
        return await session.run()

    try:
        code = asyncio.run(live())
    except ProtocolError as error:
        _end_at_once(error)
    finally:
        logging.getLogger().removeHandler(handler)
    if code:
        sys.exit(code)


def _take_socket() -> socket.socket:
    """The socket to the node, off descriptor 0, so that nothing else reads from it and no child inherits it."""
    name = os.environ.get("EDRI_WORKER")
    try:
        is_socket = stat.S_ISSOCK(os.fstat(0).st_mode)
    except OSError:  # It is closed.
        is_socket = False
    if name is None or not is_socket:
        program = os.path.basename(sys.argv[0]) or "worker.py"
        _end(
            2,
            "this is a worker of edri, which a node starts: there is no node at the other end of its standard input.\n"
            f'In the node\'s program: App::new("...").manager(Manager::program("report", "python3 {program}"))\n'
            "To try it without a node: edri_sdk.testing.TestNode",
        )
    sock = socket.socket(fileno=os.dup(0))
    os.set_inheritable(sock.fileno(), False)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    # A child by `fork` alone would hold the connection open after this process has died.
    os.register_at_fork(after_in_child=sock.close)
    return sock


def _die_with_the_node() -> None:
    """Asks the kernel for a SIGKILL when the node dies: for handlers in C code that never give the interpreter back.

    In all other cases the end of the connection is seen. Where it cannot be asked for, nothing is lost but that.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(Exception):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _end_at_once(problem: Optional[ProtocolError]) -> NoReturn:
    """The node is gone or talks rubbish: nothing that handlers would still do could be told to anybody. Handlers that are
    stuck in threads end too."""
    if problem is not None:
        with contextlib.suppress(Exception):
            os.write(2, f"edri_sdk: {problem}\n".encode("utf-8", "replace"))
    os._exit(1)


def _end(code: int, message: str) -> NoReturn:
    print(f"edri_sdk: {message}", file=sys.stderr, flush=True)
    sys.exit(code)
