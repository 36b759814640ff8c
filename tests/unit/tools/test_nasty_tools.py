"""Tools as they should not be: their calls are answered all the same, and nobody else notices."""

import asyncio
import tracemalloc
from collections.abc import Iterable, Iterator, Mapping

import pytest
import structlog
from parley_server.domain.tool import ToolEffect
from parley_server.testing import call_tool
from parley_server.tools import model_json
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.tool import JsonObject, ToolContext, tool
from pydantic import BaseModel, ConfigDict, SecretStr
from unit.tools.made_tools import made_tool
from unit.tools.run_sink import RunSink
from unit.tools.tool_turns import a_call, run
from unit.tools.user_context import context_of

MEBIBYTE = "x" * 1024 * 1024


class Lazy(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    rows: Iterable[str] = ()
    anything: object = None
    deeper: list["Lazy"] = []


class Endless(dict[str, str]):
    """A mapping that goes on for ever."""

    def values(self) -> Iterator[str]:  # type: ignore[override]  # as above
        while True:
            yield MEBIBYTE


class EndlessRows(list[str]):
    """A list that goes on for ever."""

    def __iter__(self) -> Iterator[str]:
        while True:
            yield "a row" + MEBIBYTE[:-5]


def ten_gigabytes() -> Iterator[str]:
    for number in range(10_000):
        yield f"{number}{MEBIBYTE}"


def doubling(times: int) -> list[object]:
    """Make a list that is small, and unfolds to 2 ** times values."""
    value: list[object] = []
    for _ in range(times):
        value = [value, value]
    return value


def cycle() -> dict[str, object]:
    value: dict[str, object] = {}
    value["again"] = value
    return value


def deep(levels: int) -> dict[str, object]:
    value: dict[str, object] = {}
    for _ in range(levels):
        value = {"in": value}
    return value


@pytest.fixture(autouse=True)
def unread_log() -> Iterator[None]:
    """Keep what is logged: whoever prints tracebacks with all values in them would do so for hours."""
    with structlog.testing.capture_logs():
        yield


RESULTS = {
    "rows one by one": lambda: Lazy(rows=ten_gigabytes()),
    "rows one by one, further in": lambda: Lazy(deeper=[Lazy(deeper=[Lazy(rows=ten_gigabytes())])]),
    "a generator among anything": lambda: Lazy(anything=[{"rows": ten_gigabytes()}]),
    "a mapping without end": lambda: Lazy(anything=Endless()),
    "a list without end": lambda: Lazy(anything=EndlessRows()),
    "what unfolds without end": lambda: Lazy(anything=doubling(60)),
    "a cycle": lambda: Lazy(anything=cycle()),
    "5,000 levels": lambda: Lazy(anything=deep(5_000)),
    "NaN": lambda: Lazy(anything=float("nan")),
    "bytes": lambda: Lazy(anything=b"\xff\xfe"),
    "an object": lambda: Lazy(anything=object()),
}


class Which(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: str


@tool(effect=ToolEffect.READ)
async def give(context: ToolContext, arguments: Which) -> Lazy:  # noqa: ARG001
    """Give."""
    return RESULTS[arguments.kind]()


@pytest.mark.parametrize("kind", RESULTS)
async def test_a_result_that_has_no_end_or_is_none_takes_little_memory_and_is_an_error(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where memory is traced, every value takes its time.
    monkeypatch.setattr(model_json, "MAX_RESULT_SIZE", 200_000)
    tracemalloc.start()
    try:
        outcome = await call_tool(give, {"kind": kind})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert outcome.error["code"] in ("internal", "result_too_large")
    assert peak < 32 * 1024 * 1024


@pytest.mark.parametrize("kind", ["a list without end", "a mapping without end", "a generator"])
async def test_a_tool_that_is_no_function_is_held_to_the_same(kind: str) -> None:
    class Rows(Mapping[str, object]):
        def __getitem__(self, key: str) -> object:
            return key

        def __iter__(self) -> Iterator[str]:
            return ten_gigabytes()

        def __len__(self) -> int:
            return 10_000

    async def send(context: ToolContext, arguments: JsonObject) -> object:  # noqa: ARG001
        return {"a list without end": EndlessRows(), "a mapping without end": Rows()}.get(kind, ten_gigabytes())

    tracemalloc.start()
    try:
        [result] = await run([made_tool("send", send)], [a_call(1, "send")], RunSink())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result.error_code in ("internal", "result_too_large")
    assert peak < 64 * 1024 * 1024


class Nothing(BaseModel):
    model_config = ConfigDict(extra="forbid")


ERRORS: list[BaseException] = [
    asyncio.CancelledError("no"),
    SystemExit(3),
    KeyboardInterrupt("no"),
    GeneratorExit(),
    StopAsyncIteration(),
    StopIteration(),
    ExceptionGroup("no", [KeyError(1)]),
    BaseExceptionGroup("no", [KeyboardInterrupt()]),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_whatever_is_raised_also_in_a_thread_ends_the_call_alone(error: BaseException) -> None:
    @tool(effect=ToolEffect.READ)
    async def fall(context: ToolContext, arguments: Nothing) -> Nothing:  # noqa: ARG001
        """Fall."""
        raise error

    @tool(effect=ToolEffect.READ)
    def fall_in_a_thread(context: ToolContext, arguments: Nothing) -> Nothing:  # noqa: ARG001
        """Fall."""
        raise error

    calls = [a_call(1, "fall", "{}"), a_call(2, "fall_in_a_thread", "{}"), a_call(3, "echo")]
    results = await run([fall, fall_in_a_thread, made_tool("echo")], calls, RunSink())
    assert [each.error_code for each in results] == ["internal", "internal", ""]


async def test_a_tool_that_ignores_its_cancel_gives_its_place_to_others() -> None:
    release, begun = asyncio.Event(), asyncio.Event()

    async def stubborn(context: ToolContext, arguments: JsonObject) -> object:  # noqa: ARG001
        begun.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return None

    manager = ToolCallManager(ToolRegistry([made_tool("hold", stubborn, per_user_concurrency=1)]))
    for number in range(5):
        plan = manager.plan(context_of(), f"run_{number}", [a_call(number, "hold")], ["hold"])
        task = asyncio.create_task(manager.run(context_of(), plan, RunSink()))
        async with asyncio.timeout(1):
            await begun.wait()
            begun.clear()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    release.set()


class Secrets:
    """Implements `CredentialSource`: a secret for everybody, found after a while."""

    async def find(self, user_id: str, slot: str) -> SecretStr | None:
        await asyncio.sleep(0)
        return SecretStr(f"{slot} of {user_id}")


class Claim(BaseModel):
    """Lets the model say whatever it likes of the user."""

    model_config = ConfigDict(extra="forbid")

    n: int
    user_id: str


class Whose(BaseModel):
    user_id: str
    secret: str
    n: int


@tool(effect=ToolEffect.READ, credential_slots=("desk",))
async def whose(context: ToolContext, arguments: Claim) -> Whose:
    """Tell whose call it is."""
    before = (await context.credential("desk")).get_secret_value()
    await asyncio.sleep(0)
    after = (await context.credential("desk")).get_secret_value()
    assert before == after
    return Whose(user_id=context.user_id, secret=after[::-1], n=arguments.n)


async def test_ten_thousand_calls_of_two_users_in_turns_never_cross() -> None:
    manager = ToolCallManager(ToolRegistry([whose]), credentials=Secrets())
    calls_per_turn = 32
    turns = 10_000 // calls_per_turn + 1

    async def turn(number: int) -> int:
        user, other = ("ann", "bob")[:: 1 if number % 2 else -1]
        asked = [a_call(n, "whose", f'{{"n":{n},"user_id":"{other}"}}') for n in range(calls_per_turn)]
        context = context_of(user)
        results = await manager.run(context, manager.plan(context, f"run_{number}", asked, ["whose"]), RunSink())
        expected = [
            f'{{"ok":true,"result":{{"user_id":"{user}","secret":"{user[::-1]} fo ksed","n":{n}}}}}'
            for n in range(calls_per_turn)
        ]
        assert [each.result_json for each in results] == expected
        return len(results)

    counts = [sum(await asyncio.gather(*(turn(first + n) for n in range(8)))) for first in range(0, turns, 8)]
    assert sum(counts) >= 10_000
