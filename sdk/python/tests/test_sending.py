"""What a worker sends: publish, request, open."""

import asyncio
import threading
import time
from dataclasses import dataclass
from typing import Any, Dict, List

import pytest

from edri_sdk import (
    Context, Failure, RequestError, SyncContext, TunnelBroken, TunnelEnded, Worker, notification_event, request_event,
    tunnel_event,
)  # fmt: skip
from edri_sdk.testing import NEVER, TestNode


@dataclass
class Count:
    item: str


@dataclass
class Stock:
    left: int


@dataclass
class Sold:
    item: str


COUNT = request_event("stock.count", Count, response=Stock, timeout=5)
SOLD = notification_event("stock.sold", Sold)
UPLOAD = tunnel_event("file.upload", Count, up=bytes, down=int, result=Stock)


def worker_that(function: Any, **options: Any) -> Worker:
    worker = Worker(**options)
    worker.sends(COUNT)
    worker.sends(SOLD)
    worker.sends(UPLOAD)
    worker.request("do")(function)
    return worker


def test_every_way_to_name_an_event() -> None:
    async def do(event: Dict[str, Any], cx: Context) -> List[Any]:
        receipt = await cx.publish(Sold("lamp"))
        await cx.publish(SOLD, Sold("desk"), key="k", headers={"a": "b"})
        await cx.publish("new.event", {"x": 1})
        await cx.publish("new.event")
        counts = [(await cx.request(Count("lamp"))).left, (await cx.request(COUNT, Count("desk"))).left]
        plain = await cx.request("stock.count", {"item": "x"})
        return [receipt.groups, counts, plain, (await cx.request_to("shop", COUNT, Count("y"))).left]

    with TestNode(worker_that(do)) as node:
        node.answer("stock.count", lambda ask: {"left": len(ask["item"])})
        assert node.request("do", {}) == [1, [4, 4], {"left": 1}, 1]
        assert [(event.name, event.payload) for event in node.published] == [
            ("stock.sold", {"item": "lamp"}), ("stock.sold", {"item": "desk"}), ("new.event", {"x": 1}), ("new.event", None),
        ]  # fmt: skip
        assert (node.published[1].key, node.published[1].headers) == ("k", {"a": "b"})
        assert node.requested[3].fields["to"] == "shop"
        assert node.declared == [{"name": "new.event", "kind": "notification"}]
        assert [fields["id"] for name, fields in node.frames if name in ("publish", "request")] == list(range(1, 16, 2))


def test_what_follows_from_an_event_says_so() -> None:
    def do(event: Dict[str, Any], cx: SyncContext) -> int:
        cx.publish(Sold("lamp"))
        return int(cx.request(Count("lamp"), timeout=100).left)

    with TestNode(worker_that(do)) as node:
        node.answer("stock.count", {"left": 3})
        assert node.request("do", {}, event_id="ab" * 16, trace="00-t", timeout_ms=3000) == 3
        for sent in node.published + node.requested:
            assert (sent.cause, sent.fields["trace"]) == ("ab" * 16, "00-t")
        assert 2000 < node.requested[0].fields["timeout_ms"] <= 3000


def test_errors_of_requests_say_their_code() -> None:
    async def do(event: Dict[str, Any], cx: Context) -> List[Any]:
        codes: List[Any] = []
        for name in ("fails", "errs", "nobody", "bad name"):
            try:
                await cx.request(name, {})
            except Exception as error:
                codes.append([getattr(error, "code", type(error).__name__), getattr(error, "is_failure", None)])
        for attempt in (lambda: cx.publish(COUNT, Count("a")), lambda: cx.publish(Stock(1)), lambda: cx.request(COUNT, {})):
            try:
                await attempt()  # type: ignore[no-untyped-call]
            except Exception as error:
                codes.append(getattr(error, "code", type(error).__name__))
        return codes

    with TestNode(worker_that(do)) as node:
        node.answer("fails", Failure("sold_out", "nothing left"))
        node.answer("errs", RequestError("overloaded", "no room"))
        assert node.request("do", {}) == [
            ["sold_out", True], ["overloaded", False], ["no_handler", False], ["DeclarationError", None],
            "wrong_kind", "TypeError", "TypeError",
        ]  # fmt: skip


def test_a_response_that_is_not_what_was_declared_is_an_error() -> None:
    with TestNode(worker_that(lambda event, cx: cx.request(Count("a")).left)) as node:
        node.answer("stock.count", {"left": "many"})
        with pytest.raises(RequestError, match="invalid_payload: the response of stock.count: left: expected an integer"):
            node.request("do", {})


