"""A worker of the Python SDK, for the scenarios of `tests/python.rs`."""

import asyncio
import os
import signal
import sys
import time
from dataclasses import dataclass

from edri_sdk import Context, Failure, SyncContext, Tunnel, Worker, notification_event, request_event

worker = Worker(concurrency=int(os.environ.get("CONCURRENCY", "1")))


@dataclass
class Noted:
    key: str
    number: int


@dataclass
class Followed:
    number: int


@dataclass
class Asked:
    number: int


FOLLOWED = worker.sends(notification_event("test.followed", Followed))
ORACLE = worker.sends(request_event("test.oracle", Asked, response=int))


@worker.started
async def started(cx: Context) -> None:
    cx.logger.info("started as instance %s of %s", cx.instance, cx.manager)


@worker.notification("test.noted", key="key")
async def noted(event: Noted, cx: Context) -> None:
    if event.number == 13 and not cx.redelivered:
        os.kill(os.getpid(), signal.SIGKILL)
    await cx.publish(Followed(event.number))


@worker.request("test.asked", response=int)
def asked(ask: Asked, cx: SyncContext) -> int:
    if ask.number == 13:
        raise ValueError("thirteen is no number")
    if ask.number == 14:
        raise Failure("unlucky", "nor is fourteen")
    if ask.number == 15:
        return cx.request(ORACLE, Asked(15))
    if ask.number == 16:
        time.sleep(60)
    return ask.number * 2


@worker.tunnel("test.upper", up=str, down=str, result=int)
async def upper(ask: dict, tunnel: Tunnel, cx: Context) -> int:
    count = 0
    async for item in tunnel:
        await tunnel.send(item.upper())
        count += 1
    return count


@worker.tunnel("test.bytes", up=bytes, down=bytes, result=int)
async def swallow(ask: dict, tunnel: Tunnel, cx: Context) -> int:
    size = 0
    async for chunk in tunnel:
        size += len(chunk)
    return size


@worker.request("test.slow", response=bool)
async def slow(ask: dict, cx: Context) -> bool:
    try:
        await asyncio.wait_for(cx.wait_cancelled(), 30)
    except asyncio.TimeoutError:
        return False
    await cx.publish(Followed(4711))
    return True


if __name__ == "__main__":
    print("a line on stdout", flush=True)
    print("a line on stderr", file=sys.stderr, flush=True)
    worker.run()
