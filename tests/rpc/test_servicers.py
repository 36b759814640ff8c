"""The servicers over the real engine and a real store, by the generated stubs."""

import inspect
import typing
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from model_server import ModelServer
from parley.v1 import (
    account_service_pb2,
    admin_service_pb2,
    admin_service_pb2_grpc,
    agent_service_pb2,
    agent_service_pb2_grpc,
    api_key_service_pb2,
    api_key_service_pb2_grpc,
    approval_service_pb2,
    content_pb2,
    conversation_service_pb2,
    conversation_service_pb2_grpc,
    delegation_service_pb2,
    run_pb2,
)
from parley_server.accounts.cache import AccountCache
from parley_server.accounts.eraser import AccountEraser
from parley_server.agents.assistant import build_assistant
from parley_server.agents.registry import AgentRegistry
from parley_server.auth.delegation_signer import DelegationSigner
from parley_server.auth.delegations import Delegations
from parley_server.auth.factory import ProviderParts, build_auth_chain
from parley_server.auth.key_administration import KeyAdministration
from parley_server.domain.principal import ALL_SCOPES, USER_SCOPES
from parley_server.llm.model_catalog import ModelCatalog
from parley_server.llm.openai_service import OpenAIService
from parley_server.rpc.drain import Drain
from parley_server.rpc.listener import ServerSettings
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.rpc.server import RpcServer
from parley_server.rpc.service import Service, rpcs_of, snake_case
from parley_server.rpc.servicers.account_service import AccountServicer
from parley_server.rpc.servicers.admin_service import AdminServicer
from parley_server.rpc.servicers.agent_service import AgentServicer
from parley_server.rpc.servicers.api_key_service import ApiKeyServicer
from parley_server.rpc.servicers.approval_service import ApprovalServicer
from parley_server.rpc.servicers.conversation_service import ConversationServicer
from parley_server.rpc.servicers.delegation_service import DelegationServicer
from parley_server.runs.engine import RunEngine
from parley_server.storage.sql.sqlite import SqliteDatabase
from parley_server.storage.sql.store import open_store
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.registry import ToolRegistry
from rpc.chassis import HASH_KEY, bearer, failed

DESCRIPTORS: dict[str, ServiceDescriptor] = {
    name: module.DESCRIPTOR.services_by_name[name]
    for name, module in {
        "AccountService": account_service_pb2,
        "AgentService": agent_service_pb2,
        "ConversationService": conversation_service_pb2,
        "ApiKeyService": api_key_service_pb2,
        "ApprovalService": approval_service_pb2,
        "DelegationService": delegation_service_pb2,
        "AdminService": admin_service_pb2,
    }.items()
}
SERVICERS: dict[str, type] = {
    "AccountService": AccountServicer,
    "AgentService": AgentServicer,
    "ConversationService": ConversationServicer,
    "ApiKeyService": ApiKeyServicer,
    "ApprovalService": ApprovalServicer,
    "DelegationService": DelegationServicer,
    "AdminService": AdminServicer,
}
METHODS = [method for descriptor in DESCRIPTORS.values() for method in descriptor.methods]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_rpc_is_served_by_a_method_of_its_own_types(method: MethodDescriptor) -> None:
    servicer = SERVICERS[method.containing_service.name]
    behaviour = servicer.__dict__[snake_case(method.name)]
    assert inspect.iscoroutinefunction(behaviour)
    hints = typing.get_type_hints(behaviour)
    answer = hints.pop("return")
    assert list(hints.values())[1] is GetMessageClass(method.input_type)
    if method.server_streaming:
        assert answer.__args__[0] in (bytes, GetMessageClass(method.output_type))
    else:
        assert answer is GetMessageClass(method.output_type)


def test_the_contracts_scopes_are_the_domains() -> None:
    rules = [rpc.rule for name in DESCRIPTORS for rpc in rpcs_of(Service(DESCRIPTORS[name], SERVICERS[name]))]
    assert {rule.scope for rule in rules if rule is not None} == ALL_SCOPES | {""}
    assert None not in rules


def test_what_cannot_be_undone_and_what_tells_much_is_audited() -> None:
    rpcs = [rpc for name in DESCRIPTORS for rpc in rpcs_of(Service(DESCRIPTORS[name], SERVICERS[name]))]
    audited = {rpc.method.name.rpartition("/")[2] for rpc in rpcs if rpc.rule is not None and rpc.rule.audit}
    assert audited == {
        "CreateApiKey",
        "RotateApiKey",
        "RevokeApiKey",
        "DeleteConversation",
        "ExportConversation",
        "DecideApproval",
        "ListAuditEvents",
        "IssueDelegationToken",
        "ExportAccount",
        "EraseAccount",
    }


