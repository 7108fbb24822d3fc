"""The Python workers of the chaos scenario: say of every event that it was handled, and whether it came again."""

from dataclasses import dataclass

from edri_sdk import Context, Worker, notification_event

worker = Worker()


@dataclass
class Struck:
    number: int


@dataclass
class Survived:
    by_python: bool
    number: int
    redelivered: bool


SURVIVED = worker.sends(notification_event("chaos.survived", Survived))


@worker.notification("chaos.python")
async def struck(event: Struck, cx: Context) -> None:
    await cx.publish(SURVIVED, Survived(True, event.number, cx.redelivered))


if __name__ == "__main__":
    worker.run()
