"""A worker of the Python SDK that connects to a gateway: its address, the manager, a token if it has one."""

import asyncio
import logging
import os
import sys
from dataclasses import dataclass

import edri_sdk
from edri_sdk import Context, Expose, Failure, SyncContext, Tunnel, Worker, notification_event

logging.basicConfig(level=logging.INFO, format="%(message)s")
worker = Worker(concurrency=int(os.environ.get("CONCURRENCY", "1")))
FOLLOWED = worker.sends(notification_event("remote.followed", dict, expose=True))


@dataclass
class Assess:
    region: str
    depth: int = 0
    tenant: str = ""


@dataclass
class Risk:
    said: str
    pid: int


@worker.request("remote.risk", idempotent=True, expose=Expose(["GET /remote/{region}", "POST /remote"], headers={"tenant": "x-tenant"}))
async def assess(ask: Assess, cx: Context) -> Risk:
    if ask.region == "atlantis":
        raise Failure("not_found", "there is no Atlantis")
    if ask.region == "slow":
        await asyncio.sleep(1)
    return Risk(f"{ask.region} {ask.depth} {ask.tenant}", os.getpid())


@worker.notification("remote.noted")
async def noted(event: dict, cx: Context) -> None:
    if event["number"] == int(os.environ.get("HOLD_AT", "-1")):
        await asyncio.sleep(60)
    await cx.publish(FOLLOWED, {"number": event["number"], "redelivered": cx.redelivered, "pid": os.getpid()})


@worker.request("remote.plain", expose=True)
def plain(ask: dict, cx: SyncContext) -> dict:
    return {"caller": cx.caller, "manager": cx.manager, "asked": cx.request("api.risk", {"region": "here"})["said"]}


@worker.tunnel("remote.upper", up=str, down=str, result=int, expose=True)
async def upper(ask: dict, tunnel: Tunnel, cx: Context) -> int:
    count = 0
    async for item in tunnel:
        await tunnel.send(item.upper())
        count += 1
    return count


if __name__ == "__main__":
    address, manager, token = sys.argv[1], sys.argv[2], (sys.argv[3:] or [None])[0]
    try:
        sys.exit(edri_sdk.serve(worker, address, manager=manager, token=token))
    except edri_sdk.ConnectError as error:
        print(f"refused: {error}", flush=True)
        sys.exit(3)
