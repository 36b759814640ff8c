"""How each rpc is called, and what may come of it: a case for every one there is, or a test fails by its name."""

from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.message import Message
from grpc import StatusCode as Code
from isolation.asker import Asker
from parley.v1 import account_service_pb2 as accounts
from parley.v1 import admin_service_pb2 as admin
from parley.v1 import agent_service_pb2 as agents
from parley.v1 import api_key_service_pb2 as keys
from parley.v1 import approval_pb2, run_pb2, tool_pb2
from parley.v1 import approval_service_pb2 as approvals
from parley.v1 import conversation_service_pb2 as conversations
from parley.v1 import delegation_service_pb2 as delegation
from parley.v1 import tool_service_pb2 as tools
from parley.v1 import usage_service_pb2 as usage
from parley_server.domain.principal import ALL_SCOPES, USER_SCOPES


@dataclass(frozen=True, slots=True)
class Case:
    """A request out of anything anybody has, and how often it is made beside the others.

    `answers` are the statuses that may come besides OK where all that the request names is the speaker's own.
    `is_everybodys` says that what it lists is the same for all, and so are its page tokens. `tells_ids` says that it
    is told, by right, which things others have, though never what is in them.
    """

    build: Callable[[Asker], Message]
    answers: frozenset[Code] = frozenset()
    weight: int = 1
    is_everybodys: bool = False
    tells_ids: bool = False


def _case(build: Callable[[Asker], Message], *answers: Code, weight: int = 1) -> Case:
    return Case(build, frozenset(answers), weight)


def _of_everybody(build: Callable[[Asker], Message], *, tells_ids: bool = False) -> Case:
    return Case(build, is_everybodys=True, tells_ids=tells_ids)


def _start(a: Asker) -> Message:
    return agents.StartRunRequest(run=a.spec(a.maybe("conversation_id", 0.7)), request_id=a.request_id())


def _run(a: Asker) -> Message:
    spec = a.spec(a.maybe("conversation_id", 0.7))
    spec.disconnect_policy = a.random.choice(run_pb2.DisconnectPolicy.values())
    return agents.RunAgentRequest(run=spec, request_id=a.request_id())


def _list_runs(a: Asker) -> Message:
    request = agents.ListRunsRequest(conversation_id=a.maybe("conversation_id", 0.3))
    if a.random.random() < 0.2:
        request.states.append(a.random.choice(run_pb2.RunState.values()[1:]))
    return a.page(request)


def _steer(a: Asker) -> Message:
    return agents.SteerRunRequest(run_id=a.thing("run_id"), input=[a.prompt()], request_id=a.request_id())


def _create(a: Asker) -> Message:
    # Without words of its own two users' requests are the same one.
    title = a.words() if a.random.random() < 0.7 else ""
    request = conversations.CreateConversationRequest(title=title, request_id=a.request_id())
    if title:
        request.metadata["of"] = a.words()
    return request


def _update(a: Asker) -> Message:
    request = conversations.UpdateConversationRequest()
    request.conversation.conversation_id = a.thing("conversation_id")
    request.conversation.etag = a.etag()
    request.conversation.title = a.words()
    request.conversation.metadata["of"] = a.words()
    request.update_mask.paths.extend(a.random.choice([["title"], ["metadata"], ["title", "metadata"]]))
    return request


def _fork(a: Asker) -> Message:
    conversation_id = a.thing("conversation_id")
    message_id = a.maybe("message_id")
    if message_id and a.random.random() < 0.7:
        conversation_id = a.belonging(message_id, "conversation_id")
    title = a.words() if a.random.random() < 0.5 else ""
    return conversations.ForkConversationRequest(
        conversation_id=conversation_id, message_id=message_id, title=title, request_id=a.request_id()
    )


def _decide(a: Asker) -> Message:
    remember = approval_pb2.APPROVAL_REMEMBER_CONVERSATION if a.random.random() < 0.2 else 0
    return approvals.DecideApprovalRequest(
        approval_id=a.thing("approval_id"),
        decision=a.random.choice([1, 2]),  # type: ignore[arg-type]  # APPROVE and DENY by their numbers
        reason=a.words(),
        remember=remember,  # type: ignore[arg-type]  # as above
    )


