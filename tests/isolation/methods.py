"""Every rpc that users of a server can call, found in the descriptors."""

from functools import cache

from catalogue.door import SERVICES
from google.protobuf.descriptor import MethodDescriptor

# Served to the server by others, not by it.
_NOT_OURS = {"ToolHostService"}


@cache
def user_methods() -> tuple[MethodDescriptor, ...]:
    """Return them in the contract's order."""
    return tuple(method for service in SERVICES if service.name not in _NOT_OURS for method in service.methods)


def name_of(method: MethodDescriptor) -> str:
    """Return what a method is called here: `AgentService.GetRun`."""
    return f"{method.containing_service.name}.{method.name}"
