"""Events come, handlers are called, answers go."""

import asyncio
import logging
import threading
import time
from dataclasses import dataclass
from typing import Any, Dict, List, Optional

import pytest

import edri_sdk
from edri_sdk import Context, Failure, RequestError, SyncContext, Worker
from edri_sdk.testing import TestNode


@dataclass
class Ask:
    region: str
    depth: Optional[float] = None


@dataclass
class Risk:
    probability: float
    region: str


def both(function: Any) -> List[Any]:
    """The function as a plain and as an async handler."""

    async def as_async(event: Any, cx: Any) -> Any:
        return function(event, cx)

    def as_plain(event: Any, cx: Any) -> Any:
        return function(event, cx)

    return [pytest.param(as_plain, id="plain"), pytest.param(as_async, id="async")]


@pytest.mark.parametrize("handler", both(lambda ask, cx: Risk(0.5, ask.region + "é")))
def test_a_request_is_answered(handler: Any) -> None:
    worker = Worker()
    worker.request("risk.assess", payload=Ask, response=Risk)(handler)
    with TestNode(worker) as node:
        assert node.request("risk.assess", {"region": "north ☃"}) == {"probability": 0.5, "region": "north ☃é"}


def boom(event: Any, cx: Any) -> Any:
    raise {"value": ValueError("text"), "failure": Failure("my_code", "my text", "my detail"), "cancel": asyncio.CancelledError()}[
        event["raise"]
    ]


@pytest.mark.parametrize("handler", both(boom))
def test_exceptions_become_failures_and_the_worker_goes_on(handler: Any) -> None:
    worker = Worker()
    worker.request("a")(handler)
    worker.notification("b")(handler)
    with TestNode(worker) as node:
        for ask in (lambda what: node.request("a", {"raise": what}), lambda what: node.publish("b", {"raise": what})):
            with pytest.raises(RequestError) as caught:
                ask("value")
            assert (caught.value.code, caught.value.message) == ("failed", "ValueError: text")
            assert caught.value.is_failure and "Traceback" in (caught.value.detail or "")
            with pytest.raises(RequestError) as caught:
                ask("failure")
            assert (caught.value.code, caught.value.message, caught.value.detail) == ("my_code", "my text", "my detail")
            with pytest.raises(RequestError) as caught:
                ask("cancel")
            assert caught.value.message == "CancelledError"


def test_a_payload_that_is_not_what_the_handler_takes_is_a_failure() -> None:
    worker = Worker()

    @worker.request("a")
    async def ask(ask: Ask) -> None: ...

    with TestNode(worker) as node:
        for payload in ({"region": 4}, {}, [1], None, "text"):
            with pytest.raises(RequestError) as caught:
                node.request("a", payload)
            assert caught.value.code == "invalid_payload" and caught.value.is_failure
        with pytest.raises(RequestError, match="payload of a: region: expected a text, got an integer"):
            node.request("a", {"region": 4})
        node.send("request", {"id": 1000, "event": "a", "payload": b"\xc1"})
        node.wait_until(lambda: any(fields.get("id") == 1000 for _, fields in node.frames))


def test_what_cannot_be_answered_is_a_failure() -> None:
    worker = Worker()
    worker.request("typed", response=Risk)(lambda event: {"probability": 1})
    worker.request("plain")(lambda event: {1, 2})
    worker.request("long")(lambda event: b"x" * 2_000_000)
    with TestNode(worker, frame_bytes_max=1 << 20) as node:
        with pytest.raises(RequestError, match="the response of typed is a Risk: region: is missing"):
            node.request("typed", {})
        with pytest.raises(RequestError, match="type set cannot be sent"):
            node.request("plain", {})
        with pytest.raises(RequestError) as caught:
            node.request("long", {})
        assert caught.value.code == "frame_too_long"


def test_ten_megabytes_go_both_ways() -> None:
    worker = Worker()
    worker.request("a")(lambda event: {"data": event["data"][::-1]})
    with TestNode(worker) as node:
        data = b"a" + b"\x00" * (10 << 20)
        assert node.request("a", {"data": data}) == {"data": data[::-1]}