def test_all_who_answer_are_asked() -> None:
    async def do(event: Dict[str, Any], cx: Context) -> List[Any]:
        answers = await cx.request_all(COUNT, Count("a"))
        try:
            await cx.request_all("nobody", {})
        except RequestError as error:
            return [(answer.manager, answer.value) for answer in answers] + [error.code]
        return []

    with TestNode(worker_that(do)) as node:
        node.answer("stock.count", {"left": 2})
        assert node.request("do", {}) == [["test", {"left": 2}], "no_handler"]


def test_no_more_calls_are_open_than_the_window_says_and_who_waits_is_served_in_order() -> None:
    async def do(event: Dict[str, Any], cx: Context) -> None:
        await asyncio.gather(*(cx.request("late", {"n": number}) for number in range(20)))

    with TestNode(worker_that(do), window={"calls": 3, "bytes": 1000}) as node:
        node.answer("late", NEVER)
        call = node.call("request", "do", {})
        for number in range(20):
            node.wait_until(lambda: len(node.requested) == min(number + 3, 20))
            assert [event.payload["n"] for event in node.requested] == list(range(min(number + 3, 20)))
            node.send("response", {"id": node.requested[number].fields["id"]})
        call.result()


def test_a_wait_that_is_given_up_cancels_the_call() -> None:
    async def do(event: Dict[str, Any], cx: Context) -> str:
        try:
            await asyncio.wait_for(cx.request("late", {}), 0.01)
        except asyncio.TimeoutError:
            return "given up"
        return "answered"

    with TestNode(worker_that(do)) as node:
        node.answer("late", NEVER)
        assert node.request("do", {}) == "given up"
        number = node.requested[0].fields["id"]
        assert ("cancel", {"id": number}) in node.frames
        node.send("response", {"id": number})  # Late: nobody minds.
        assert not node.errors


def test_no_time_left_is_an_error_at_once() -> None:
    def do(event: Dict[str, Any], cx: SyncContext) -> None:
        while cx.remaining:
            time.sleep(0.001)
        cx.request("late", {})

    with TestNode(worker_that(do)) as node, pytest.raises(RequestError, match="RequestError: timed_out"):
        node.request("do", {}, timeout_ms=1)


def test_a_context_of_a_thread_does_not_block_the_loop() -> None:
    worker = Worker()
    held: List[SyncContext] = []
    worker.request("plain")(lambda event, cx: held.append(cx))

    @worker.request("async")
    async def misuse(event: Dict[str, Any], cx: Context) -> None:
        held[0].publish("x", {})

    with TestNode(worker) as node:
        node.request("plain", {})
        with pytest.raises(RequestError, match="would block the event loop"):
            node.request("async", {})


# ---- tunnels -------------------------------------------------------------------------------------------------------


def upload_worker() -> Worker:
    worker = Worker()

    @worker.tunnel("async.upload", up=bytes, down=int, result=int)
    async def async_upload(event: Dict[str, Any], tunnel: Any, cx: Context) -> int:
        total = 0
        async for chunk in tunnel:
            if chunk == b"fail":
                raise Failure("no_room", "the disk is full")
            total += len(chunk)
            await tunnel.send(total)
        return total

    @worker.tunnel("plain.upload", up=bytes, down=int, result=int)
    def plain_upload(event: Dict[str, Any], tunnel: Any, cx: SyncContext) -> int:
        total = 0
        for chunk in tunnel:
            if chunk == b"fail":
                raise Failure("no_room", "the disk is full")
            total += len(chunk)
            tunnel.send(total)
        return total

    return worker


@pytest.mark.parametrize("event", ["async.upload", "plain.upload"])
def test_items_go_both_ways_in_order_with_credit(event: str) -> None:
    with TestNode(upload_worker()) as node:
        tunnel = node.open(event, {})
        for number in range(1, 301):
            tunnel.send(b"x")
            assert tunnel.recv() == number
        tunnel.finish()
        assert list(tunnel) == []
        assert tunnel.result() == 300
        for _ in range(3):
            tunnel = node.open(event, {})
            tunnel.send(b"fail")
            with pytest.raises(RequestError, match="no_room: the disk is full"):
                tunnel.result()
            tunnel = node.open(event, {})
            tunnel.send("text")
            with pytest.raises(RequestError, match="invalid_payload: .*upload, item 1: expected bytes, got a text"):
                tunnel.result()
            tunnel = node.open(event, {})
            tunnel.abort("enough", "stop it")
            with pytest.raises(RequestError, match="TunnelBroken: enough: stop it"):
                tunnel.result()
            tunnel = node.open(event, {})
            tunnel.cancel()
            with pytest.raises(RequestError, match="cancelled"):
                tunnel.result()
        assert not node.errors


