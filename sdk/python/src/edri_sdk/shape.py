"""Types of payloads: the JSON Schema of a type hint, and the way from a payload's plain value to the type.

==========================  =============================  ==============================
hint                        in a payload                   JSON Schema
==========================  =============================  ==============================
``None``                    nil                            ``null``
``bool``, ``int``, ``str``  the same                       ``boolean``, ``integer``, ...
``float``                   a float or an integer          ``number``
``bytes``                   bytes, or a list of 0 to 255   ``array`` of such integers
``List[T]``                 a list                         ``array``
``Tuple[T, U]``             a list of exactly these        ``array`` with ``prefixItems``
``Tuple[T, ...]``           a list                         ``array``
``Dict[str, T]``            a map                          ``object``
``Optional[T]``, ``Union``  the first that fits            ``anyOf``
``Literal``, ``Enum``       one of the values              ``enum``
a dataclass                 a map                          ``object``
``Any``                     anything                       ``true``
==========================  =============================  ==============================

A field of a dataclass that has a default need not be there; fields that the dataclass does not have are skipped, so that a
newer sender can add some. ``field(metadata={"name": "from"})`` gives a field another name in the payload.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import inspect
import types
import typing
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

from .errors import DeclarationError, Mismatch
from .frames import wire_names

Decode = Callable[[Any], Any]
Schema = Union[Dict[str, Any], bool]

#: A type hint, or a JSON Schema as a dict, which is declared as it is and whose values stay plain.
ShapeLike = Any

_UNIONS = tuple(kind for kind in (Union, getattr(types, "UnionType", None)) if kind is not None)
_KINDS = {bool: "a bool", int: "an integer", float: "a number", str: "a text", bytes: "bytes", list: "a list", dict: "a map"}
_PLAIN: Dict[Any, Schema] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    bytes: {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}},
}


class Shape:
    """What is known of a payload.

    ``schema`` is its JSON Schema, ``None`` when nothing is known; ``type`` is the dataclass, if it is one.
    """

    def __init__(self, schema: Optional[Schema], decode: Optional[Decode], of: Any) -> None:
        self.schema = schema
        #: From the plain value to the type; raises :class:`Mismatch`. ``None`` when values stay as they are.
        self.decode = decode
        self.of = of

    @property
    def type(self) -> Optional[type]:
        return self.of if dataclasses.is_dataclass(self.of) and isinstance(self.of, type) else None

    def read(self, plain: Any) -> Any:
        """The plain value of a payload as the type says; raises :class:`Mismatch`."""
        return plain if self.decode is None else self.decode(plain)

    def check(self, value: Any, what: str) -> None:
        """Raises ``TypeError`` when a dataclass is wanted and ``value`` is neither one nor a dict that could be one."""
        cls = self.type
        if cls is None or isinstance(value, cls):
            return
        if isinstance(value, dict) and self.decode is not None:
            try:
                self.decode(value)
                return
            except Mismatch as mismatch:
                raise TypeError(f"{what} is a {cls.__name__}: {mismatch}") from None
        raise TypeError(f"{what} is a {cls.__name__}, not {_kind_of(value)} ({type(value).__name__})")


#: Of which nothing is known.
UNKNOWN = Shape(None, None, Any)


def shape_of(like: ShapeLike, what: str) -> Shape:
    """The shape of a type hint or a JSON Schema.

    ``what`` names it in :class:`DeclarationError`: ``the payload of quake.recorded``.
    """
    if isinstance(like, Shape):
        return like
    if isinstance(like, dict):
        return Shape(like, None, Any)
    if like is Any or like in (dict, Dict, Dict[str, Any], collections.abc.Mapping, typing.Mapping[str, Any]):
        return UNKNOWN
    builder = _Builder(what)
    schema, decode = builder.build(like)
    if builder.definitions and isinstance(schema, dict):
        definitions = builder.definitions
        if "$ref" in schema and dataclasses.is_dataclass(like):
            root = _reference_name(schema)
            own = definitions[root]
            if not _refers(definitions, schema["$ref"]):
                definitions = {name: it for name, it in definitions.items() if name != root}
            schema = dict(own) if isinstance(own, dict) else schema
        if definitions:
            schema = {**schema, "$defs": definitions}
    return Shape(schema, decode, like)


def _reference_name(schema: Dict[str, Any]) -> str:
    return str(schema["$ref"]).rsplit("/", 1)[1]


def _refers(schema: Any, reference: str) -> bool:
    if isinstance(schema, dict):
        return schema.get("$ref") == reference or any(_refers(inner, reference) for inner in schema.values())
    return isinstance(schema, list) and any(_refers(inner, reference) for inner in schema)


def _kind_of(value: Any) -> str:
    if value is None:
        return "nothing (null)"
    return _KINDS.get(type(value), f"a {type(value).__name__}")


def _expected(what: str, value: Any) -> Mismatch:
    return Mismatch(f"expected {what}, got {_kind_of(value)}")


class _Builder:
    """Builds a schema and a decoder; dataclasses that occur become definitions, so that they may contain themselves."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.definitions: Dict[str, Schema] = {}
        self._built: Dict[type, Tuple[str, List[Decode]]] = {}

    def wrong(self, message: str) -> DeclarationError:
        return DeclarationError(f"{self.what}: {message}")

    def build(self, hint: Any) -> Tuple[Schema, Decode]:
        while hasattr(hint, "__supertype__"):  # NewType
            hint = hint.__supertype__
        if hint is Any or hint is object:
            return True, lambda value: value
        if hint is None or hint is type(None):
            return {"type": "null"}, _decode_none
        if hint in (bytearray, memoryview):
            raise self.wrong("write bytes: a payload has one kind of bytes")
        try:
            plain = _PLAIN.get(hint)
        except TypeError:  # Not hashable, so no type.
            plain = None
        if plain is not None:
            return plain, _PLAIN_DECODERS[hint]
        if isinstance(hint, type) and issubclass(hint, enum.Enum):
            return self._enum(hint)
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            return self._dataclass(hint)
        return self._generic(hint)

    def _generic(self, hint: Any) -> Tuple[Schema, Decode]:
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if hasattr(hint, "__metadata__"):  # Annotated
            return self.build(hint.__origin__)
        if origin in _UNIONS:
            return self._union(arguments)
        if origin is typing.Literal:
            return self._literal(arguments)
        if hint in (list, List) or origin in (list, collections.abc.Sequence):
            schema, decode = self.build(arguments[0] if arguments and hint is not List else Any)
            return {"type": "array", "items": schema}, _decode_list(decode, list)
        if origin is tuple:
            return self._tuple(arguments)
        if hint in (dict, Dict) or origin in (dict, collections.abc.Mapping):
            return self._dict(arguments if hint is not Dict else ())
        raise self.wrong(
            f"there is no JSON Schema for {hint!r}: use None, bool, int, float, str, bytes, list, tuple, dict with str keys, "
            "Optional, Union, Literal, Enum, Any, or a dataclass of these; or give a JSON Schema as a dict"
        )

    def _union(self, members: Tuple[Any, ...]) -> Tuple[Schema, Decode]:
        built = [self.build(member) for member in members]
        decoders = [decode for _, decode in built]
        return {"anyOf": [schema for schema, _ in built]}, _decode_union(decoders, none_is_one=type(None) in members)

    def _literal(self, values: Tuple[Any, ...]) -> Tuple[Schema, Decode]:
        for value in values:
            if not isinstance(value, (str, int, bool, type(None))):
                raise self.wrong(f"Literal[{value!r}]: use str, int, bool or None")
        return {"enum": list(values)}, _decode_one_of({(type(value), value): value for value in values})

    def _enum(self, cls: Any) -> Tuple[Schema, Decode]:
        for member in cls:
            if not isinstance(member.value, (str, int, bool, type(None))):
                raise self.wrong(f"{cls.__name__}.{member.name} is {member.value!r}: use str, int, bool or None")
        return (
            {"title": cls.__name__, "enum": [member.value for member in cls]},
            _decode_one_of({(_plain_type(member.value), member.value): member for member in cls}),
        )

    def _tuple(self, arguments: Tuple[Any, ...]) -> Tuple[Schema, Decode]:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            schema, decode = self.build(arguments[0])
            return {"type": "array", "items": schema}, _decode_list(decode, tuple)
        if arguments == ((),):  # Tuple[()] before Python 3.11
            arguments = ()
        built = [self.build(argument) for argument in arguments]
        count = len(built)
        schema = {"type": "array", "minItems": count, "maxItems": count}
        if built:
            schema["prefixItems"] = [inner for inner, _ in built]
        return schema, _decode_tuple([decode for _, decode in built])

    def _dict(self, arguments: Tuple[Any, ...]) -> Tuple[Schema, Decode]:
        key, value = arguments or (str, Any)
        if key is not str:
            raise self.wrong(f"the keys of a dict are str, not {key!r}: a JSON object has no others")
        schema, decode = self.build(value)
        return {"type": "object", "additionalProperties": schema}, _decode_dict(decode)

    def _dataclass(self, cls: type) -> Tuple[Schema, Decode]:
        name, decoders = self._built.get(cls, ("", []))
        if not name:
            name = cls.__name__
            while name in self.definitions:
                name += "_"
            self._built[cls] = (name, decoders)
            self.definitions[name] = True  # Taken, until it is known.
            schema, decode = self._fields(cls)
            self.definitions[name] = schema
            decoders.append(decode)
            return {"$ref": f"#/$defs/{name}"}, decode
        if decoders:
            return {"$ref": f"#/$defs/{name}"}, decoders[0]
        # It contains itself, and its decoder is not there yet.
        return {"$ref": f"#/$defs/{name}"}, lambda value: decoders[0](value)

    def _fields(self, cls: Any) -> Tuple[Schema, Decode]:
        try:
            hints = typing.get_type_hints(cls)
        except Exception as error:
            raise self.wrong(
                f"the type hints of {cls.__name__} cannot be resolved ({error}): define the types it names at the top level "
                "of the module"
            ) from error
        properties: Dict[str, Schema] = {}
        required: List[str] = []
        fields: List[Tuple[str, str, Decode, bool]] = []
        wire = dict(wire_names(cls))
        for field in dataclasses.fields(cls):
            if not field.init:
                continue
            schema, decode = self.build(hints[field.name])
            name = wire[field.name]
            has_default = not (field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING)
            if not has_default:
                required.append(name)
            elif isinstance(field.default, (str, int, float, bool, type(None))) and isinstance(schema, dict):
                schema = {**schema, "default": field.default}
            properties[name] = schema
            fields.append((name, field.name, decode, not has_default))
        schema = {"title": cls.__name__, "type": "object", "properties": properties}
        if required:
            schema["required"] = required
        if cls.__doc__ and not cls.__doc__.startswith(f"{cls.__name__}("):  # The docstring that dataclass itself makes.
            schema["description"] = inspect.cleandoc(cls.__doc__)
        return schema, _decode_dataclass(cls, fields)


