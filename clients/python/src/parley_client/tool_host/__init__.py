"""Serve tools of your own to a Parley server: one typed async function each.

Needs `pip install "parley-client[tool-host]"`.
"""

from parley_client.tool_host.call import ToolContext, ToolError
from parley_client.tool_host.definition import Arguments, Effect, ToolDefinitionError
from parley_client.tool_host.delegation import Delegation, DelegationError, DelegationKeys
from parley_client.tool_host.host import ToolHost

__all__ = [
    "Arguments",
    "Delegation",
    "DelegationError",
    "DelegationKeys",
    "Effect",
    "ToolContext",
    "ToolDefinitionError",
    "ToolError",
    "ToolHost",
]
