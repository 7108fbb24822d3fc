"""Checked by mypy and run by nobody: what the types of the SDK promise."""

from dataclasses import dataclass
from typing import Any, Dict, List

from edri_sdk import Context, Receipt, RequestEvent, SyncContext, Tunnel, TunnelEvent, Worker, request_event


@dataclass
class Ask:
    region: str


@dataclass
class Risk:
    probability: float


worker = Worker(concurrency=2)
RISK: RequestEvent[Ask, Risk] = request_event("risk.assess", Ask, Risk)
UPLOAD: TunnelEvent[Ask, bytes, int, Risk] = TunnelEvent("file.upload", Ask)


@worker.request(RISK)
async def assess(ask: Ask, cx: Context) -> Risk:
    risk: Risk = await cx.request(RISK, ask, timeout=1.0)
    receipt: Receipt = await cx.publish("plain", {"a": 1})
    async with cx.open(UPLOAD, ask) as tunnel:
        await tunnel.send(b"x")
        items: List[int] = [item async for item in tunnel]
        risk = await tunnel.result()
    return Risk(risk.probability + receipt.groups + len(items))


@worker.notification("quake.*")
def any_quake(quake: Dict[str, Any], cx: SyncContext) -> None:
    risk: Risk = cx.request(RISK, Ask("x"))
    with cx.open(UPLOAD, Ask("x")) as tunnel:
        tunnel.send(b"x")
        risk = tunnel.result()
    cx.logger.info("%s", risk)


@worker.tunnel("wave.stream", up=bytes, down=int)
async def stream(ask: Ask, tunnel: Tunnel[int, bytes, None]) -> None:
    async for chunk in tunnel:
        await tunnel.send(len(chunk))