def test_a_payload_may_nest_deep_but_not_without_end() -> None:
    worker = Worker()
    worker.request("a")(lambda event: event)
    with TestNode(worker) as node:
        deep: Any = 1
        for _ in range(90):
            deep = [deep]
        assert node.request("a", deep) == deep
        payload = b"\x91" * 100_000 + b"\xc0"
        node.send("request", {"id": 1000, "event": "a", "payload": payload})
        node.wait_until(lambda: any(fields.get("id") == 1000 for _, fields in node.frames))
        answer = [fields for _, fields in node.frames if fields.get("id") == 1000]
        assert answer[0]["failure"]["code"] == "invalid_payload"


def test_one_at_a_time_in_the_order_of_coming() -> None:
    worker = Worker()
    order: List[Any] = []

    async def slow(event: Dict[str, Any], cx: Context) -> None:
        order.append(("begin", event["n"]))
        await asyncio.sleep(0)
        order.append(("end", event["n"]))

    worker.notification("a")(slow)
    worker.notification("b")(lambda event: order.extend([("begin", event["n"]), ("end", event["n"])]))
    with TestNode(worker) as node:
        calls = [node.call("publish", "ab"[number % 3 == 0], {"n": number}) for number in range(200)]
        for call in calls:
            call.result()
    assert order == [(what, number) for number in range(200) for what in ("begin", "end")]


@pytest.mark.parametrize("is_plain", [False, True])
def test_as_many_at_once_as_asked_for(is_plain: bool) -> None:
    worker = Worker(concurrency=4)
    release = threading.Event()
    inside: List[int] = []

    def plain(event: Any, cx: SyncContext) -> None:
        inside.append(event["n"])
        release.wait(5)

    async def async_(event: Any, cx: Context) -> None:
        inside.append(event["n"])
        while not release.is_set():
            await asyncio.sleep(0.001)

    worker.notification("a")(plain if is_plain else async_)
    with TestNode(worker) as node:
        calls = [node.call("publish", "a", {"n": number}) for number in range(10)]
        deadline = time.monotonic() + 5
        while len(inside) < 4 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert sorted(inside) == [0, 1, 2, 3]
        release.set()
        for call in calls:
            call.result()
    assert sorted(inside) == list(range(10))


def test_begun_is_said_before_a_handler_that_lasts_and_less_often_for_quick_ones() -> None:
    worker = Worker()
    node: TestNode

    def seen(event: Dict[str, Any]) -> None:
        if event.get("number"):
            said = [fields["begun"] for name, fields in node.frames if name == "ack" and "begun" in fields]
            assert said and said[-1] >= event["number"], "the node is told before"

    async def quick(event: Dict[str, Any]) -> None: ...

    worker.notification("slow")(seen)
    worker.notification("quick")(quick)
    with TestNode(worker) as node:
        for number in (2, 4, 6):
            node.publish("slow", {})
        calls = [node.call("publish", "quick", {}) for _ in range(600)]
        for call in calls:
            call.result()
        begun = [fields["begun"] for name, fields in node.frames if name == "ack" and "begun" in fields]
        assert begun == sorted(begun)
        assert begun[-1] == 2 * 603


def test_a_pattern_gets_every_event_it_selects() -> None:
    worker = Worker()
    seen: List[Any] = []

    @worker.notification("quake.*")
    async def any_quake(payload: Dict[str, Any], cx: Context) -> None:
        seen.append((cx.event, payload))

    with TestNode(worker) as node:
        node.publish("quake.recorded", {"a": 1})
        node.publish("quake.revised", None)
        with pytest.raises(LookupError):
            node.publish("quake.recorded.late")
    assert seen == [("quake.recorded", {"a": 1}), ("quake.revised", None)]


def test_a_class_is_a_worker_with_state() -> None:
    class Model:
        def __init__(self) -> None:
            self.count = 0

        @edri_sdk.started
        async def begin(self, cx: Context) -> None:
            self.count = cx.arguments["from"]

        @edri_sdk.notification("add")
        async def add(self, event: Dict[str, Any]) -> None:
            self.count += 1

        @edri_sdk.request("count")
        def total(self, event: Dict[str, Any], cx: SyncContext) -> int:
            return self.count

        @edri_sdk.stopping
        def end(self, cx: SyncContext) -> None:
            cx.publish("ended", {"count": self.count})

    worker = Worker()
    worker.add(Model())
    with TestNode(worker, arguments={"from": 10}) as node:
        node.publish("add", {})
        assert node.request("count", {}) == 11
    assert [(event.name, event.payload) for event in node.published] == [("ended", {"count": 11})]