def _resolve(a: Asker) -> Message:
    call_id = a.thing("call_id")
    return tools.ResolveToolCallRequest(
        run_id=a.belonging(call_id, "run_id"),
        call_id=call_id,
        outcome=a.random.choice(tool_pb2.ToolCallOutcome.values()[1:]),
        note=a.words(),
    )


def _list_calls(a: Asker) -> Message:
    return a.page(
        tools.ListToolCallsRequest(
            conversation_id=a.maybe("conversation_id", 0.2),
            run_id=a.maybe("run_id", 0.2),
            unresolved=a.random.random() < 0.1,
        )
    )


def _list_approvals(a: Asker) -> Message:
    return a.page(
        approvals.ListApprovalsRequest(conversation_id=a.maybe("conversation_id", 0.2), run_id=a.maybe("run_id", 0.2))
    )


def _create_key(a: Asker) -> Message:
    return keys.CreateApiKeyRequest(user_id=f"spare{a.random.getrandbits(32):08x}", request_id=a.request_id())


def _delete(a: Asker) -> Message:
    return conversations.DeleteConversationRequest(
        conversation_id=a.thing("conversation_id"), allow_missing=a.random.random() < 0.3
    )


def _update_account(a: Asker) -> Message:
    request = accounts.UpdateAccountRequest()
    request.account.display_name = a.words()
    request.account.time_zone = a.random.choice(["", "Europe/Berlin", "Asia/Tokyo"])
    request.account.etag = a.etag()
    request.update_mask.paths.extend(["display_name", "time_zone"])
    return request


def _erase(a: Asker) -> Message:
    # Never one who plays: erasing him has tests of its own.
    is_admin = a.speaker.role == "admin"
    user_id = f"spare{a.random.getrandbits(32):08x}" if is_admin else a.random.choice(a.speaker.strangers)
    return accounts.EraseAccountRequest(user_id=user_id, confirmation=user_id)


def _issue_token(a: Asker) -> Message:
    user_id = a.random.choice(["", a.speaker.owner, *a.speaker.serves, *a.speaker.serves, *a.speaker.strangers])
    offered = sorted(ALL_SCOPES if a.random.random() < 0.4 else a.speaker.scopes & USER_SCOPES)
    request = delegation.IssueDelegationTokenRequest(
        user_id=user_id,
        scopes=a.random.sample(offered, a.random.randint(0, len(offered))),
        audience=a.random.choice(["", "", "", "parley", "elsewhere", "host:desk"]),
    )
    if seconds := a.random.choice([0, 1, 1, 2, 300]):
        request.lifetime.seconds = seconds
    return request


def _usage(a: Asker) -> Message:
    request = usage.GetUsageRequest(group_by=[usage.USAGE_GROUPING_PRINCIPAL, usage.USAGE_GROUPING_KEY])
    match a.random.randrange(3):
        case 0:
            request.user_id = a.random.choice([a.speaker.owner, *a.speaker.strangers])
        case 1 if a.speaker.role == "admin":
            request.all_users = True
    return a.page(request)


def _set_budget(a: Asker) -> Message:
    request = usage.SetBudgetRequest()
    request.budget.user_id = f"spare{a.random.getrandbits(32):08x}"
    request.budget.limits.requests_per_minute = 1000
    return request


def names_stranger(request: Message, strangers: tuple[str, ...]) -> bool:
    """Tell whether a request is to do something for a user whom its caller may not speak for."""
    if isinstance(
        request, accounts.EraseAccountRequest | delegation.IssueDelegationTokenRequest | usage.GetUsageRequest
    ):
        return request.user_id in strangers
    return False


def asks_for_all(request: Message) -> bool:
    """Tell whether a request is for what is of all users together: an administrator's."""
    return bool(getattr(request, "all", False) or getattr(request, "all_users", False))


_BUSY = (Code.FAILED_PRECONDITION, Code.RESOURCE_EXHAUSTED, Code.ALREADY_EXISTS)

