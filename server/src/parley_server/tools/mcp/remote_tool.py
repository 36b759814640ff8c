"""A tool of an MCP server, as agents have it: called in the name of the user, by a client that is the user's alone."""

import hashlib
import hmac
import secrets as randomness
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from mcp_types import CallToolResult

from parley_server.domain.per_user import UserKey
from parley_server.domain.tool import ApprovalRule, ToolSpec
from parley_server.tools.errors import ToolError
from parley_server.tools.mcp.client import McpClient
from parley_server.tools.mcp.clients import Clients, Secrets
from parley_server.tools.mcp.content import error_of, result_of
from parley_server.tools.mcp.exchange import RemoteCall
from parley_server.tools.mcp.listed_tool import ListedTool
from parley_server.tools.mcp.mcp_settings import McpServerSettings
from parley_server.tools.mcp.questions import Questions
from parley_server.tools.mcp.resumption import Resumption
from parley_server.tools.tool import JsonObject, ToolContext

# So that what is kept of a secret in memory says nothing to whoever does not have the secret.
_KEY = randomness.token_bytes(32)


@dataclass(frozen=True, slots=True)
class McpTool:
    """One accepted tool. What the user's client sees in its place must be the same; else `on_difference` is called."""

    spec: ToolSpec
    listed: ListedTool
    settings: McpServerSettings
    clients: Clients
    on_difference: Callable[[], None]

    async def call(self, context: ToolContext, arguments: JsonObject) -> object:
        """Call the tool; see `Tool.call`."""
        given = {slot: (await context.credential(slot)).get_secret_value() for slot in self.settings.slots}
        questions = Questions(
            is_approved=self.settings.accept_confirmations and self._was_approved,
            confirmed=[each.question for each in context.confirmed],
        )
        call = RemoteCall(
            name=self.listed.name,
            arguments=arguments,
            effect=self.spec.effect,
            idempotency_key=context.idempotency_key,
            report=context.progress,
            questions=questions,
            resumed=Resumption.model_validate_json(context.confirmed[-1].state) if context.confirmed else None,
        )
        async with self._client(context, given) as client:
            self._check((await client.current_tools()).get(self.listed.name))
            result = await client.call(call)
        return _told(result, questions)

    @property
    def _was_approved(self) -> bool:
        """Tell whether the user has approved a call that has come here."""
        return self.spec.approval is ApprovalRule.ALWAYS

    def _client(self, context: ToolContext, given: Secrets) -> AbstractAsyncContextManager[McpClient]:
        if self.settings.shared:
            return self.clients.use_shared()
        digest = hmac.new(_KEY, repr(sorted(given.items())).encode(), hashlib.sha256)
        return self.clients.use(UserKey(context.request), digest.hexdigest(), given)

    def _check(self, seen: ListedTool | None) -> None:
        """Refuse a tool that is not, for this user, what was accepted."""
        if seen == self.listed:
            return
        self.on_difference()
        if seen is None:
            raise ToolError("unknown_tool", "The tool's server does not offer this tool to the user.")
        if self.settings.pinned:
            hint = "The operator has to look at the change before the tool can be used again."
            raise ToolError("tool_changed", "The tool is not what it was when it was accepted.", hint=hint)


def _told(result: CallToolResult, questions: Questions) -> object:
    """Return what the tool answered; raises ToolError for what it told as an error."""
    if not result.is_error:
        return result_of(result) | questions.told()
    error = error_of(result)
    if not questions.declined:
        raise error
    message = f"The tool gave up when it could not ask the user ({questions.declined[0]}): {error.message}"
    hint = "Ask the user yourself; nobody can be asked while a tool is at work. It may take the answer as an argument."
    raise ToolError("input_required", message, hint=hint)
