"""Greets whoever asks, and tells others that it has."""

from dataclasses import dataclass

from edri_sdk import Context, Worker

worker = Worker()


@dataclass
class Ask:
    """Who wants to be greeted?"""

    name: str


@dataclass
class Greeting:
    text: str


@worker.request("greeting.ask", timeout=5)
async def greet(ask: Ask, cx: Context) -> Greeting:
    await cx.publish("greeting.given", {"name": ask.name})
    return Greeting(f"Hello, {ask.name}!")


if __name__ == "__main__":
    worker.run()