def test_cancelled_before_it_begins_a_handler_is_not_called() -> None:
    worker = Worker()
    release, ran = threading.Event(), []
    worker.request("block")(lambda event: release.wait(5))
    worker.request("b")(lambda event: ran.append(1))
    with TestNode(worker) as node:
        first, second = node.call("request", "block", {}), node.call("request", "b", {})
        second.cancel()
        third = node.call("request", "nowhere", {}, handler=9)  # Answered at once: the cancel has been read.
        with pytest.raises(RequestError):
            third.result()
        release.set()
        assert first.result() is True
        with pytest.raises(RequestError) as caught:
            second.result()
        assert caught.value.code == "cancelled" and not caught.value.is_failure
    assert not ran


def test_a_running_handler_sees_that_it_was_cancelled() -> None:
    worker = Worker(concurrency=2)
    begun = threading.Semaphore(0)

    @worker.request("async")
    async def waits(event: Dict[str, Any], cx: Context) -> bool:
        begun.release()
        await cx.wait_cancelled()
        await cx.wait_cancelled()
        return cx.cancelled

    @worker.request("plain")
    def looks(event: Dict[str, Any], cx: SyncContext) -> bool:
        begun.release()
        while not cx.cancelled:
            time.sleep(0.001)
        return True

    with TestNode(worker) as node:
        for event in ("async", "plain"):
            call = node.call("request", event, {})
            assert begun.acquire(timeout=5)
            call.cancel()
            assert call.result() is True


def test_the_context_tells_about_the_event() -> None:
    worker = Worker()
    told: Dict[str, Any] = {}

    @worker.notification("a")
    async def handle(event: Dict[str, Any], cx: Context) -> None:
        names = "event id origin key cause trace attempt redelivered headers remaining node manager instance".split()
        told.update({name: getattr(cx, name) for name in names})

    with TestNode(worker) as node:
        node.publish(
            "a", {}, event_id="ab" * 16, origin="n/m", key="k", cause="cd" * 16, trace="00-1", tried=2, redelivered=True,
            headers={"h": "v"}, timeout_ms=2000,
        )  # fmt: skip
        assert 0 < told.pop("remaining") <= 2
        assert told == {
            "event": "a", "id": "ab" * 16, "origin": "n/m", "key": "k", "cause": "cd" * 16, "trace": "00-1", "attempt": 3,
            "redelivered": True, "headers": {"h": "v"}, "node": "test", "manager": "test", "instance": 0,
        }  # fmt: skip
        node.publish("a", {}, headers=None, tried=None, timeout_ms=None, handler=0)
        assert (told["attempt"], told["remaining"], told["headers"]) == (1, None, {})


def test_the_log_goes_to_the_node_with_the_event() -> None:
    from edri_sdk.logs import NodeHandler

    worker = Worker()
    logger = logging.getLogger("lib")

    @worker.notification("a")
    async def handle(event: Dict[str, Any], cx: Context) -> None:
        cx.logger.warning("from %s", "cx")
        logger.error("from lib \udcff")
        try:
            raise ValueError("inner")
        except ValueError:
            logger.exception("with trace")
        cx.report_health("degraded", "slow")
        cx.report_figures({"seen": 1, "rate": 0.5})

    node = TestNode(worker)
    handler = NodeHandler(node._session)
    logging.getLogger().addHandler(handler)
    try:
        with node:
            node.publish("a", {}, event_id="ab" * 16)
    finally:
        logging.getLogger().removeHandler(handler)
    records = [record for record in node.logged if record.target in ("lib", "test")]
    assert [(record.level, record.target) for record in records] == [("warn", "test"), ("error", "lib"), ("error", "lib")]
    assert all(record.event_id == "ab" * 16 for record in records)
    assert records[0].message == "from cx" and "ValueError: inner" in records[2].message
    assert node.health == {"is": "degraded", "because": "slow"}
    assert node.figures == {"seen": 1.0, "rate": 0.5}
