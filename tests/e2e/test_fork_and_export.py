"""Forking and exporting over the wire."""

import json

import grpc
import pytest
from e2e.conftest import RPC_DEADLINE_S, Stubs, run_agent, run_spec
from e2e.test_runs import reason_of
from google.protobuf.json_format import ParseDict
from parley.v1 import admin_service_pb2, conversation_pb2
from parley.v1 import conversation_service_pb2 as pb


async def talk(stubs: Stubs, *texts: str) -> str:
    conversation_id = ""
    for text in texts:
        conversation_id = (await run_agent(stubs, run_spec(text, conversation_id)))[0].conversation_id
    return conversation_id


async def messages_of(stubs: Stubs, conversation_id: str) -> list[conversation_pb2.Message]:
    request = pb.ListMessagesRequest(conversation_id=conversation_id, page_size=1000)
    return list((await stubs.conversations.ListMessages(request, timeout=RPC_DEADLINE_S)).messages)


async def export(stubs: Stubs, conversation_id: str) -> list[str]:
    call = stubs.conversations.ExportConversation(
        pb.ExportConversationRequest(conversation_id=conversation_id), timeout=RPC_DEADLINE_S
    )
    return [response.json_lines async for response in call]


async def test_a_fork_goes_on_where_the_named_message_was(stubs: Stubs) -> None:
    conversation_id = await talk(stubs, "My name is Ann.", "What is 17 * 23?")
    originals = await messages_of(stubs, conversation_id)
    request = pb.ForkConversationRequest(
        conversation_id=conversation_id, message_id=originals[1].message_id, title="Again", request_id="r1"
    )
    fork = (await stubs.conversations.ForkConversation(request, timeout=RPC_DEADLINE_S)).conversation
    assert fork == (await stubs.conversations.ForkConversation(request, timeout=RPC_DEADLINE_S)).conversation
    assert fork.title == "Again"
    events = await run_agent(stubs, run_spec("What is 2 + 2?", fork.conversation_id))
    copies = await messages_of(stubs, fork.conversation_id)
    assert [each.WhichOneof("item") for each in copies[:2]] == ["user", "assistant"]
    assert [each.run_id for each in copies[:3]] == ["", "", events[0].run_id]
    assert [each.user for each in copies[:1]] == [each.user for each in originals[:1]]
    assert await messages_of(stubs, conversation_id) == originals
    request.title = "Other"
    with pytest.raises(grpc.aio.AioRpcError) as reused:
        await stubs.conversations.ForkConversation(request, timeout=RPC_DEADLINE_S)
    assert reason_of(reused.value) == "REQUEST_ID_REUSED"


async def test_an_export_is_the_conversation_and_its_messages_in_order(stubs: Stubs) -> None:
    conversation_id = await talk(stubs, *(f"Question {n}: what is {n} + {n}?" for n in range(20)))
    responses = await export(stubs, conversation_id)
    assert all(text.endswith("\n") for text in responses)
    first, *rest = (json.loads(line) for line in "".join(responses).splitlines())
    got = await stubs.conversations.GetConversation(pb.GetConversationRequest(conversation_id=conversation_id))
    assert ParseDict(first["conversation"], conversation_pb2.Conversation()) == got.conversation
    read = [ParseDict(line["message"], conversation_pb2.Message()) for line in rest]
    assert read == await messages_of(stubs, conversation_id)
    assert len(read) > 40


async def test_what_is_not_there_is_not_exported(stubs: Stubs) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as absent:
        await export(stubs, "conv_absent")
    assert absent.value.code() is grpc.StatusCode.NOT_FOUND


async def test_the_server_says_that_it_can(stubs: Stubs) -> None:
    told = await stubs.admin.GetServerInfo(admin_service_pb2.GetServerInfoRequest(), timeout=RPC_DEADLINE_S)
    assert {"export_conversation", "fork_conversation"} <= set(told.features)
