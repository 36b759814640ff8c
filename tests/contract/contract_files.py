"""Everything the contract declares: its files, messages, enums, services and texts."""

import importlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from buf.validate import validate_pb2
from contract.proto_source import declarations
from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    FieldDescriptor,
    FileDescriptor,
    MethodDescriptor,
    ServiceDescriptor,
)

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "protos"
SOURCES = sorted((PROTOS / "parley" / "v1").glob("*.proto"))
THIRD_PARTY = PROTOS / "third_party"


def _file(source: Path) -> FileDescriptor:
    module = importlib.import_module(f"parley.v1.{source.stem}_pb2")
    descriptor = module.DESCRIPTOR
    assert isinstance(descriptor, FileDescriptor)
    return descriptor


FILES = [_file(source) for source in SOURCES]


def _all_messages(roots: Iterable[Descriptor]) -> Iterator[Descriptor]:
    for message in roots:
        if not message.GetOptions().map_entry:
            yield message
            yield from _all_messages(message.nested_types)


MESSAGES = [message for file in FILES for message in _all_messages(file.message_types_by_name.values())]
ENUMS = [enum for file in FILES for enum in file.enum_types_by_name.values()]
ENUMS += [enum for message in MESSAGES for enum in message.enum_types]
FIELDS = [field for message in MESSAGES for field in message.fields]
SERVICES = [service for file in FILES for service in file.services_by_name.values()]
METHODS = [method for service in SERVICES for method in service.methods]
DECLARATIONS = [declaration for source in SOURCES for declaration in declarations(source)]


def _reachable(roots: Iterable[Descriptor]) -> list[Descriptor]:
    """The messages of ours that a set of messages can hold, themselves included."""
    found: dict[str, Descriptor] = {}
    waiting = list(roots)
    while waiting:
        message = waiting.pop()
        if message.full_name.startswith("parley.v1.") and message.full_name not in found:
            found[message.full_name] = message
            waiting += [field.message_type for field in message.fields if field.message_type is not None]
    return list(found.values())


REQUEST_FIELDS = [field for message in _reachable(method.input_type for method in METHODS) for field in message.fields]


def type_name(item: Descriptor | EnumDescriptor | FieldDescriptor | MethodDescriptor | ServiceDescriptor) -> str:
    return str(item.full_name)


def rules(field: FieldDescriptor) -> validate_pb2.FieldRules:
    return field.GetOptions().Extensions[validate_pb2.field]


def map_entry(field: FieldDescriptor) -> Descriptor | None:
    """The hidden message of a map's pairs, or None when the field is no map."""
    message = field.message_type
    return message if message is not None and message.GetOptions().map_entry else None


def snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