CASES: dict[str, Case] = {
    "AccountService.GetAccount": _case(lambda _: accounts.GetAccountRequest()),
    "AccountService.UpdateAccount": _case(_update_account, Code.ABORTED),
    "AccountService.ExportAccount": _case(lambda _: accounts.ExportAccountRequest()),
    "AccountService.EraseAccount": _case(_erase),
    "AdminService.ListAuditEvents": _of_everybody(lambda a: a.page(admin.ListAuditEventsRequest()), tells_ids=True),
    "DelegationService.IssueDelegationToken": _case(_issue_token, weight=3),
    # Its keys are the server's own: nobody can revoke one.
    "DelegationService.ListDelegationKeys": _of_everybody(
        lambda a: a.page(delegation.ListDelegationKeysRequest()), tells_ids=True
    ),
    "AdminService.GetServerInfo": _case(lambda _: admin.GetServerInfoRequest()),
    "AgentService.ListAgents": _of_everybody(lambda a: a.page(agents.ListAgentsRequest())),
    "AgentService.GetAgent": _case(lambda _: agents.GetAgentRequest(agent_id="assistant")),
    "AgentService.StartRun": _case(_start, *_BUSY, weight=4),
    "AgentService.RunAgent": _case(_run, *_BUSY, weight=4),
    "AgentService.WatchRun": _case(
        lambda a: agents.WatchRunRequest(run_id=a.thing("run_id"), after_seq=a.number(12)), Code.OUT_OF_RANGE, weight=3
    ),
    "AgentService.GetRun": _case(lambda a: agents.GetRunRequest(run_id=a.thing("run_id")), weight=2),
    "AgentService.ListRuns": _case(_list_runs, weight=2),
    "AgentService.CancelRun": _case(lambda a: agents.CancelRunRequest(run_id=a.thing("run_id"), reason=a.words())),
    "AgentService.SteerRun": _case(_steer, *_BUSY, weight=2),
    "ApiKeyService.CreateApiKey": _case(_create_key, Code.ALREADY_EXISTS),
    "ApiKeyService.ListApiKeys": _of_everybody(lambda a: a.page(keys.ListApiKeysRequest())),
    "ApiKeyService.RotateApiKey": _case(
        lambda a: keys.RotateApiKeyRequest(key_id=a.thing("key_id"), request_id=a.request_id()),
        Code.NOT_FOUND,  # one that is revoked
        Code.FAILED_PRECONDITION,
        Code.ALREADY_EXISTS,
    ),
    "ApiKeyService.RevokeApiKey": _case(lambda a: keys.RevokeApiKeyRequest(key_id=a.thing("key_id"))),
    "ApprovalService.ListApprovals": _case(_list_approvals, weight=2),
    "ApprovalService.GetApproval": _case(
        lambda a: approvals.GetApprovalRequest(approval_id=a.thing("approval_id")), weight=2
    ),
    "ApprovalService.DecideApproval": _case(_decide, Code.FAILED_PRECONDITION, Code.INVALID_ARGUMENT, weight=2),
    "ConversationService.CreateConversation": _case(_create, Code.ALREADY_EXISTS),
    "ConversationService.GetConversation": _case(
        lambda a: conversations.GetConversationRequest(conversation_id=a.thing("conversation_id")), weight=2
    ),
    "ConversationService.ListConversations": _case(
        lambda a: a.page(conversations.ListConversationsRequest(query=a.query())), weight=3
    ),
    "ConversationService.UpdateConversation": _case(_update, Code.ABORTED),
    "ConversationService.DeleteConversation": _case(_delete, Code.FAILED_PRECONDITION, weight=2),
    "ConversationService.ListMessages": _case(
        lambda a: a.page(conversations.ListMessagesRequest(conversation_id=a.thing("conversation_id"))), weight=2
    ),
    "ConversationService.ForkConversation": _case(_fork, Code.ALREADY_EXISTS),
    "ConversationService.ExportConversation": _case(
        lambda a: conversations.ExportConversationRequest(conversation_id=a.thing("conversation_id"))
    ),
    "UsageService.GetUsage": _case(_usage),
    "UsageService.ListBudgets": _case(lambda a: a.page(usage.ListBudgetsRequest(all=a.speaker.role == "admin"))),
    "UsageService.SetBudget": _case(_set_budget, Code.ABORTED),
    "ToolService.ListTools": _of_everybody(lambda a: a.page(tools.ListToolsRequest())),
    "ToolService.ListToolCalls": _case(_list_calls, weight=2),
    "ToolService.ResolveToolCall": _case(_resolve, Code.FAILED_PRECONDITION, Code.ALREADY_EXISTS, weight=2),
    "ToolService.GetToolResult": _case(
        lambda a: tools.GetToolResultRequest(result_id=a.thing("result_id"), offset=a.number(200), max_bytes=4096),
        weight=2,
    ),
}
