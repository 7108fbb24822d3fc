"""A worker in a process of its own: descriptor 0, signals, exit codes."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
from typing import Any, Dict, Iterator, List, Tuple

import pytest

from edri_sdk.frames import FrameReader, encode, pack, unpack

HERE = pathlib.Path(__file__).parent
WELCOME = {
    "version": 1, "node": "n", "incarnation": "0" * 16, "manager": "m", "silence_ms": 30000, "frame_bytes_max": 16 << 20,
}  # fmt: skip


class Child:
    """A child on a socket, with the node's side in the test."""

    def __init__(self, *arguments: str) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(10)
        environment = {**os.environ, "EDRI_WORKER": "m", "PYTHONPATH": str(HERE.parent / "src"), "PYTHONUNBUFFERED": ""}
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "worker_program.py"), *arguments],
            stdin=theirs.fileno(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True,
        )  # fmt: skip
        theirs.close()
        self.reader = FrameReader()
        self.waiting: List[Tuple[str, Any]] = []

    def send(self, name: str, **fields: Any) -> None:
        self.socket.sendall(encode(name, fields))

    def request(self, number: int, event: str) -> None:
        place = ["echo", "ends", "exits", "hangs", "hangs.loop", "says"].index(event)
        self.send("request", id=number, event=event, handler=place, payload=pack({"a": 1}))

    def next(self, *wanted: str) -> Any:
        """The next frame of one of these names; others are skipped."""
        while True:
            while self.waiting:
                name, fields = self.waiting.pop(0)
                if name in wanted:
                    return fields
            count = self.socket.recv_into(self.reader.space())
            if count == 0:
                raise EOFError
            self.waiting += self.reader.filled(count)

    def start(self) -> Dict[str, Any]:
        hello: Dict[str, Any] = self.next("hello")
        self.send("welcome", **WELCOME)
        self.next("ready")
        return hello

    def end(self) -> Tuple[int, str, str]:
        out, err = self.process.communicate(timeout=10)
        self.socket.close()
        return self.process.returncode, out, err


@pytest.fixture
def child() -> Iterator[Child]:
    it = Child()
    yield it
    it.process.kill()
    it.end()


def test_a_life_from_hello_to_bye(child: Child) -> None:
    assert child.start()["agent"] == "edri-sdk-python 0.1.0"
    child.request(2, "echo")
    assert unpack(child.next("response")["value"]) == {"a": 1}
    child.process.send_signal(signal.SIGINT)  # Ctrl-C in a terminal: the node decides.
    child.request(4, "says")
    log = child.next("log")
    assert (log["level"], log["message"], log["target"]) == ("info", "logged", "lib")
    assert unpack(child.next("response")["value"])[1] == b"", "descriptor 0 is not the socket any more"
    child.send("bye")
    stopped = child.next("publish")
    child.send("response", id=stopped["id"])
    assert child.next("bye") == {}
    assert child.end()[:2] == (0, "printed\n")


def test_hello_is_the_first_frame_also_when_everything_is_logged() -> None:
    child = Child("debug")
    hello = child.next("hello", "log")
    assert hello["role"] == "worker"
    child.send("welcome", **WELCOME)
    assert child.next("log")["level"] == "debug"
    child.socket.close()
    child.end()


def test_sigterm_ends_it_as_bye_does(child: Child) -> None:
    child.start()
    child.process.send_signal(signal.SIGTERM)
    assert child.next("window")["calls"] == 0
    child.send("response", id=child.next("publish")["id"])
    assert child.next("bye") == {}
    assert child.end()[0] == 0


@pytest.mark.parametrize("event", ["hangs", "hangs.loop"])
def test_the_end_of_the_connection_ends_it_whatever_its_handlers_do(child: Child, event: str) -> None:
    child.start()
    child.request(2, event)
    child.next("ack")
    child.socket.close()
    assert child.process.wait(timeout=5) == 1


@pytest.mark.parametrize(("event", "code"), [("ends", 7), ("exits", 9)])
def test_a_handler_that_ends_the_process_has_said_that_it_began(child: Child, event: str, code: int) -> None:
    child.start()
    child.request(2, event)
    assert child.next("ack")["begun"] == 2
    with pytest.raises((EOFError, ConnectionResetError)):
        child.next("bye")
    assert child.process.wait(timeout=5) == code


def test_a_start_that_fails_is_told_and_exits_with_1() -> None:
    child = Child("start")
    child.next("hello")
    child.send("welcome", **WELCOME)
    error = child.next("bye")["error"]
    assert (error["code"], error["message"]) == ("start_failed", "ValueError: no disk") and "Traceback" in error["detail"]
    code, _, err = child.end()
    assert code == 1 and "no disk" in err


def test_rubbish_from_the_node_ends_it_with_1(child: Child) -> None:
    child.start()
    child.socket.sendall(b"\x00\x00\x00\x05hello")
    assert child.next("error")["code"] == "malformed_frame"
    code, _, err = child.end()
    assert code == 1 and "edri_sdk: malformed_frame" in err


def test_a_refusal_ends_it_with_1_and_its_reason(child: Child) -> None:
    child.next("hello")
    child.send("error", code="wrong_handlers", message="not as the first")
    code, _, err = child.end()
    assert code == 1 and "wrong_handlers" in err and "not as the first" in err


@pytest.mark.parametrize("has_name", [False, True])
def test_without_a_node_it_says_what_to_do_and_exits_with_2(has_name: bool) -> None:
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent / "src")}
    environment.pop("EDRI_WORKER", None)
    if has_name:
        environment["EDRI_WORKER"] = "m"
    done = subprocess.run(
        [sys.executable, str(HERE / "worker_program.py")], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        env=environment, timeout=10,
    )  # fmt: skip
    assert done.returncode == 2
    assert "Manager::program" in done.stderr and "Traceback" not in done.stderr
