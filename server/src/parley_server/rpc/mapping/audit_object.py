"""What a call is done to, for the audit log: read off the ids of its request or of what it made, by their names."""

from collections.abc import Callable, Iterable
from typing import Protocol

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_ENDING = "_id"
# Of the call, and not of an object.
_NO_OBJECT = frozenset({"request_id"})

AuditObject = tuple[str, str]
NOTHING: AuditObject = ("", "")


class _Field(Protocol):
    """What either kind of descriptor tells of a field."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> int: ...
    @property
    def is_repeated(self) -> bool: ...


def object_reader(request_type: type[Message]) -> Callable[[Message | None], AuditObject]:
    """Return what reads the object of a method's requests: `("run/call", "run_1/call_1")`; NOTHING where none is named.

    Requests are read after they were held to their rules, which state how an id is written.
    """
    names = _ids(request_type.DESCRIPTOR.fields)

    def read(request: Message | None) -> AuditObject:
        named = {name: str(value) for name in names if request is not None and (value := getattr(request, name))}
        return "/".join(name.removesuffix(_ENDING) for name in named), "/".join(named.values())

    return read


def made_object_reader(request_type: type[Message], response_type: type[Message]) -> Callable[[object], AuditObject]:
    """Return what reads the object that a method has made: one that its response holds and no request of it names."""
    known = _ids(request_type.DESCRIPTOR.fields)
    for field in response_type.DESCRIPTOR.fields:
        if field.message_type is None or field.is_repeated:
            continue
        own = field.message_type.fields[:1]
        if (names := _ids(own)) and names[0] not in known:
            return _reader_of(field.name, names[0])
    return lambda _: NOTHING


def _reader_of(field: str, name: str) -> Callable[[object], AuditObject]:
    def read(response: object) -> AuditObject:
        if not isinstance(response, Message):
            return NOTHING
        return name.removesuffix(_ENDING), str(getattr(getattr(response, field), name))

    return read


def _ids(fields: Iterable[_Field]) -> list[str]:
    return [field.name for field in fields if _is_id(field)]


def _is_id(field: _Field) -> bool:
    is_word = field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated
    return is_word and field.name.endswith(_ENDING) and field.name not in _NO_OBJECT
