"""The worker of ours: the same as in Rust."""

from dataclasses import dataclass

from edri_sdk import Worker

worker = Worker()


@dataclass
class Blob:
    number: int
    data: bytes


@worker.request("bench.blob.ask")
async def ask(event: Blob, cx) -> int:
    return event.number + len(event.data)


@worker.notification("bench.blob")
async def take(event: Blob, cx) -> None:
    pass


worker.run()