@dataclass(frozen=True)
class Stubs:
    """The generated stubs on one channel."""

    agents: "agent_service_pb2_grpc.AgentServiceAsyncStub"
    conversations: "conversation_service_pb2_grpc.ConversationServiceAsyncStub"
    keys: "api_key_service_pb2_grpc.ApiKeyServiceAsyncStub"
    admin: "admin_service_pb2_grpc.AdminServiceAsyncStub"


@pytest.fixture(scope="module")
async def stubs(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stubs]:
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(SqliteDatabase(_database(tmp_path_factory)))
        store = await stack.enter_async_context(open_store(database, ProtoEventCodec(), HASH_KEY))
        upstream = await stack.enter_async_context(ModelServer())
        model = OpenAIService(upstream.settings())
        stack.push_async_callback(model.aclose)
        tools = ToolRegistry([])
        assistant = build_assistant(model=model, model_name="offline", tools=tools, tool_calls=ToolCallManager(tools))
        agents, drain = AgentRegistry([assistant]), Drain()
        engine = RunEngine(store, store.worker, agents)
        stack.push_async_callback(engine.park)
        chain = build_auth_chain(("api_key", "local"), ProviderParts(store.api_keys, HASH_KEY))
        accounts = AccountCache(store.accounts)
        eraser = AccountEraser(store.erasures, engine, accounts, ())
        servicers: dict[str, object] = {
            "AccountService": AccountServicer(store, accounts, eraser, drain),
            "AgentService": AgentServicer(engine, agents, store, drain),
            "ConversationService": ConversationServicer(store, drain),
            "ApiKeyService": ApiKeyServicer(KeyAdministration(store.api_keys, HASH_KEY, chain.forget)),
            "ApprovalService": ApprovalServicer(engine, store),
            "DelegationService": DelegationServicer(Delegations(signer := DelegationSigner(HASH_KEY)), signer),
            "AdminService": AdminServicer(agents, ModelCatalog(), store.audit, offline_model=True),
        }
        services = [Service(descriptor, servicers[name]) for name, descriptor in DESCRIPTORS.items()]
        server = RpcServer(services, chain, drain)
        address = await server.start(ServerSettings(listen="127.0.0.1:0"))
        stack.push_async_callback(server.stop, 1)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        yield Stubs(
            agent_service_pb2_grpc.AgentServiceStub(channel),
            conversation_service_pb2_grpc.ConversationServiceStub(channel),
            api_key_service_pb2_grpc.ApiKeyServiceStub(channel),
            admin_service_pb2_grpc.AdminServiceStub(channel),
        )


def _database(factory: pytest.TempPathFactory) -> Path:
    return factory.mktemp("servicers") / "parley.db"


def spec(text: str = "hello", **fields: str) -> run_pb2.RunSpec:
    return run_pb2.RunSpec(input=[content_pb2.ContentPart(text=text)], **fields)  # type: ignore[arg-type]  # names vary


async def test_agents_are_listed_and_got(stubs: Stubs) -> None:
    listed = await stubs.agents.ListAgents(agent_service_pb2.ListAgentsRequest(page_size=1), timeout=5)
    got = await stubs.agents.GetAgent(agent_service_pb2.GetAgentRequest(agent_id="assistant"), timeout=5)
    assert list(listed.agents) == [got.agent]
    assert (got.agent.agent_id, got.agent.default_model, listed.next_page_token) == ("assistant", "offline", "")
    failure = await failed(stubs.agents.GetAgent(agent_service_pb2.GetAgentRequest(agent_id="none"), timeout=5))
    assert (failure.code, failure.metadata) == (grpc.StatusCode.NOT_FOUND, {"resource_type": "agent"})


async def test_a_run_is_relayed_watched_got_listed_and_cancelled(stubs: Stubs) -> None:
    call = stubs.agents.RunAgent(agent_service_pb2.RunAgentRequest(run=spec(), request_id="r"), timeout=10)
    events = [response.event async for response in call]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    run_id = events[0].run_id
    watched = stubs.agents.WatchRun(agent_service_pb2.WatchRunRequest(run_id=run_id, after_seq=2), timeout=10)
    assert [response.event async for response in watched] == events[2:]
    got = await stubs.agents.GetRun(agent_service_pb2.GetRunRequest(run_id=run_id), timeout=5)
    cancelled = await stubs.agents.CancelRun(agent_service_pb2.CancelRunRequest(run_id=run_id), timeout=5)
    assert cancelled.run == got.run
    listing = agent_service_pb2.ListRunsRequest(
        conversation_id=got.run.conversation_id, states=[got.run.state], agent_id="assistant"
    )
    listed = await stubs.agents.ListRuns(listing, timeout=5)
    assert [run.run_id for run in listed.runs] == [run_id]
    started = await stubs.agents.StartRun(agent_service_pb2.StartRunRequest(run=spec(), request_id="r"), timeout=5)
    assert started.run.run_id == run_id


