"""The rules that the protos state for every field, checked before any servicer sees a message."""

import json
from collections.abc import Iterable

import protovalidate
from google.protobuf.message import Message

from parley_server.domain.errors import InvalidRequestError, Violation


def validate(message: Message) -> None:
    """Check a message. Raises InvalidRequestError that names every field which breaks a rule."""
    if found := protovalidate.collect_violations(message):
        raise InvalidRequestError.of_all([_violation(each) for each in found])


def warm(message_types: Iterable[type[Message]]) -> None:
    """Compile the rules of these types, which the first check of each would otherwise do, for some 20 ms."""
    for message_type in message_types:
        protovalidate.collect_violations(message_type())


def _violation(found: protovalidate.Violation) -> Violation:
    elements = found.proto.field.elements if found.proto.field else ()
    path = ".".join(element.field_name + _subscript(element) for element in elements)
    return Violation(path, found.proto.message)


def _subscript(element: protovalidate.FieldPathElementPb) -> str:
    """Return the place in a list or map, `[0]` or `["key"]`."""
    return f"[{json.dumps(element.subscript.value)}]" if element.subscript else ""
