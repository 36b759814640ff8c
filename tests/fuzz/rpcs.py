"""Every rpc that the contract declares, and health and reflection beside them."""

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass

import parley.v1
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FileDescriptor
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]  # its stubs lack List
from grpc_reflection.v1alpha import reflection_pb2


@dataclass(frozen=True, slots=True)
class Rpc:
    """An rpc by its full name, what it is asked with, and whether it answers with a stream."""

    name: str
    request: Descriptor
    is_streaming: bool


def declared_rpcs() -> list[Rpc]:
    """Return all of them, in a fixed order."""
    return [rpc for file in _files() for rpc in _rpcs_of(file)]


def _files() -> Iterator[FileDescriptor]:
    names = sorted(module.name for module in pkgutil.iter_modules(parley.v1.__path__))
    for name in names:
        if name.endswith("_service_pb2"):
            yield importlib.import_module(f"parley.v1.{name}").DESCRIPTOR
    for module in (health_pb2, reflection_pb2):
        yield descriptor_pool.Default().FindFileByName(module.DESCRIPTOR.name)


def _rpcs_of(file: FileDescriptor) -> Iterator[Rpc]:
    for service in file.services_by_name.values():
        for method in service.methods:
            yield Rpc(f"/{service.full_name}/{method.name}", method.input_type, method.server_streaming)
