"""Type hints to JSON Schema, and payloads to types."""

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any, Dict, List, Literal, NewType, Optional, Tuple, Union

import pytest

from edri_sdk.errors import DeclarationError, Mismatch
from edri_sdk.shape import shape_of


class Scale(Enum):
    LOCAL = "ml"
    MOMENT = "mw"


class Level(IntEnum):
    LOW = 1


@dataclass
class Place:
    """Where it was."""

    name: str
    depth: Optional[float] = None


@dataclass
class Quake:
    place: Place
    magnitude: float
    scale: Scale
    kind: Literal["quake", "blast", 3]
    tags: List[str] = field(default_factory=list)
    figures: Dict[str, int] = field(default_factory=dict)
    pair: Tuple[int, str] = (0, "")
    many: Tuple[int, ...] = ()
    wave: bytes = b""
    sure: bool = True
    either: Union[int, str] = 0
    anything: Any = None
    nothing: None = None
    level: Level = Level.LOW


@dataclass
class Tree:
    name: str
    children: "List[Tree]" = field(default_factory=list)


GOOD = {"place": {"name": "north"}, "magnitude": 4, "scale": "mw", "kind": "quake"}
Region = NewType("Region", str)


def test_a_payload_becomes_the_dataclass() -> None:
    quake = shape_of(Quake, "it").read({**GOOD, "wave": [1, 255], "pair": [1, "a"], "many": [1, 2], "level": 1, "new": 1})
    assert quake == Quake(
        Place("north"), 4.0, Scale.MOMENT, "quake", wave=b"\x01\xff", pair=(1, "a"), many=(1, 2), level=Level.LOW
    )
    assert type(quake.magnitude) is float and quake.level is Level.LOW


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"magnitude": "4"}, "magnitude: expected a number, got a text"),
        ({"magnitude": True}, "magnitude: expected a number, got a bool"),
        ({"place": {}}, "place.name: is missing"),
        ({"place": 3}, "place: expected a map with the fields of Place, got an integer"),
        ({"place": {"name": "x", "depth": "deep"}}, "place.depth: expected a number, got a text"),
        ({"scale": "richter"}, "scale: expected one of 'ml', 'mw', got 'richter'"),
        ({"scale": []}, "scale: expected one of 'ml', 'mw', got a list"),
        ({"kind": True}, "kind: expected one of 'quake', 'blast', 3, got True"),
        ({"tags": ["a", 2]}, "tags[1]: expected a text, got an integer"),
        ({"tags": "a"}, "tags: expected a list, got a text"),
        ({"figures": {"a": 1.5}}, "figures['a']: expected an integer, got a number"),
        ({"figures": {1: 1}}, "figures: expected texts as the keys of the map, got an integer"),
        ({"pair": [1]}, "pair: expected a list of 2, got 1"),
        ({"pair": [1, 2]}, "pair[1]: expected a text, got an integer"),
        ({"wave": [256]}, "wave: expected bytes, got a list that has more than numbers from 0 to 255"),
        ({"wave": "x"}, "wave: expected bytes, got a text"),
        ({"sure": 1}, "sure: expected a bool, got an integer"),
        ({"either": 1.5}, "either: fits none of the types"),
        ({"nothing": 1}, "nothing: expected nothing (null), got an integer"),
    ],
)
def test_a_mismatch_names_the_field(change: Dict[str, Any], says: str) -> None:
    with pytest.raises(Mismatch) as caught:
        shape_of(Quake, "it").read({**GOOD, **change})
    assert str(caught.value).startswith(says)


def test_the_schema_says_what_the_type_says() -> None:
    schema = shape_of(Quake, "it").schema
    assert isinstance(schema, dict)
    assert schema["required"] == ["place", "magnitude", "scale", "kind"]
    assert schema["properties"]["place"] == {"$ref": "#/$defs/Place"}
    place = schema["$defs"]["Place"]
    assert place["description"] == "Where it was."
    assert place["properties"]["depth"] == {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None}
    properties = schema["properties"]
    assert properties["kind"] == {"enum": ["quake", "blast", 3]}
    assert properties["scale"]["enum"] == ["ml", "mw"]
    assert properties["sure"] == {"type": "boolean", "default": True}
    assert properties["pair"]["prefixItems"] == [{"type": "integer"}, {"type": "string"}]
    assert properties["wave"]["items"]["maximum"] == 255
    assert "description" not in schema
    assert "Quake" not in schema["$defs"]


def test_a_dataclass_may_contain_itself() -> None:
    shape = shape_of(Tree, "it")
    tree = shape.read({"name": "a", "children": [{"name": "b"}, {"name": "c", "children": [{"name": "d"}]}]})
    assert tree.children[1].children[0] == Tree("d")
    assert isinstance(shape.schema, dict) and shape.schema["$defs"]["Tree"]["required"] == ["name"]
    with pytest.raises(Mismatch) as caught:
        shape.read({"name": "a", "children": [{"name": "b", "children": [{}]}]})
    assert caught.value.path == "children[0].children[0].name"


def test_a_name_in_payloads_may_differ_and_a_dataclass_may_refuse() -> None:
    @dataclass
    class Move:
        origin: str = field(metadata={"name": "from"})

        def __post_init__(self) -> None:
            if not self.origin:
                raise ValueError("nowhere")

    shape = shape_of(Move, "it")
    assert shape.read({"from": "a"}).origin == "a"
    with pytest.raises(Mismatch, match="Move refuses it: nowhere"):
        shape.read({"from": ""})


def test_plain_types_and_json_schemas() -> None:
    assert shape_of(bytes, "it").read(b"x") == b"x"
    assert shape_of(Region, "it").schema == {"type": "string"}
    assert shape_of(Optional[int], "it").read(None) is None
    assert shape_of(dict, "it").schema is None
    assert shape_of({"type": "object"}, "it").schema == {"type": "object"}
    assert shape_of({"type": "object"}, "it").read(5) == 5
    assert shape_of(List[Place], "it").read([{"name": "a"}]) == [Place("a")]
    with pytest.raises(Mismatch) as caught:
        shape_of(Optional[Place], "it").read({"name": 1})
    assert caught.value.path == "name"


@pytest.mark.parametrize("hint", [object(), set, complex, Dict[int, str], bytearray, Literal[b"x"], List[set]])
def test_a_type_without_a_schema_is_refused_with_advice(hint: Any) -> None:
    with pytest.raises(DeclarationError, match="^the payload of x: "):
        shape_of(hint, "the payload of x")


def test_a_value_that_is_to_be_sent_is_looked_at() -> None:
    shape = shape_of(Place, "it")
    shape.check(Place("x"), "it")
    shape.check({"name": "x"}, "it")
    with pytest.raises(TypeError, match="it is a Place: name: is missing"):
        shape.check({}, "it")
    with pytest.raises(TypeError, match="it is a Place, not nothing"):
        shape.check(None, "it")
