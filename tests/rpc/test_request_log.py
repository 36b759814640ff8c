"""The request log: who, what, how long; never what was said, and nothing that breaks a line."""

from parley_server.domain.principal import PrincipalKind
from rpc.chassis import bearer, failed
from rpc.observed import observed
from rpc.test_health import check


async def test_a_line_names_caller_user_and_request() -> None:
    async with observed() as server:
        key = server.chassis.keys.issue("bot", PrincipalKind.SERVICE, act_as=["ann"])
        context = ("parley-context", '{"userId":"ann","metadata":{"a":"secret words"}}')
        await server.chassis.get_run(metadata=(*bearer(key), context, ("x-request-id", "mine")))
        (line,) = await server.settled(1)
    assert (line["principal"], line["user"], line["request_id"]) == ("service:bot", "ann", "mine")
    assert (line["peer"], line["sent"], line["actors"]) == ("127.0.0.1", 1, "service:bot")
    assert key not in str(server.log)
    assert "secret words" not in str(server.log)


async def test_users_are_told_apart_and_not_named_where_that_is_asked() -> None:
    lines = []
    for name_key in (b"k" * 32, b"k" * 32, b"other" * 8):
        async with observed(name_key=name_key) as server:
            await server.chassis.get_run(metadata=bearer(server.chassis.keys.issue("ann")))
            lines += await server.settled(1)
    users = [line["user"] for line in lines]
    assert users[0] == users[1] != users[2]
    assert "ann" not in str(lines)
    assert all(line["principal"] == f"user:{line['user']}" for line in lines)


async def test_who_acts_for_a_user_is_told_by_the_same_word_as_when_he_calls_for_himself() -> None:
    async with observed(name_key=b"k" * 32) as server:
        key = server.chassis.keys.issue("weather-bot", PrincipalKind.SERVICE, act_as=["ann"])
        await server.chassis.get_run(metadata=(*bearer(key), ("parley-context", '{"userId":"ann"}')))
        await server.chassis.get_run(metadata=bearer(key))
        for_ann, for_itself = await server.settled(2)
    assert for_ann["actors"] == for_ann["principal"] == for_itself["principal"] == for_itself["user"]
    assert "actors" not in for_itself
    assert "weather-bot" not in str(server.log)


async def test_who_is_not_let_in_has_no_name() -> None:
    async with observed() as server:
        await failed(server.chassis.get_run(metadata=(("authorization", "Bearer nonsense"),)))
        (line,) = await server.settled(1)
    assert (line["end"], line["code"], line["reason"]) == ("error", "UNAUTHENTICATED", "CREDENTIALS_INVALID")
    assert "principal" not in line
    assert "nonsense" not in str(server.log)


async def test_a_request_id_that_would_break_a_line_is_not_taken() -> None:
    async with observed() as server:
        await server.chassis.get_run(metadata=(("x-request-id", "a" * 65),))
        (line,) = await server.settled(1)
    assert line["request_id"].startswith("req_")


async def test_health_is_told_at_debug_level_alone() -> None:
    async with observed() as server:
        await check(server.chassis)
        (line,) = await server.settled(1)
    assert line["log_level"] == "debug"
    assert server.number("grpc_server_handled_total", grpc_service="grpc.health.v1.Health", grpc_code="OK") == 1
