"""An export's lines: whole messages, whatever their size, and an end that tells whether it is all."""

import json
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import given, settings
from hypothesis import strategies as st
from parley.v1 import conversation_pb2
from parley_server.domain.call_errors import ServerDrainingError
from parley_server.domain.content import ImagePart, TextPart
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import NotFoundError
from parley_server.domain.message import AssistantItem, Item, Message, UserItem
from parley_server.domain.principal import ALL_SCOPES, Principal, PrincipalKind
from parley_server.domain.run import RunSpec
from parley_server.rpc.drain import Drain
from parley_server.rpc.mapping.conversation import write_message
from parley_server.rpc.mapping.export import message_lines
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.rpc.servicers.export import export_lines
from parley_server.storage.sql.sqlite import SqliteDatabase
from parley_server.storage.sql.store import open_store

RESPONSE_MAX_BYTES = 3 * 1024 * 1024


def message(item: Item) -> Message:
    return Message("msg_1", "conv_1", "run_1", datetime.now(UTC), item)


def read(lines: list[str]) -> conversation_pb2.Message:
    """Put a message together again, as a reader does."""
    first, *rest = (json.loads(line) for line in lines)
    for each in rest:
        *parents, field = each["continuation"]["path"]
        target = first["message"]
        for parent in parents:
            target = target[parent]
        target[field] += each["continuation"]["text"]
        assert each["continuation"]["messageId"] == first["message"]["messageId"]
    return ParseDict(first["message"], conversation_pb2.Message())


@pytest.mark.parametrize(
    "item",
    [
        UserItem((TextPart("hello\nthere"),)),
        UserItem((TextPart("see"), ImagePart("image/png", content=bytes(range(256)) * 12_288))),
        AssistantItem("\x01" * 1_048_576, reasoning_text='"' * 1_048_576, output_json="\\" * 1_048_576),
        AssistantItem("é\u2028😀" * 100_000, refusal="no" * 32_768),
    ],
    ids=["short", "image", "escaped", "wide"],
)
def test_a_message_of_any_size_comes_out_whole(item: Item) -> None:
    exported = message(item)
    lines = list(message_lines(exported))
    assert read(lines) == write_message(exported)
    for line in lines:
        assert line.endswith("\n")
        assert line.count("\n") == 1
        assert len(line.encode()) <= RESPONSE_MAX_BYTES


@settings(max_examples=50)
@given(st.text(), st.text(max_size=20), st.integers(1, 200_000))
def test_any_text_comes_out_whole(text: str, reasoning: str, times: int) -> None:
    text = (text * times)[:1_000_000].replace("\0", "")
    exported = message(AssistantItem(text, reasoning_text=reasoning))
    assert read(list(message_lines(exported))) == write_message(exported)


async def test_an_export_leaves_out_what_comes_while_it_goes_on_and_ends_when_it_must(tmp_path: Path) -> None:
    principal = Principal(kind=PrincipalKind.USER, subject="ann", scopes=ALL_SCOPES, method="test")
    ann = RequestContext(user_id="ann", principal=principal, request_id="req", timestamp=datetime.now(UTC))
    async with (
        SqliteDatabase(tmp_path / "parley.db") as database,
        open_store(database, ProtoEventCodec(), b"page token key", conversation_ttl=timedelta(days=1)) as store,
    ):
        user = store.for_user(ann)
        made = await user.conversations.create("Plans", {})
        spec = RunSpec("assistant", made.conversation_id, (TextPart("hello"),))
        for _ in range(4):
            await user.runs.accept(spec, None)
        fork = await user.conversations.fork(made.conversation_id)
        drain = Drain()
        async with aclosing(export_lines(user, made, drain)) as lines:
            told = [json.loads(await anext(lines)), json.loads(await anext(lines))]
            await user.runs.accept(spec, None)
            told += [json.loads(line) async for line in lines]
        assert [next(iter(line)) for line in told] == ["conversation"] + ["message"] * 4
        async with aclosing(export_lines(user, fork, drain)) as lines:
            assert json.loads(await anext(lines))["conversation"]["title"] == "Plans"
            await user.conversations.delete(fork.conversation_id)
            with pytest.raises(NotFoundError):
                await anext(lines)
        async with aclosing(export_lines(user, made, drain)) as lines:
            await anext(lines)
            drain.start()
            with pytest.raises(ServerDrainingError):
                await anext(lines)