def _plain_type(value: Any) -> type:
    """The type that a payload has for the value of an Enum, whose members may be of a type of their own."""
    for plain in (bool, int, str):
        if isinstance(value, plain):
            return plain
    return type(value)


def _decode_none(value: Any) -> Any:
    if value is not None:
        raise _expected("nothing (null)", value)


def _decode_exactly(kind: type) -> Decode:
    def decode(value: Any) -> Any:
        if type(value) is kind:
            return value
        raise _expected(_KINDS[kind], value)

    return decode


def _decode_float(value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is int:  # 4.0 may have come by way of JSON as 4.
        return float(value)
    raise _expected("a number", value)


def _decode_bytes(value: Any) -> bytes:
    if type(value) is bytes:
        return value
    if type(value) is list:  # Bytes that came by way of JSON.
        try:
            return bytes(value)
        except (TypeError, ValueError):
            raise Mismatch("expected bytes, got a list that has more than numbers from 0 to 255") from None
    raise _expected("bytes", value)


_PLAIN_DECODERS: Dict[Any, Decode] = {
    bool: _decode_exactly(bool),
    int: _decode_exactly(int),
    str: _decode_exactly(str),
    float: _decode_float,
    bytes: _decode_bytes,
}


def _decode_list(decode_item: Decode, kind: Callable[[List[Any]], Any]) -> Decode:
    def decode(value: Any) -> Any:
        if type(value) is not list:
            raise _expected("a list", value)
        items = []
        try:
            for item in value:
                items.append(decode_item(item))
        except Mismatch as mismatch:
            raise mismatch.within(f"[{len(items)}]") from None
        return items if kind is list else kind(items)

    return decode


def _decode_tuple(decoders: List[Decode]) -> Decode:
    def decode(value: Any) -> Any:
        if type(value) is not list:
            raise _expected("a list", value)
        if len(value) != len(decoders):
            raise Mismatch(f"expected a list of {len(decoders)}, got {len(value)}")
        items: List[Any] = []
        try:
            for decode_item, item in zip(decoders, value):
                items.append(decode_item(item))
        except Mismatch as mismatch:
            raise mismatch.within(f"[{len(items)}]") from None
        return tuple(items)

    return decode


def _decode_dict(decode_item: Decode) -> Decode:
    def decode(value: Any) -> Any:
        if type(value) is not dict:
            raise _expected("a map", value)
        items = {}
        for key, item in value.items():
            if type(key) is not str:
                raise Mismatch(f"expected texts as the keys of the map, got {_kind_of(key)}")
            try:
                items[key] = decode_item(item)
            except Mismatch as mismatch:
                raise mismatch.within(f"[{key!r}]") from None
        return items

    return decode


def _decode_one_of(values: Dict[Any, Any]) -> Decode:
    known = ", ".join(repr(value) for _, value in values)

    def decode(value: Any) -> Any:
        try:
            return values[type(value), value]
        except (KeyError, TypeError):  # TypeError: a list or map, which is no key.
            shown = repr(value) if isinstance(value, (str, int)) else _kind_of(value)
            raise Mismatch(f"expected one of {known}, got {shown[:100]}") from None

    return decode


def _decode_union(decoders: List[Decode], none_is_one: bool) -> Decode:
    others = [decode for decode in decoders if decode is not _decode_none]

    def decode(value: Any) -> Any:
        if none_is_one and value is None:
            return None
        mismatches = []
        for decode_member in others:
            try:
                return decode_member(value)
            except Mismatch as mismatch:
                mismatches.append(mismatch)
        if len(mismatches) == 1:
            raise mismatches[0]
        raise Mismatch("fits none of the types: " + "; ".join(str(mismatch) for mismatch in mismatches))

    return decode


def _decode_dataclass(cls: Any, fields: List[Tuple[str, str, Decode, bool]]) -> Decode:
    nothing_required = not any(required for _, _, _, required in fields)

    def decode(value: Any) -> Any:
        if type(value) is not dict:
            if value is None and nothing_required:  # The payload of an event without fields may be absent.
                value = {}
            else:
                raise _expected(f"a map with the fields of {cls.__name__}", value)
        found = {}
        wire = ""
        try:
            for wire, name, decode_field, required in fields:
                if wire in value:
                    found[name] = decode_field(value[wire])
                elif required:
                    raise Mismatch("is missing")
        except Mismatch as mismatch:
            raise mismatch.within(f".{wire}") from None
        try:
            return cls(**found)
        except (TypeError, ValueError) as error:  # What the dataclass itself checks in `__post_init__`.
            raise Mismatch(f"{cls.__name__} refuses it: {error}") from error

    return decode
