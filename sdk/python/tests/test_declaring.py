"""What is declared wrongly is said where it is declared."""

from dataclasses import dataclass
from typing import Any, Dict

import pytest

import edri_sdk
from edri_sdk import DeclarationError, Worker, notification_event, request_event


@dataclass
class Quake:
    region: str


async def handle(quake: Quake, cx: Any) -> None:
    pass


@pytest.mark.parametrize("name", ["", "a..b", ".a", "a.", "a b", "é", "a/b", "x" * 201, None, 3, "a\n"])
def test_a_name_that_breaks_the_rules_is_refused(name: Any) -> None:
    with pytest.raises(DeclarationError, match="name"):
        Worker().notification(name)(handle)


@pytest.mark.parametrize("pattern", ["a.>.b", "a b.*", "*..>"])
def test_a_pattern_that_breaks_the_rules_is_refused(pattern: str) -> None:
    with pytest.raises(DeclarationError):
        Worker().notification(pattern)(handle)


def test_only_notifications_are_selected_by_pattern() -> None:
    with pytest.raises(DeclarationError, match="notifications only"):
        Worker().request("a.*")(handle)
    with pytest.raises(DeclarationError, match="no options"):
        Worker().notification("a.*", key="x")(handle)


def test_two_handlers_for_one_event_are_refused() -> None:
    worker = Worker()
    worker.notification("quake.recorded")(handle)
    with pytest.raises(DeclarationError, match="handle handles quake.recorded already"):
        worker.notification("quake.recorded")(handle)


def test_functions_of_the_wrong_form_are_refused() -> None:
    def nothing() -> None: ...

    def many(a: Any, b: Any, c: Any) -> None: ...

    def keyword(a: Any, *, b: Any) -> None: ...

    async def stream(a: Any, cx: Any) -> Any:
        yield 1

    for function, says in ((nothing, "0 arguments"), (many, "3 arguments"), (keyword, "keyword-only"), (stream, "yield")):
        with pytest.raises(DeclarationError, match=says):
            Worker().notification("a")(function)
    with pytest.raises(DeclarationError, match="no function"):
        Worker().notification("a")(7)  # type: ignore[type-var]
    with pytest.raises(DeclarationError, match="takes 1 arg"):
        Worker().tunnel("a")(lambda event: None)
    with pytest.raises(DeclarationError, match="hook takes the context"):
        Worker().started(lambda: None)


def test_types_that_cannot_be_are_refused() -> None:
    def unknown(a: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    def plain(a: int) -> None: ...

    def keys(a: Quake) -> Dict[int, int]: ...

    with pytest.raises(DeclarationError, match="top level"):
        Worker().notification("a")(unknown)
    with pytest.raises(DeclarationError, match="named fields"):
        Worker().notification("a")(plain)
    with pytest.raises(DeclarationError, match="the response of a: the keys"):
        Worker().request("a")(keys)
    with pytest.raises(DeclarationError, match="no field of its payload; its fields: region"):
        Worker().notification("a", key="place")(handle)
    with pytest.raises(DeclarationError, match="more than 0 seconds"):
        Worker().request("a", timeout=0)(handle)
    with pytest.raises(DeclarationError, match="concurrency"):
        Worker(0)


def test_one_event_has_one_declaration() -> None:
    worker = Worker()
    worker.sends(request_event("a", Quake))
    worker.sends(request_event("a", Quake))
    with pytest.raises(DeclarationError, match="declared twice"):
        worker.sends(notification_event("a", Quake))
    with pytest.raises(DeclarationError, match="is a notification"):
        Worker().request(notification_event("a"))(handle)  # type: ignore[arg-type]
    with pytest.raises(DeclarationError, match="belongs there"):
        Worker().notification(notification_event("a"), key="x")(handle)
    with pytest.raises(DeclarationError, match="is no event"):
        Worker().sends("a")  # type: ignore[type-var]


def test_hello_says_what_is_declared() -> None:
    worker = Worker(concurrency=100)
    worker.notification("quake.>")(lambda event: None)

    @worker.request("risk.assess", key="region", timeout=1.5, idempotent=True)
    def assess(ask: Quake) -> Dict[str, float]:
        """Assesses the risk
        of a region.

        At length."""
        return {}

    worker.tunnel("wave.stream", payload={"type": "object"}, up=bytes, down={"type": "number"}, idle_timeout=3)(
        lambda event, tunnel: None
    )
    hello = worker.hello()
    assert hello["window"]["calls"] == hello["concurrency"] == 100
    assert [handler["select"] for handler in hello["handlers"]] == ["quake.>", "risk.assess", "wave.stream"]
    risk, wave = hello["events"]
    quake = {"title": "Quake", "type": "object", "properties": {"region": {"type": "string"}}, "required": ["region"]}
    assert risk == {
        "name": "risk.assess",
        "kind": "request",
        "key": "region",
        "time_limit_ms": 1500,
        "idempotent": True,
        "description": "Assesses the risk of a region.",
        "schemas": {"event": quake, "output": {"type": "object", "additionalProperties": {"type": "number"}}},
    }
    assert wave["time_limit_ms"] == 3000
    assert wave["schemas"]["event"] == {"type": "object"}
    assert wave["schemas"]["down"] == {"type": "number"}


def test_methods_of_a_class_are_handlers() -> None:
    class Model:
        @edri_sdk.notification("quake.recorded")
        async def recorded(self, quake: Quake, cx: Any) -> None: ...

        @edri_sdk.started
        async def begin(self, cx: Any) -> None: ...

    worker = Worker()
    worker.add(Model())
    assert [handler.select for handler in worker.handlers] == ["quake.recorded"]
    assert len(worker.start_hooks) == 1
    with pytest.raises(DeclarationError, match="no handlers"):
        worker.add(object())
