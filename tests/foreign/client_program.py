"""The client of the Python SDK: takes the gateway's address and how many numbered events of a feed it is to find."""

import asyncio
import sys
from dataclasses import dataclass

import edri_sdk
from edri_sdk import ConnectError, RequestError, TunnelEnded, notification_event, request_event


@dataclass
class Tick:
    topic: str
    number: int


@dataclass
class Ask:
    region: str


@dataclass
class Risk:
    said: str


TICK = notification_event("api.feed.tick", Tick, key="topic")
RISK = request_event("api.risk", Ask, response=Risk)


async def verbs(client: edri_sdk.Client) -> None:
    assert client.node == "gate"
    assert await client.request("api.risk", {"region": "x"}) == {"said": "x 0 [] None None None"}
    assert await client.request(Ask("y")) == Risk("y 0 [] None None None")
    assert (await client.request_to("model", RISK, Ask("z"))).said.startswith("z")
    (answer,) = await client.request_all("api.risk", {"region": "all"})
    assert answer.manager == "model" and answer.value["said"].startswith("all"), answer
    for event, payload, code in [
        ("api.risk", {"region": "odd"}, "too_odd"),
        ("api.risk", {"region": 7}, "invalid_payload"),
        ("api.secret", {}, "unknown_event"),
    ]:
        try:
            await client.request(event, payload)
        except RequestError as error:
            assert error.code == code, error
        else:
            raise AssertionError(code)
    try:
        await client.request("api.risk", {"region": "never"}, timeout=0.2)
    except RequestError as error:
        assert error.code == "timed_out", error
    answers = await asyncio.gather(*(client.request("api.risk", {"region": f"r{n}"}) for n in range(300)))
    assert [answer["said"].split()[0] for answer in answers] == [f"r{n}" for n in range(300)]
    async with client.open("api.upper", {}) as tunnel:
        for text in ["a", "ä"]:
            await tunnel.send(text)
            assert await tunnel.recv() == text.upper()
        assert await tunnel.result() == 2
    async with client.open("api.counted", {"until": 5000}) as tunnel:
        assert [number async for number in tunnel] == list(range(5000))
        try:
            await tunnel.recv()
        except TunnelEnded:
            pass


async def subscriptions(client: edri_sdk.Client) -> None:
    async with client.subscribe("api.feed.*", key="west") as west, client.subscribe(
        TICK, conditions={"number": {"gte": 2}}
    ) as later:
        for number, topic in enumerate(["east", "west", "east", "west"]):
            await client.publish(Tick(topic, number))
        assert [(await west.next()).payload["number"] for _ in range(2)] == [1, 3]
        first = await later.next()
        assert first.payload == Tick("east", 2) and first.name == "api.feed.tick" and first.key == "east", first
    # One that takes nothing misses the oldest, and is told how many.
    async with client.subscribe("api.feed.tick", buffer=4, capacity=10) as slow:
        for number in range(100):
            await client.publish(Tick("all", number))
        await client.request("api.risk", {"region": "x"})
        came, missed = 0, 0
        while came + missed < 100:
            event = await slow.next()
            missed += event.missed
            assert event.payload["number"] == came + missed, event
            came += 1
        assert missed > 50 and slow.missed == missed, (came, missed)
    try:
        async with client.subscribe("api.secret"):
            pass
    except RequestError as error:
        assert error.code == "unknown_event", error
    else:
        raise AssertionError("a secret")


async def main(address: str, until: int) -> None:
    try:
        await edri_sdk.connect(address, token="guessed")
    except ConnectError as error:
        assert error.code == "unauthorized", error
    async with edri_sdk.connect(address, events=[TICK, RISK]) as client:
        await verbs(client)
        await subscriptions(client)
        async with client.subscribe("api.feed.tick") as feed:
            asking = asyncio.ensure_future(client.request("api.risk", {"region": "never"}, timeout=30))
            print("subscribed", flush=True)
            for number in range(until):
                event = await feed.next()
                assert (event.payload["number"], event.missed, event.gap) == (number, 0, False), event
            assert not asking.done()
            asking.cancel()
    print("done", flush=True)


def blocking(address: str) -> None:
    with edri_sdk.connect(address) as client:
        assert client.request("api.risk", {"region": "x"})["said"].startswith("x")
        with client.subscribe("api.feed.*") as feed:
            client.publish("api.feed.tick", {"topic": "a", "number": 7})
            assert feed.next(timeout=10).payload["number"] == 7
        with client.open("api.upper", {}) as tunnel:
            tunnel.send("a")
            assert tunnel.recv() == "A"


blocking(sys.argv[1])
asyncio.run(main(sys.argv[1], int(sys.argv[2])))
