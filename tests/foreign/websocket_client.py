"""A stranger: the WebSocket library of Python, and nothing of edri. Takes the gateway's address."""

import asyncio
import json
import sys

import websockets

IN_FLIGHT = 300


async def main(address: str) -> None:
    async with websockets.connect(f"ws://{address}/ws", subprotocols=["edri.json"]) as socket:
        assert socket.subprotocol == "edri.json", socket.subprotocol

        async def say(name: str, **fields: object) -> None:
            await socket.send(json.dumps({name: fields}))

        async def hear(name: str) -> dict:
            frame = json.loads(await asyncio.wait_for(socket.recv(), 20))
            assert list(frame) == [name], frame
            return frame[name]

        await say("hello", version=1, role="client", agent="a stranger")
        assert (await hear("welcome"))["node"] == "gate"

        ids = range(1, 2 * IN_FLIGHT, 2)
        for number in ids:
            await say("request", id=number, event="api.risk", payload={"region": f"r{number}"})
        answers = [await hear("response") for _ in ids]
        assert {answer["id"]: answer["value"]["said"].split()[0] for answer in answers} == {n: f"r{n}" for n in ids}

        await say("subscribe", id=1001, select="api.feed.*")
        assert await hear("response") == {"id": 1001}
        await say("publish", event="api.feed.tick", payload={"topic": "all", "number": 7})
        event = await hear("publish")
        assert (event["subscription"], event["payload"]["number"]) == (1001, 7), event

        await socket.send("what is this?")
        assert (await hear("error"))["code"] == "malformed_frame"

        await say("open", id=1003, event="api.upper", payload={}, credit={"items": 10, "bytes": 1000})
        assert (await hear("credit"))["items"] > 0
        await say("data", id=1003, payload="ä")
        assert (await hear("data"))["payload"] == "Ä"
        await say("end", id=1003)
        assert (await hear("response"))["value"] == 1
        await say("bye")
        await hear("bye")
    async with websockets.connect(f"ws://{address}/ws") as other:
        await other.send(json.dumps({"hello": {"version": 1, "role": "client"}}))
        assert "welcome" in json.loads(await other.recv())


asyncio.run(main(sys.argv[1]))
