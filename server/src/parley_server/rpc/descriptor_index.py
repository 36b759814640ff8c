"""The protos of a set of services, to be looked up the way the reflection protocol asks for them."""

from collections.abc import Iterable, Iterator, Mapping

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor


class DescriptorIndex:
    """Files, by what is in them. A file's dependencies are in the index with it."""

    def __init__(self, files: Iterable[FileDescriptor]) -> None:
        self._files: dict[str, FileDescriptor] = {}
        for file in files:
            self._add(file)
        self._symbols = {symbol: file for file in self._files.values() for symbol in _symbols(file)}
        self._extensions: dict[str, dict[int, FileDescriptor]] = {}
        for file in self._files.values():
            for extension in _extensions(file):
                if extension.containing_type is not None:  # which every extension has
                    self._extensions.setdefault(extension.containing_type.full_name, {})[extension.number] = file

    def file(self, name: str) -> FileDescriptor | None:
        """Return the file of that name."""
        return self._files.get(name)

    def file_with_symbol(self, name: str) -> FileDescriptor | None:
        """Return the file that declares a message, enum, enum value, field, oneof, extension, service or method."""
        return self._symbols.get(name)

    def extensions_of(self, message: str) -> Mapping[int, FileDescriptor] | None:
        """Return the files that extend a message, by the extension's number; None when there is no such message."""
        declared = self._symbols.get(message)
        if declared is None or not _is_message(declared, message):
            return None
        return self._extensions.get(message, {})

    def _add(self, file: FileDescriptor) -> None:
        if file.name not in self._files:
            self._files[file.name] = file
            for dependency in file.dependencies:
                self._add(dependency)


def with_dependencies(file: FileDescriptor, known: set[str]) -> list[bytes]:
    """Return a file and all it imports, serialized; the others only when not `known`, and they are noted there."""
    chosen = {file.name: file}
    _collect(file, chosen, known)
    known.update(chosen)
    return [each.serialized_pb for each in chosen.values()]


def _collect(file: FileDescriptor, chosen: dict[str, FileDescriptor], known: set[str]) -> None:
    for dependency in file.dependencies:
        if dependency.name not in chosen and dependency.name not in known:
            chosen[dependency.name] = dependency
            _collect(dependency, chosen, known)


def _symbols(file: FileDescriptor) -> Iterator[str]:
    for message in _messages(file.message_types_by_name.values()):
        yield message.full_name
        yield from (field.full_name for field in message.fields)
        yield from (oneof.full_name for oneof in message.oneofs)
        yield from _enum_symbols(message.enum_types)
    yield from _enum_symbols(file.enum_types_by_name.values())
    yield from (extension.full_name for extension in _extensions(file))
    for service in file.services_by_name.values():
        yield service.full_name
        yield from (method.full_name for method in service.methods)


def _enum_symbols(enums: Iterable[EnumDescriptor]) -> Iterator[str]:
    for enum in enums:
        yield enum.full_name
        # An enum's values live beside it, not in it.
        scope = enum.full_name.removesuffix(enum.name)
        yield from (scope + value.name for value in enum.values)


def _extensions(file: FileDescriptor) -> Iterator[FieldDescriptor]:
    yield from file.extensions_by_name.values()
    for message in _messages(file.message_types_by_name.values()):
        yield from message.extensions


def _messages(messages: Iterable[Descriptor]) -> Iterator[Descriptor]:
    """Yield messages and those declared in them."""
    for message in messages:
        yield message
        yield from _messages(message.nested_types)


def _is_message(file: FileDescriptor, name: str) -> bool:
    return any(message.full_name == name for message in _messages(file.message_types_by_name.values()))
