"""A node that does not keep to the protocol, or dies."""

import struct
import threading
import time
from typing import Any, Dict, List, Tuple

import pytest

from edri_sdk import Context, Failure, ProtocolError, RequestError, SyncContext, Worker
from edri_sdk.errors import NodeGone
from edri_sdk.frames import encode
from edri_sdk.testing import TestNode


def echo() -> Worker:
    worker = Worker()
    worker.request("a")(lambda event: event)
    worker.notification("b")(lambda event: None)
    return worker


RUBBISH: List[Tuple[str, bytes, str]] = [
    ("rubbish", b"\x00\x00\x00\x05hello", "malformed_frame"),
    ("json", b"\x00\x00\x00\x0b" + b'{"ping":{}}', "malformed_frame"),
    ("too long", b"\xff\xff\xff\xff", "frame_too_long"),
    ("no event", encode("publish", {"id": 2}), "malformed_frame"),
    ("id is a text", encode("publish", {"id": "2", "event": "b"}), "malformed_frame"),
    ("id is odd", encode("publish", {"id": 3, "event": "b"}), "malformed_frame"),
    ("id is below zero", encode("publish", {"id": -2, "event": "b"}), "malformed_frame"),
    ("payload is a text", encode("publish", {"id": 2, "event": "b", "payload": "x"}), "malformed_frame"),
    ("time-out is a text", encode("publish", {"id": 2, "event": "b", "timeout_ms": "x"}), "malformed_frame"),
    ("response without id", encode("response", {}), "malformed_frame"),
    ("response with a list as id", encode("response", {"id": []}), "malformed_frame"),
    ("data without payload", encode("open", {"id": 2, "event": "c", "handler": 2}) + encode("data", {"id": 2}), "malformed_frame"),
    ("fields are no map", encode("ping", []), "malformed_frame"),  # type: ignore[arg-type]
    ("cancel without id", encode("cancel", {}), "malformed_frame"),
    ("window of texts", encode("window", {"calls": "x"}), "malformed_frame"),
]


@pytest.mark.parametrize(("name", "data", "code"), RUBBISH, ids=[name for name, _, _ in RUBBISH])
def test_a_node_that_talks_rubbish_is_told_and_left(name: str, data: bytes, code: str) -> None:
    worker = echo()
    worker.tunnel("c")(lambda event, tunnel: list(tunnel))
    node = TestNode(worker)
    with pytest.raises(ProtocolError) as caught, node:
        node.send_bytes(data)
        node.wait_until(lambda: bool(node.errors))
        assert node.errors[0]["code"] == code
    assert caught.value.code == code
    assert node.exit_code == 1


def test_the_end_in_the_middle_of_a_frame_ends_the_worker() -> None:
    node = TestNode(echo())
    with pytest.raises(NodeGone), node:
        node.send_bytes(struct.pack(">I", 100) + b"\x81\xa4ping")
        node._socket.shutdown(1)


def test_a_frame_that_comes_in_pieces_is_read() -> None:
    with TestNode(echo()) as node:
        for byte in encode("ping", {"id": 5}):
            node.send_bytes(bytes([byte]))
        node.wait_until(lambda: ("pong", {"id": 5}) in node.frames)


def test_unknown_frames_are_answered_and_nothing_else_happens() -> None:
    with TestNode(echo()) as node:
        node.send("newer", {"a": [1]})
        node.send_bytes(b"\x00\x00\x00\x08\x81\xa5newer\xc0")
        node.send("subscribe", {"id": 1, "select": "a"})
        node.wait_until(lambda: len(node.errors) == 3)
        assert [(error["code"], error["frame"]) for error in node.errors] == [
            ("unknown_frame", "newer"), ("unknown_frame", "newer"), ("unknown_frame", "subscribe"),
        ]  # fmt: skip
        assert node.request("a", {"x": 1}) == {"x": 1}


def test_calls_for_nobody_are_answered() -> None:
    with TestNode(echo()) as node:
        for verb, handler, code in (
            ("request", 2, "no_handler"), ("request", -1, "no_handler"), ("request", 1, "wrong_kind"), ("publish", 0, "wrong_kind"),
            ("open", 0, "wrong_kind"),
        ):  # fmt: skip
            with pytest.raises(RequestError) as caught:
                node.call(verb, "a", {}, handler=handler).result()
            assert caught.value.code == code and not caught.value.is_failure


def test_frames_about_calls_that_never_were_are_errors_and_late_ones_are_not() -> None:
    with TestNode(echo()) as node:
        node.request("a", {})
        for frame in ("cancel", "data", "credit", "end"):
            node.send(frame, {"id": 2, "payload": b"\xc0"})
            node.send(frame, {"id": 5000, "payload": b"\xc0"})
        node.send("response", {"id": 1})
        node.wait_until(lambda: len(node.errors) == 5)
        assert {error["code"] for error in node.errors} == {"unknown_call"}
        assert [error["frame"] for error in node.errors] == ["cancel", "data", "credit", "end", "response"]


def test_a_notification_that_wants_no_answer_gets_none() -> None:
    with TestNode(echo()) as node:
        node.send("publish", {"event": "b", "handler": 1})
        assert node.request("a", {}) == {}
        assert not [fields for name, fields in node.frames if fields.get("id") == 0]