async def test_conversations_are_made_got_and_listed(stubs: Stubs) -> None:
    request = conversation_service_pb2.CreateConversationRequest(title="t", metadata={"k": "v"}, request_id="c")
    made = (await stubs.conversations.CreateConversation(request, timeout=5)).conversation
    again = (await stubs.conversations.CreateConversation(request, timeout=5)).conversation
    got = await stubs.conversations.GetConversation(
        conversation_service_pb2.GetConversationRequest(conversation_id=made.conversation_id), timeout=5
    )
    assert made == again == got.conversation
    assert (made.title, dict(made.metadata)) == ("t", {"k": "v"})
    listed = await stubs.conversations.ListConversations(conversation_service_pb2.ListConversationsRequest(), timeout=5)
    assert made in listed.conversations


async def test_a_conversation_is_changed_by_mask_and_etag(stubs: Stubs) -> None:
    create = conversation_service_pb2.CreateConversationRequest(title="old", metadata={"k": "v"})
    made = (await stubs.conversations.CreateConversation(create, timeout=5)).conversation
    update = conversation_service_pb2.UpdateConversationRequest(conversation=made)
    update.conversation.title = "new"
    update.conversation.metadata["k"] = "ignored"
    update.update_mask.paths.append("title")
    changed = (await stubs.conversations.UpdateConversation(update, timeout=5)).conversation
    assert (changed.title, dict(changed.metadata)) == ("new", {"k": "v"})
    failure = await failed(stubs.conversations.UpdateConversation(update, timeout=5))
    assert (failure.code, failure.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert failure.metadata == {"resource_type": "conversation"}
    update.conversation.etag = ""
    update.conversation.metadata.clear()
    update.update_mask.paths[:] = ["metadata", "title"]
    changed = (await stubs.conversations.UpdateConversation(update, timeout=5)).conversation
    assert (changed.title, dict(changed.metadata)) == ("new", {})
    update.conversation.title = "\0"
    failure = await failed(stubs.conversations.UpdateConversation(update, timeout=5))
    assert (failure.reason, failure.message) == ("INVALID_REQUEST", "conversation.title: must not contain NUL")
    update.update_mask.paths[:] = ["active_run_id"]
    assert (await failed(stubs.conversations.UpdateConversation(update, timeout=5))).reason == "INVALID_REQUEST"


async def test_a_conversation_is_found_and_deleted(stubs: Stubs) -> None:
    call = stubs.agents.RunAgent(agent_service_pb2.RunAgentRequest(run=spec("zeppelins fly")), timeout=10)
    events = [response.event async for response in call]
    listing = conversation_service_pb2.ListConversationsRequest(query="FLY zepp")
    found = (await stubs.conversations.ListConversations(listing, timeout=5)).conversations
    assert [conversation.conversation_id for conversation in found] == [events[0].conversation_id]
    delete = conversation_service_pb2.DeleteConversationRequest(conversation_id=events[0].conversation_id)
    await stubs.conversations.DeleteConversation(delete, timeout=5)
    assert not (await stubs.conversations.ListConversations(listing, timeout=5)).conversations
    get_run = agent_service_pb2.GetRunRequest(run_id=events[0].run_id)
    for gone in (stubs.conversations.DeleteConversation(delete, timeout=5), stubs.agents.GetRun(get_run, timeout=5)):
        assert (await failed(gone)).code == grpc.StatusCode.NOT_FOUND
    delete.allow_missing = True
    await stubs.conversations.DeleteConversation(delete, timeout=5)


async def test_keys_are_issued_listed_and_revoked_at_once(stubs: Stubs) -> None:
    request = api_key_service_pb2.CreateApiKeyRequest(user_id="ann")
    made = await stubs.keys.CreateApiKey(request, timeout=5)
    assert (made.api_key.user_id, frozenset(made.api_key.scopes)) == ("ann", USER_SCOPES)
    assert made.api_key.expire_time.seconds - made.api_key.create_time.seconds == 90 * 24 * 3600
    listed = await stubs.keys.ListApiKeys(api_key_service_pb2.ListApiKeysRequest(page_size=1), timeout=5)
    assert list(listed.api_keys) == [made.api_key]
    assert made.secret not in str(listed)
    ann = grpc.aio.Metadata(*bearer(made.secret))
    listing = agent_service_pb2.ListRunsRequest()
    assert not (await stubs.agents.ListRuns(listing, metadata=ann, timeout=5)).runs
    failure = await failed(stubs.keys.CreateApiKey(request, metadata=ann, timeout=5))
    assert failure.metadata == {"scope": "admin"}
    revoked = await stubs.keys.RevokeApiKey(
        api_key_service_pb2.RevokeApiKeyRequest(key_id=made.api_key.key_id), timeout=5
    )
    assert revoked.api_key.HasField("revoke_time")
    failure = await failed(stubs.agents.ListRuns(listing, metadata=ann, timeout=5))
    assert failure.reason == "CREDENTIALS_INVALID"


async def test_a_key_of_a_service_has_its_patterns(stubs: Stubs) -> None:
    request = api_key_service_pb2.CreateApiKeyRequest(service_id="bot", act_as=["tg:*"], scopes=["runs:read"])
    request.lifetime.FromSeconds(60)
    key = (await stubs.keys.CreateApiKey(request, timeout=5)).api_key
    assert (key.service_id, list(key.act_as), list(key.scopes)) == ("bot", ["tg:*"], ["runs:read"])
    assert key.expire_time.seconds - key.create_time.seconds == 60


async def test_the_server_says_what_it_has_and_what_it_allows(stubs: Stubs) -> None:
    told = await stubs.admin.GetServerInfo(admin_service_pb2.GetServerInfoRequest(), timeout=5)
    assert (told.offline_model, told.default_agent_id, told.default_model) == (True, "assistant", "offline")
    assert list(told.features) == [
        "api_key_request_id",
        "approvals",
        "concurrency_interrupt",
        "conversation_query",
        "delete_conversation",
        "disconnect_cancel",
        "erase_account",
        "export_account",
        "export_conversation",
        "fork_conversation",
        "get_account",
        "get_usage",
        "image_input",
        "issue_delegation_token",
        "list_audit_events",
        "list_budgets",
        "mcp",
        "output_schema",
        "rotate_api_key",
        "set_budget",
        "steer_run",
        "tool_calls",
        "tool_hosts",
        "unattended_policy",
        "update_account",
        "update_conversation",
    ]
    assert told.version
    limits = told.limits
    assert (limits.max_message_bytes, limits.max_input_text_bytes) == (4 * 1024 * 1024, 256 * 1024)
    assert (limits.default_deadline.seconds, limits.max_deadline.seconds) == (600, 86_400)
    assert (limits.default_steps, limits.max_steps) == (25, 100)
    assert (limits.default_tool_calls, limits.max_tool_calls) == (128, 1000)
    assert all(value for _, value in limits.ListFields())
    assert len(limits.ListFields()) == len(limits.DESCRIPTOR.fields)


async def test_nul_is_refused_where_it_would_be_stored(stubs: Stubs) -> None:
    title = conversation_service_pb2.CreateConversationRequest(title="a\0", metadata={"k": "\0"})
    failure = await failed(stubs.conversations.CreateConversation(title, timeout=5))
    assert failure.reason == "INVALID_REQUEST"
    assert "title: must not contain NUL; metadata: must not contain NUL" in failure.message
    reason = agent_service_pb2.CancelRunRequest(run_id="r", reason="\0")
    assert (await failed(stubs.agents.CancelRun(reason, timeout=5))).reason == "INVALID_REQUEST"
    labels = agent_service_pb2.ListRunsRequest(labels={"k": "\0"})
    assert (await failed(stubs.agents.ListRuns(labels, timeout=5))).reason == "INVALID_REQUEST"


@pytest.mark.parametrize("token", ["x", "!", "eA==x", "\N{BOMB}"])
async def test_a_page_token_of_nobodys_is_refused(stubs: Stubs, token: str) -> None:
    for call in (
        stubs.agents.ListRuns(agent_service_pb2.ListRunsRequest(page_token=token), timeout=5),
        stubs.agents.ListAgents(agent_service_pb2.ListAgentsRequest(page_token=token), timeout=5),
        stubs.keys.ListApiKeys(api_key_service_pb2.ListApiKeysRequest(page_token=token), timeout=5),
    ):
        assert (await failed(call)).reason == "PAGE_TOKEN_INVALID"
