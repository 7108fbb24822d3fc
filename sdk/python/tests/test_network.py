"""Workers and clients over WebSocket, against a fake node in the same event loop."""

import asyncio
import random
import sys
from contextlib import asynccontextmanager
from typing import Any, AsyncIterator, Awaitable, Callable, Dict, List, Optional, Tuple

import pytest
from websockets.asyncio.server import ServerConnection, serve

import edri_sdk
from edri_sdk import ConnectError, EdriError, Expose, RequestError, Worker, notification_event, request_event
from edri_sdk.errors import DeclarationError
from edri_sdk.frames import encode, pack, unpack, unpack_frame
from edri_sdk.websocket import Pauses, address_of

WELCOME = {"version": 1, "node": "n", "incarnation": "0" * 16, "silence_ms": 30000, "frame_bytes_max": 1 << 20}


class Line:
    """The node's end of a connection."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket

    async def send(self, name: str, **fields: Any) -> None:
        await self.socket.send(encode(name, fields)[4:])

    async def next(self, *wanted: str) -> Dict[str, Any]:
        """The next frame of one of these names; others are skipped."""
        while True:
            name, fields = unpack_frame(await asyncio.wait_for(self.socket.recv(), 10))
            if name in wanted:
                return dict(fields)


Life = Callable[[Line], Awaitable[None]]


@asynccontextmanager
async def node(*lives: Life) -> AsyncIterator[str]:
    """A node whose connections have these lives, one after another; all of them must have been lived."""
    waiting, failed = list(lives), []

    async def live(socket: ServerConnection) -> None:
        if not waiting:
            await socket.close()
            return
        try:
            await waiting.pop(0)(Line(socket))
        except Exception as error:
            failed.append(error)

    async with serve(live, "127.0.0.1", 0, subprotocols=["edri.msgpack"]) as server:  # type: ignore[list-item, unused-ignore]
        port = server.sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}"
    assert not failed, failed
    assert not waiting, f"{len(waiting)} connections did not come"


def worker(on_nine: Callable[[], None] = lambda: None) -> Worker:
    made = Worker()

    @made.request("add", response=int)
    async def add(ask: dict) -> int:
        if ask["a"] == 9:
            on_nine()
            await asyncio.sleep(0.05)
        return int(ask["a"]) + 1

    return made


async def greet(line: Line) -> Dict[str, Any]:
    hello = await line.next("hello")
    await line.send("welcome", **WELCOME, manager="m")
    await line.next("ready")
    return hello


async def ask(line: Line, number: int) -> Any:
    await line.send("request", id=number, event="add", handler=0, payload=pack({"a": number}))
    return unpack((await line.next("response"))["value"])


def test_a_worker_serves_and_comes_again_when_its_connection_breaks() -> None:
    hellos: List[Dict[str, Any]] = []

    async def scenario() -> int:
        end = asyncio.Event()

        async def breaks(line: Line) -> None:
            assert line.socket.request is not None
            assert line.socket.request.headers["Authorization"] == "Bearer secret 1"
            hellos.append(await greet(line))
            assert await ask(line, 2) == 3
            line.socket.transport.abort()

        async def ends(line: Line) -> None:
            hellos.append(await greet(line))
            assert await ask(line, 2) == 3
            # It is asked to end with this in hand, which it finishes, and then says bye.
            await line.send("request", id=4, event="add", handler=0, payload=pack({"a": 9}))
            assert unpack((await line.next("response"))["value"]) == 10
            await line.next("bye")
            await line.socket.wait_closed()

        tokens = iter(["secret 1", "secret 2"])
        async with node(breaks, ends) as url:
            serving = edri_sdk.serve_async(worker(end.set), url, manager="m", token=lambda: next(tokens), stop=end, send_logs=False)
            return await asyncio.wait_for(serving, 20)

    assert asyncio.run(scenario()) == 0
    assert [hello["manager"] for hello in hellos] == ["m", "m"]
    assert hellos[0]["role"] == "worker" and hellos[0]["handlers"] == [{"select": "add"}]


@pytest.mark.parametrize("code, is_final", [("forbidden", True), ("wrong_handlers", True), ("overloaded", False)])
def test_a_worker_that_is_refused_ends_unless_it_may_be_let_in_later(code: str, is_final: bool) -> None:
    async def scenario() -> int:
        end = asyncio.Event()

        async def refuses(line: Line) -> None:
            await line.next("hello")
            await line.send("error", code=code, message="no")
            await line.socket.close()

        async def welcomes(line: Line) -> None:
            await greet(line)
            end.set()
            await line.next("bye")

        lives: Tuple[Life, ...] = (refuses,) if is_final else (refuses, welcomes)
        async with node(*lives) as url:
            return await asyncio.wait_for(edri_sdk.serve_async(worker(), url, manager="m", stop=end, send_logs=False), 20)

    if is_final:
        with pytest.raises(ConnectError) as refused:
            asyncio.run(scenario())
        assert refused.value.code == code
    else:
        assert asyncio.run(scenario()) == 0


def test_a_worker_waits_for_a_node_that_is_not_there_yet() -> None:
    async def scenario() -> int:
        end = asyncio.Event()
        asyncio.get_running_loop().call_later(0.5, end.set)
        return await asyncio.wait_for(edri_sdk.serve_async(worker(), "ws://127.0.0.1:9", manager="m", stop=end), 10)

    assert asyncio.run(scenario()) == 0


def test_a_worker_that_waits_for_its_welcome_can_be_ended() -> None:
    async def scenario() -> int:
        end = asyncio.Event()

        async def lets_wait(line: Line) -> None:
            await line.next("hello")
            end.set()
            await line.socket.wait_closed()

        async with node(lets_wait) as url:
            return await asyncio.wait_for(edri_sdk.serve_async(worker(), url, manager="m", stop=end, send_logs=False), 10)

    assert asyncio.run(scenario()) == 0


def test_a_worker_whose_start_fails_ends_with_1() -> None:
    async def scenario() -> int:
        made = worker()

        @made.started
        async def started(cx: Any) -> None:
            raise ValueError("no model")

        async def hears(line: Line) -> None:
            await line.next("hello")
            await line.send("welcome", **WELCOME, manager="m")
            assert "no model" in (await line.next("bye"))["error"]["message"]

        async with node(hears) as url:
            return await asyncio.wait_for(edri_sdk.serve_async(made, url, manager="m", send_logs=False), 10)

    assert asyncio.run(scenario()) == 1


def session(received: int = 0, resumed: bool = False, name: str = "s") -> Dict[str, Any]:
    return {**WELCOME, "session": {"id": name, "keep_ms": 60000, "resumed": resumed, "received": received}}


def test_a_client_goes_on_where_its_connection_broke() -> None:
    async def scenario() -> None:
        async def breaks(line: Line) -> None:
            assert (await line.next("hello"))["session"] == {}
            await line.send("welcome", **session())
            subscribe = await line.next("subscribe")
            await line.send("response", id=subscribe["id"])
            for number in range(3):
                await line.send("publish", event="tick", payload=pack({"n": number}), subscription=subscribe["id"])
            await line.next("request")
            line.socket.transport.abort()

        async def resumes(line: Line) -> None:
            asked = (await line.next("hello"))["session"]
            assert asked == {"id": "s", "received": 4}, asked
            # It has the subscription and not the request, which comes again.
            await line.send("welcome", **session(received=1, resumed=True))
            request = await line.next("request")
            await line.send("publish", event="tick", payload=pack({"n": 3}), subscription=1)
            await line.send("response", id=request["id"], value=pack(7))
            await line.next("bye")
            await line.send("bye")

        async with node(breaks, resumes) as url:
            async with edri_sdk.connect(url) as client:
                async with client.subscribe("tick") as ticks:
                    first = [(await ticks.next()).payload["n"] for _ in range(3)]
                    assert await asyncio.wait_for(client.request("add", {"a": 1}), 10) == 7
                    last = await ticks.next()
                    assert first == [0, 1, 2] and (last.payload, last.gap, last.missed) == ({"n": 3}, False, 0)

    asyncio.run(scenario())


def test_when_the_session_is_gone_calls_end_and_subscriptions_begin_again() -> None:
    async def scenario() -> None:
        async def breaks(line: Line) -> None:
            await line.next("hello")
            await line.send("welcome", **session())
            subscribe = await line.next("subscribe")
            assert unpack(subscribe["conditions"]) == {"n": {"gte": 1}} and subscribe["key"] == "k"
            await line.send("response", id=subscribe["id"])
            await line.next("request")
            line.socket.transport.abort()

        async def is_new(line: Line) -> None:
            await line.next("hello")
            await line.send("welcome", **session(name="t"))
            subscribe = await line.next("subscribe")
            await line.send("response", id=subscribe["id"])
            await line.send("missed", id=subscribe["id"], count=5)
            await line.send("publish", event="tick", payload=pack({"n": 9}), subscription=subscribe["id"])
            await line.next("bye")
            await line.send("bye")

        async with node(breaks, is_new) as url:
            async with edri_sdk.connect(url) as client:
                async with client.subscribe("tick", key="k", conditions={"n": {"gte": 1}}) as ticks:
                    with pytest.raises(RequestError) as lost:
                        await asyncio.wait_for(client.request("add", {"a": 1}), 10)
                    assert lost.value.code == "peer_lost"
                    event = await asyncio.wait_for(ticks.next(), 10)
                    assert (event.payload, event.gap, event.missed, ticks.missed) == ({"n": 9}, True, 5, 5)

    asyncio.run(scenario())


def test_a_subscription_gives_credit_as_its_events_are_taken() -> None:
    async def scenario() -> None:
        async def feeds(line: Line) -> None:
            await line.next("hello")
            await line.send("welcome", **session())
            subscribe = await line.next("subscribe")
            assert subscribe["credit"] == 4
            await line.send("response", id=subscribe["id"])
            for number in range(4):
                await line.send("publish", event="tick", payload=pack({"n": number}), subscription=subscribe["id"])
            assert await line.next("credit") == {"id": subscribe["id"], "items": 2}
            assert await line.next("credit") == {"id": subscribe["id"], "items": 2}
            await line.next("unsubscribe")
            await line.next("bye")
            await line.send("bye")

        async with node(feeds) as url, edri_sdk.connect(url) as client:
            async with client.subscribe("tick", buffer=4) as ticks:
                for number in range(4):
                    assert (await ticks.next()).payload == {"n": number}

    asyncio.run(scenario())


def test_a_client_tells_what_has_come_in_growing_counts() -> None:
    async def scenario() -> None:
        told = asyncio.Event()

        async def floods(line: Line) -> None:
            await line.next("hello")
            await line.send("welcome", **session())
            subscribe = await line.next("subscribe")
            await line.send("response", id=subscribe["id"])
            for number in range(1000):
                await line.send("publish", event="tick", payload=pack({"n": number}), subscription=subscribe["id"])
            counts = []
            while not counts or counts[-1] < 1001:
                counts.append((await line.next("ack"))["received"])
            assert counts == sorted(set(counts)), counts
            told.set()
            await line.next("bye")
            await line.send("bye")

        async with node(floods) as url, edri_sdk.connect(url) as client:
            async with client.subscribe("tick", buffer=2000) as ticks:
                for number in range(1000):
                    assert (await ticks.next()).payload == {"n": number}
                # The last of it is told of by itself, without another event.
                await asyncio.wait_for(told.wait(), 10)

    asyncio.run(scenario())


def test_a_client_learns_why_it_is_not_let_in() -> None:
    async def refuses(line: Line) -> None:
        await line.next("hello")
        await line.send("error", code="unauthorized", message="no such token")

    async def scenario() -> None:
        async with node(refuses) as url:
            await edri_sdk.connect(url, token="guessed")

    with pytest.raises(ConnectError) as refused:
        asyncio.run(scenario())
    assert refused.value.code == "unauthorized"

    async def nobody() -> None:
        await edri_sdk.connect("ws://127.0.0.1:9")

    with pytest.raises(EdriError, match="127.0.0.1:9"):
        asyncio.run(nobody())


def test_an_address_is_that_of_a_gateway() -> None:
    assert address_of("ws://host:1") == "ws://host:1/ws"
    assert address_of("wss://host/behind/ws") == "wss://host/behind/ws"
    for wrong in ["host:1", "http://host", "ws://"]:
        with pytest.raises(EdriError):
            address_of(wrong)


def test_pauses_grow_to_a_limit_and_are_never_the_same_for_all() -> None:
    random.seed(7)
    pauses = Pauses()
    seen = [pauses.next() for _ in range(20)]
    assert seen[0] <= 0.1 and all(pause <= 10 for pause in seen) and seen[-1] >= 5
    assert len(set(seen)) == 20
    pauses.reset()
    assert pauses.next() <= 0.1


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "websockets.asyncio.client", None)
    with pytest.raises(EdriError, match=r"pip install 'edri-sdk\[websocket\]'"):
        edri_sdk.connect("ws://127.0.0.1:9")


def test_an_event_says_how_it_is_exposed() -> None:
    def exposed(expose: Any) -> Optional[Dict[str, Any]]:
        declared: Optional[Dict[str, Any]] = request_event("a", expose=expose).declaration().get("expose")
        return declared

    assert exposed(False) is None
    assert exposed(True) == {}
    assert exposed("GET /a/{b}") == {"routes": ["GET /a/{b}"]}
    assert exposed(["GET /a", "POST /a"]) == {"routes": ["GET /a", "POST /a"]}
    full = Expose(["GET /a"], headers={"tenant": "x-tenant"}, cookies={"session": "s"})
    assert exposed(full) == {"routes": ["GET /a"], "headers": {"tenant": "x-tenant"}, "cookies": {"session": "s"}}
    with pytest.raises(DeclarationError, match="GET /risk"):
        notification_event("a", expose="/no/method")