@pytest.mark.parametrize("is_plain", [False, True])
def test_pings_are_answered_while_a_handler_computes(is_plain: bool) -> None:
    worker = Worker()
    release = threading.Event()

    def blocks(event: Dict[str, Any], cx: Any) -> bool:
        while not release.is_set():
            sum(range(1000))
        return bool(cx.cancelled)

    async def async_blocks(event: Dict[str, Any], cx: Context) -> bool:
        return blocks(event, cx)

    worker.request("a")(blocks if is_plain else async_blocks)
    worker.notification("b")(lambda event: None)
    with TestNode(worker) as node:
        call = node.call("request", "a", {})
        for number in range(1, 4):
            node.send("ping", {"id": number})
            node.wait_until(lambda: ("pong", {"id": number}) in node.frames)
        call.cancel()
        later = node.call("publish", "b", {})
        node.send("ping", {"id": 4})
        node.wait_until(lambda: ("pong", {"id": 4}) in node.frames)
        release.set()
        assert call.result() is True
        later.result()


def test_a_worker_that_says_nothing_pings() -> None:
    with TestNode(echo(), silence=0.3) as node:
        node.wait_until(lambda: sum(name == "ping" for name, _ in node.frames) >= 2)


def test_bye_finishes_what_is_open_and_the_stop_may_make_calls() -> None:
    worker = Worker()
    release, done = threading.Event(), []

    @worker.notification("a")
    def slow(event: Dict[str, Any]) -> None:
        release.wait(5)
        done.append(event["n"])

    @worker.stopping
    async def stop(cx: Context) -> None:
        assert done == [0, 1, 2]
        done.append(await cx.request("last", {}))

    node = TestNode(worker)
    with node:
        node.answer("last", "word")
        for number in range(3):
            node.call("publish", "a", {"n": number})
        node.send("bye", {})
        node.send("ping", {"id": 9})
        node.wait_until(lambda: ("pong", {"id": 9}) in node.frames)
        assert node.bye is None
        release.set()
        node.wait_until(lambda: node.bye is not None)
    assert done == [0, 1, 2, "word"]
    assert node.bye == {} and node.exit_code == 0


@pytest.mark.parametrize("is_plain", [False, True])
def test_a_start_that_fails_is_told(is_plain: bool) -> None:
    worker = echo()

    def plain(cx: SyncContext) -> None:
        cx.publish("before", {})
        raise ValueError("no disk")

    async def async_(cx: Context) -> None:
        await cx.publish("before", {})
        raise Failure("mine", "no disk")

    worker.started(plain if is_plain else async_)
    node = TestNode(worker)
    with pytest.raises(RequestError, match="start_failed: .*no disk"):
        node.__enter__()
    node.close()
    assert node.exit_code == 1
    assert node.bye is not None and node.bye["error"]["code"] == "start_failed"
    assert [event.name for event in node.published] == ["before"]


def test_a_stop_that_fails_is_told() -> None:
    worker = echo()

    @worker.stopping
    def stop(cx: SyncContext) -> None:
        raise ValueError("no disk")

    node = TestNode(worker)
    with node:
        pass
    assert node.exit_code == 1
    assert node.bye is not None and node.bye["error"]["code"] == "stop_failed"


def test_a_node_that_refuses_the_worker_is_left_with_its_reason() -> None:
    node = TestNode(echo())
    node._on_frame = lambda name, fields: node.send("error", {"code": "wrong_handlers", "message": "not as before"})  # type: ignore[method-assign]
    with pytest.raises(ProtocolError, match="wrong_handlers: .*not as before"):
        node.__enter__()
    node.close()


def test_a_node_of_another_version_is_left() -> None:
    node = TestNode(echo())
    node._welcome["version"] = 2
    with pytest.raises(ProtocolError, match="version 2"):
        node.__enter__()
    node.close()


def test_an_error_about_a_call_ends_the_call() -> None:
    worker = Worker()

    @worker.request("a")
    async def ask(event: Dict[str, Any], cx: Context) -> str:
        try:
            await cx.request("b", {})
        except RequestError as error:
            return error.code
        return "answered"

    from edri_sdk.testing import NEVER

    with TestNode(worker) as node:
        node.answer("b", NEVER)
        call = node.call("request", "a", {})
        node.wait_until(lambda: bool(node.requested))
        node.send("error", {"code": "too_many_calls", "message": "", "frame": "request", "id": 1})
        assert call.result() == "too_many_calls"


def test_nothing_waits_for_ever_when_the_node_dies() -> None:
    worker = Worker()
    inside = threading.Event()

    @worker.request("a")
    async def stuck(event: Dict[str, Any], cx: Context) -> None:
        inside.set()
        await cx.request("b", {})

    from edri_sdk.testing import NEVER

    node = TestNode(worker)
    begun = time.monotonic()
    with pytest.raises(NodeGone), node:
        node.answer("b", NEVER)
        node.call("request", "a", {})
        assert inside.wait(5)
        node._socket.shutdown(2)
    assert time.monotonic() - begun < 4
