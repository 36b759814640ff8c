"""Accounts over the wire: what a user sets is his calls' default, and what he has is given to him and erased."""

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from datetime import UTC, datetime

import grpc
import pytest
from contract.storage.conftest import context_for
from contract.storage.full_user import fill
from contract.storage.test_repositories import answer, spec
from parley.v1 import account_pb2, agent_service_pb2
from parley.v1.account_service_pb2 import ERASURE_STATE_ERASED, ERASURE_STATE_ERASING
from parley_server.accounts import eraser
from parley_server.domain.principal import ADMIN_SCOPE, ERASE_SCOPE, PrincipalKind
from parley_server.storage.sql import writer
from rpc.account_server import TIMEOUT_S, AccountCaller, AccountServer, account_server
from rpc.chassis import failed, failure_of
from rpc.run_server import wish

WORD = "canary7f3a"


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AccountServer]:
    async with account_server(tmp_path_factory.mktemp("accounts")) as serving:
        yield serving


async def test_an_account_is_empty_until_something_is_set_in_it(server: AccountServer) -> None:
    ann = await server.caller("ann")
    assert await ann.get() == account_pb2.Account(user_id="ann", etag="0")
    hours = account_pb2.QuietHours(start_minute=1320, end_minute=420)
    wanted = account_pb2.Account(display_name="Ann", time_zone="Asia/Tokyo", locale="de-CH", quiet_hours=hours)
    made = await ann.update(wanted, "display_name", "time_zone", "quiet_hours")
    assert (made.display_name, made.time_zone, made.locale, made.quiet_hours) == ("Ann", "Asia/Tokyo", "", hours)
    assert made.create_time == made.update_time
    cleared = await ann.update(account_pb2.Account(etag=made.etag), "quiet_hours", "time_zone")
    assert (cleared.display_name, cleared.time_zone, cleared.HasField("quiet_hours")) == ("Ann", "", False)
    late = await failed(ann.update(account_pb2.Account(etag=made.etag, locale="fr"), "locale"))
    assert (late.code, late.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert await ann.get() == cleared


@pytest.mark.parametrize(
    ("account", "path"),
    [
        (account_pb2.Account(time_zone="Mars/Base"), "time_zone"),
        (account_pb2.Account(locale="no tag"), "locale"),
        (account_pb2.Account(display_name="a\0b"), "display_name"),
        (account_pb2.Account(quiet_hours=account_pb2.QuietHours(start_minute=5, end_minute=5)), "quiet_hours"),
        (account_pb2.Account(), "quiet_hours.start_minute"),
        (account_pb2.Account(), "user_id"),
    ],
)
async def test_what_is_no_value_is_refused(server: AccountServer, account: account_pb2.Account, path: str) -> None:
    ann = await server.caller("ann")
    refused = await failed(ann.update(account, path))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


async def test_the_accounts_zone_and_language_are_those_of_calls_that_name_none(server: AccountServer) -> None:
    tom = await server.caller("tom")
    await tom.update(account_pb2.Account(time_zone="Asia/Tokyo", locale="ja-JP"), "time_zone", "locale")
    assert await contexts_of(server, tom) == [("Asia/Tokyo", "ja-JP")]
    said = AccountCaller(
        tom.accounts, tom.agents, tom.conversations, (*tom.metadata, ("parley-context", '{"timeZone":"Asia/Kolkata"}'))
    )
    assert await contexts_of(server, said) == [("Asia/Kolkata", "ja-JP")]
    await tom.update(account_pb2.Account(time_zone="America/Lima"), "time_zone")
    assert await contexts_of(server, tom) == [("America/Lima", "ja-JP")]
    bob = await server.caller("bob")
    assert await contexts_of(server, bob) == [("UTC", "en")]


async def contexts_of(server: AccountServer, caller: AccountCaller) -> list[tuple[str, str]]:
    """Start a run and return the zone and the language it was accepted with."""
    started = await caller.agents.StartRun(
        agent_service_pb2.StartRunRequest(run=wish("answer")), metadata=caller.metadata, timeout=TIMEOUT_S
    )
    contexts = [json.loads(str(row["context_json"])) for row in server.rows("runs", "run_id", started.run.run_id)]
    return [(context["time_zone"], context["locale"]) for context in contexts]


async def test_an_export_has_everything_of_the_user_and_nothing_of_anybody_else(server: AccountServer) -> None:
    eve = await server.caller("eve")
    await fill(server.store, context_for("eve"), WORD, conversations=3)
    await fill(server.store, context_for("una"), "others4711", conversations=1)
    lines = await eve.export()
    assert not any("others4711" in line or "una" in line.split('"') for line in lines)
    kinds = [next(iter(json.loads(line))) for line in lines]
    listed = ["account", "conversation", "message", "toolResult", "run", "toolCall"]
    listed += ["notes", "apiKeys", "usageDays", "requestIds"]
    assert list(dict.fromkeys(kinds)) == listed
    counted = Counter(kinds)
    assert (counted["conversation"], counted["notes"], counted["apiKeys"], counted["toolCall"]) == (5, 40, 2, 3)
    assert counted["requestIds"] == 43
    keys = [json.loads(line)["apiKeys"] for line in lines if line.startswith('{"apiKeys"')]
    assert not any("ecretHash" in name for key in keys for name in key)
    [account] = [json.loads(line)["account"] for line in lines if line.startswith('{"account"')]
    assert (account["userId"], account["displayName"]) == ("eve", WORD)


async def test_an_export_ends_when_the_server_stops(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with account_server(tmp_path_factory.mktemp("draining")) as own:
        ann = await own.caller("ann")
        await fill(own.store, context_for("ann"), WORD, conversations=12)
        own.drain.start(5.0)
        refused = await failed(ann.export())
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")


async def test_a_user_erases_himself_and_his_key_is_gone_with_him(server: AccountServer) -> None:
    sue = await server.caller("sue")
    await fill(server.store, context_for("sue"), WORD, conversations=2)
    stranger = await server.caller("stranger")
    kept = await stranger.create("his own")
    unconfirmed = await failed(sue.erase("sue", confirmation="Sue"))
    assert (unconfirmed.code, unconfirmed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    foreign = await failed(sue.erase("stranger"))
    assert (foreign.code, foreign.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
    assert await sue.erase("sue") == ERASURE_STATE_ERASED
    gone = await failed(sue.get())
    assert gone.code is grpc.StatusCode.UNAUTHENTICATED
    sue = await server.caller("sue")
    assert await sue.get() == account_pb2.Account(user_id="sue", etag="0")
    assert len(await sue.export()) == 2
    assert any(kept in line for line in await stranger.export())
    assert await sue.erase("sue") == ERASURE_STATE_ERASED


async def test_a_service_erases_its_user_only_where_it_was_given_that_by_name(server: AccountServer) -> None:
    bot = await server.caller("bot", PrincipalKind.SERVICE, acts_for="chat:7")
    await bot.create(WORD)
    refused = await failed(bot.erase("chat:7"))
    assert (refused.reason, refused.metadata["scope"]) == ("SCOPE_MISSING", ERASE_SCOPE)
    able = await server.caller("bot", PrincipalKind.SERVICE, [ERASE_SCOPE], acts_for="chat:7")
    assert await able.erase("chat:7") == ERASURE_STATE_ERASED
    assert (await failed(able.erase("chat:8"))).reason == "SCOPE_MISSING"
    assert len(await bot.export()) == 1


async def test_an_administrator_erases_anybody(server: AccountServer) -> None:
    dan = await server.caller("dan")
    await dan.create(WORD)
    operator = await server.caller("ops", PrincipalKind.SERVICE, [ERASE_SCOPE, ADMIN_SCOPE])
    assert await operator.erase("dan") == ERASURE_STATE_ERASED
    assert (await failed(dan.get())).code is grpc.StatusCode.UNAUTHENTICATED


async def test_while_a_user_is_erased_nothing_else_can_be_asked_for_him(
    server: AccountServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eraser, "PATIENCE_S", 0.3)
    kim = await server.caller("kim")
    # A run that nobody performs does not end by itself.
    run = (await server.store.for_user(context_for("kim")).runs.accept(spec(), None)).run
    assert await kim.erase("kim") == ERASURE_STATE_ERASING
    for refused in [await failed(kim.get()), await failed(kim.export()), await failed(kim.create("new"))]:
        assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ACCOUNT_ERASING")
    await (await server.caller("lee")).create("not his trouble")
    assert await kim.erase("kim") == ERASURE_STATE_ERASING
    await server.store.worker.appender(run.run_id).finish(answer("x"))
    monkeypatch.setattr(eraser, "PATIENCE_S", 10.0)
    # He may have been erased, and his key with him, before he could ask.
    with suppress(grpc.aio.AioRpcError):
        assert await kim.erase("kim") == ERASURE_STATE_ERASED
    assert await (await server.caller("kim")).get() == account_pb2.Account(user_id="kim", etag="0")


async def test_a_wish_that_is_stored_late_is_fulfilled_and_not_found_again_at_the_next_start(
    server: AccountServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eraser, "PATIENCE_S", 0.3)
    monkeypatch.setattr(writer, "PATIENCE_S", 0.1)
    tom = await server.caller("tom")
    with closing(sqlite3.connect(server.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        unknown = await failed(tom.erase("tom"))
        assert (unknown.code, unknown.reason) == (grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")
        other.execute("ROLLBACK")
    assert (await failed(tom.get())).reason in {"ACCOUNT_ERASING", "CREDENTIALS_INVALID"}
    while server.rows("api_keys", "subject", "tom") or server.rows("erasures", "user_id", "tom"):  # noqa: ASYNC110  # nothing tells when it is over
        await asyncio.sleep(0.01)


async def test_runs_that_are_started_while_their_user_is_erased_leave_nothing(server: AccountServer) -> None:
    ray = await server.caller("ray")
    bot = await server.caller("bot", PrincipalKind.SERVICE, acts_for="ray")
    starts = [asyncio.create_task(contexts_of(server, bot)) for _ in range(10)]
    await asyncio.sleep(0.02)
    begin = datetime.now(UTC)
    erasing = asyncio.create_task(ray.erase("ray"))
    while not erasing.done():
        starts.append(asyncio.create_task(contexts_of(server, bot)))
        await asyncio.sleep(0.005)
    assert await erasing == ERASURE_STATE_ERASED
    outcomes = await asyncio.gather(*starts, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
    assert refused
    assert {failure_of(error).reason for error in refused} == {"ACCOUNT_ERASING"}
    # Who asks when it is over begins anew; what was asked for before is nowhere.
    left = server.rows("runs", "user_id", "ray")
    assert all(datetime.fromisoformat(json.loads(str(run["context_json"]))["timestamp"]) > begin for run in left)
    assert len(server.rows("conversations", "user_id", "ray")) == len(left)
    assert server.rows("erasures", "user_id", "ray") == []