def test_a_sender_waits_for_credit_in_items_and_bytes() -> None:
    worker = Worker()
    sent: List[int] = []

    @worker.tunnel("a")
    async def sends(event: Dict[str, Any], tunnel: Any) -> None:
        for number in range(6):
            await tunnel.send(b"x" * 100)
            sent.append(number)

    with TestNode(worker) as node:
        for credit in ({"items": 2, "bytes": 1 << 20}, {"items": 100, "bytes": 150}):
            sent.clear()
            tunnel = node.open("a", {}, credit=credit)
            items = [tunnel._items.get(timeout=5), tunnel._items.get(timeout=5)]
            node.call("publish", "a", {}, handler=7).cancel()
            node.send("ping", {"id": 77})
            node.wait_until(lambda: ("pong", {"id": 77}) in node.frames)
            node.frames.clear()
            assert [kind for kind, _ in items] == ["data", "data"]
            assert sent == [0, 1] and tunnel._items.empty()
            node.send("credit", {"id": tunnel.number, "items": 10, "bytes": 10000})
            assert tunnel.result() is None


def test_an_opener_without_credit_is_stopped() -> None:
    worker = Worker()
    release = threading.Event()

    @worker.tunnel("a")
    def waits(event: Dict[str, Any], tunnel: Any) -> Any:
        release.wait(5)
        return len(list(tunnel))

    with TestNode(worker) as node:
        tunnel = node.open("a", {})
        for _ in range(65):
            node.send("data", {"id": tunnel.number, "payload": b"\xc0"})
        node.wait_until(lambda: bool(node.errors))
        assert (node.errors[0]["code"], node.errors[0]["id"]) == ("no_credit", tunnel.number)
        release.set()
        with pytest.raises(RequestError, match="no_credit"):
            tunnel.result()
        node.send("data", {"id": tunnel.number, "payload": b"\xc0"})  # It has just ended: no error.
        node.send("data", {"id": 5000, "payload": b"\xc0"})
        node.wait_until(lambda: len(node.errors) == 2)
        assert (node.errors[1]["code"], node.errors[1]["id"]) == ("unknown_call", 5000)


def test_a_worker_opens_a_tunnel() -> None:
    async def do(event: Dict[str, Any], cx: Context) -> List[Any]:
        async with cx.open(Count("a")) as tunnel:
            for _ in range(100):
                await tunnel.send(b"xy")
                last = await tunnel.recv()
            await tunnel.finish()
            with pytest.raises(TunnelEnded):
                await tunnel.recv()
            result = await tunnel.result()
        with pytest.raises(TunnelBroken):
            await tunnel.send(b"late")
        return [last, result.left]

    def serve(payload: Any, tunnel: Any) -> Any:
        total = 0
        for chunk in tunnel:
            total += len(chunk)
            tunnel.send(total)
        return {"left": total}

    with TestNode(worker_that(do)) as node:
        node.answer_tunnel("file.upload", serve)
        assert node.request("do", {}) == [200, 200]
        assert node.opened[0].payload == {"item": "a"}


def test_a_plain_function_opens_a_tunnel_and_drops_it() -> None:
    def do(event: Dict[str, Any], cx: SyncContext) -> str:
        with cx.open(UPLOAD, Count("a")) as tunnel:
            tunnel.send(b"x")
        with cx.open("file.nowhere", {}) as tunnel, pytest.raises(RequestError, match="no_handler"):
            tunnel.result()
        with cx.open("file.breaks", {}) as tunnel, pytest.raises(RequestError, match="full"):
            tunnel.recv()
        return "dropped"

    def fails(payload: Any, tunnel: Any) -> Any:
        raise Failure("full", "no more")

    with TestNode(worker_that(do)) as node:
        node.answer_tunnel("file.upload", lambda payload, tunnel: list(tunnel))
        node.answer_tunnel("file.breaks", fails)
        assert node.request("do", {}) == "dropped"
        assert [name for name, fields in node.frames if name == "cancel" and fields["id"] == 1] == ["cancel"]
