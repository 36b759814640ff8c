"""The rules that the protos state for every field, checked before any servicer sees a message."""

import json
from collections.abc import Iterable, Iterator

import protovalidate
from buf.validate import validate_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from parley_server.domain.errors import InvalidRequestError, Violation

# No list in a smaller message is long enough to hold anybody up.
_SMALL_BYTES = 1024
_MAX_KEY_CHARACTERS = 64


def validate(message: Message) -> None:
    """Check a message.

    Raises:
        InvalidRequestError: it names every field which breaks a rule; lists that are too long it names alone.
    """
    if message.ByteSize() > _SMALL_BYTES and (overlong := list(_overlong_lists(message))):
        raise InvalidRequestError.of_all(overlong)
    if found := protovalidate.collect_violations(message):
        raise InvalidRequestError.of_all([_violation(each) for each in found])


def warm(message_types: Iterable[type[Message]]) -> None:
    """Compile the rules of these types, which the first check of each would otherwise do, for some 20 ms."""
    for message_type in message_types:
        protovalidate.collect_violations(message_type())


def _overlong_lists(message: Message, path: str = "") -> Iterator[Violation]:
    """Find lists and maps over their maximum.

    The rules are checked in every item of those too, and two million empty texts would hold up the server for two
    minutes.
    """
    for field, value in message.ListFields():
        place = path + field.name
        if isinstance(value, Message):
            yield from _overlong_lists(value, f"{place}.")
        elif 0 < (maximum := _max_items(field)) < len(value):
            yield Violation(place, f"must contain no more than {maximum} items")


def _max_items(field: FieldDescriptor) -> int:
    """Return how many items a list or map may have; 0 for what is neither, or has no maximum."""
    rules = field.GetOptions().Extensions[validate_pb2.field]
    return rules.repeated.max_items or rules.map.max_pairs


def _violation(found: protovalidate.Violation) -> Violation:
    elements = found.proto.field.elements if found.proto.field else ()
    path = ".".join(element.field_name + _subscript(element) for element in elements)
    return Violation(path, found.proto.message)


def _subscript(element: protovalidate.FieldPathElementPb) -> str:
    """Return the place in a list or map, `[0]` or `["key"]`; nothing for a key that is none of the contract's."""
    if element.subscript is None or len(str(element.subscript.value)) > _MAX_KEY_CHARACTERS:
        return ""
    return f"[{json.dumps(element.subscript.value)}]"
