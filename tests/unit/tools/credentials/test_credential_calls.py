"""Credentials in calls: the right user's, at the moment of the call, and in nothing that a call says."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from parley_server.domain.errors import StartError
from parley_server.domain.tool import ToolCall, ToolEffect
from parley_server.testing import call_tool
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.credentials.chain import CredentialChain
from parley_server.tools.credentials.directory import CredentialDirectory
from parley_server.tools.credentials.opening import open_credentials
from parley_server.tools.credentials.settings import CredentialSettings
from parley_server.tools.credentials.shared import SharedCredentials
from parley_server.tools.credentials.source import CredentialsUnavailableError
from parley_server.tools.definition import ToolDefinitionError
from parley_server.tools.errors import FieldProblem, ToolError
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.tool import JsonObject, ToolContext, tool
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError
from structlog.testing import capture_logs
from unit.installed_package import install
from unit.tools.made_tools import made_tool
from unit.tools.run_sink import RunSink
from unit.tools.user_context import context_of

SECRET = "hunter2-of-ann"
CALLS_A_TURN = 25


class Nothing(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Said(BaseModel):
    text: str


@tool(effect=ToolEffect.READ, credential_slots=("vault",))
async def use(context: ToolContext, arguments: Nothing) -> Said:  # noqa: ARG001  # the shape of every tool
    """Use the secret."""
    secret = await context.credential("vault")
    assert SECRET not in f"{context!r} {secret!r} {secret}"
    context.progress(f"with {secret.get_secret_value()}")
    return Said(text=f"<{secret.get_secret_value()}>")


@tool(effect=ToolEffect.READ, credential_slots=("vault",))
def use_in_a_thread(context: ToolContext, arguments: Nothing) -> Said:  # noqa: ARG001
    """Use the secret where the loop is not."""
    secret = context.wait_for_credential("vault").get_secret_value()
    raise ToolError("no", f"not with {secret}", hint=secret, fields=[FieldProblem(secret, secret)])


@tool(effect=ToolEffect.READ)
async def use_undeclared(context: ToolContext, arguments: Nothing) -> Said:  # noqa: ARG001
    """Use what it has not said that it would."""
    return Said(text=(await context.credential("vault")).get_secret_value())


@tool(effect=ToolEffect.READ, credential_slots=("vault",))
async def break_with_it(context: ToolContext, arguments: Nothing) -> Said:  # noqa: ARG001
    """Break."""
    secret = await context.credential("vault")
    raise RuntimeError(secret.get_secret_value())


async def test_a_tool_gets_the_secret_and_says_nothing_of_it() -> None:
    outcome = await call_tool(use, {}, credentials={"vault": SECRET})
    assert outcome.result == {"text": "<[secret]>"}
    assert outcome.progress == (("with [secret]", None),)
    outcome = await call_tool(use_in_a_thread, {}, credentials={"vault": SECRET})
    assert outcome.error == {
        "code": "no",
        "message": "not with [secret]",
        "retryable": False,
        "fields": [{"path": "[secret]", "problem": "[secret]"}],
        "hint": "[secret]",
    }


async def test_who_has_none_is_told_what_to_do() -> None:
    outcome = await call_tool(use, {}, user_id="telegram:42")
    assert outcome.error["code"] == "credential_missing"
    assert "parley-server credentials set --user telegram:42 --slot vault" in str(outcome.error["hint"])


async def test_a_slot_that_is_not_declared_is_the_tools_fault() -> None:
    with capture_logs() as logs:
        outcome = await call_tool(use_undeclared, {}, credentials={"vault": SECRET})
    assert outcome.error["code"] == "internal"
    [failed] = [line for line in logs if line["event"] == "tool_failed"]
    assert isinstance(failed["exc_info"], ToolDefinitionError)
    assert "'vault'" in str(failed["exc_info"])
    for slots in (("no slot",), ("",), ("UPPER",), tuple(f"slot{n}" for n in range(17))):
        with pytest.raises(ToolDefinitionError, match="credential_slots"):
            tool(effect=ToolEffect.READ, credential_slots=slots)(use.function)


async def test_what_breaks_with_a_secret_tells_nobody() -> None:
    outcome = await call_tool(break_with_it, {}, credentials={"vault": SECRET})
    assert outcome.error["code"] == "internal"
    assert SECRET not in json.dumps(dict(outcome.told))


class Silent:
    """A source that cannot tell."""

    async def find(self, user_id: str, slot: str) -> SecretStr | None:
        raise CredentialsUnavailableError(f"no answer for {user_id} and {slot}")


async def called(manager: ToolCallManager, user_id: str, numbers: Iterator[int], name: str) -> list[JsonObject]:
    """Make a turn of calls; return what the model is told."""
    calls = [ToolCall(f"call_{n}", name, json.dumps({"n": n})) for n in numbers]
    context = context_of(user_id)
    plan = manager.plan(context, f"run_{user_id}_{calls[0].call_id}", calls, [name])
    return [json.loads(result.result_json) for result in await manager.run(context, plan, RunSink())]


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.soak)])
async def test_interleaved_calls_of_two_users_never_cross(tmp_path: Path, count: int) -> None:
    directory = CredentialDirectory(tmp_path)
    seen: dict[str, list[int]] = {"ann": [], "bob": []}
    for user_id in seen:
        directory.put(user_id, "vault", SecretStr(f"secret-of-{user_id}"))

    async def check(context: ToolContext, arguments: JsonObject) -> object:
        secret = await context.credential("vault")
        await asyncio.sleep(0)
        assert secret.get_secret_value() == f"secret-of-{context.user_id}"
        number = arguments["n"]
        assert isinstance(number, int)
        seen[context.user_id].append(number)
        return {"n": number}

    checking = made_tool("check", check, credential_slots=("vault",))
    manager = ToolCallManager(ToolRegistry([checking]), credentials=directory)
    turns = [range(start, start + CALLS_A_TURN) for start in range(0, count // 2, CALLS_A_TURN)]
    for some in (turns[n : n + 20] for n in range(0, len(turns), 20)):
        told = await asyncio.gather(
            *(called(manager, user_id, iter(numbers), "check") for numbers in some for user_id in seen)
        )
        assert all(answer["ok"] for turn in told for answer in turn)
    assert all(sorted(numbers) == list(range(count // 2)) for numbers in seen.values())


async def test_a_secret_that_is_changed_counts_from_the_next_call_on(tmp_path: Path) -> None:
    directory = CredentialDirectory(tmp_path)
    manager = ToolCallManager(ToolRegistry([use]), credentials=directory)
    said = []
    for secret in ("short", "longer secret", "s"):
        directory.put("ann", "vault", SecretStr(secret))
        plan = manager.plan(context_of(), f"run_{secret}", [ToolCall("call_1", "use", "{}")], ["use"])
        [result] = await manager.run(context_of(), plan, RunSink())
        said.append(json.loads(result.result_json)["result"]["text"])
    # What is too short to be told from any other text stays.
    assert said == ["<short>", "<[secret]>", "<s>"]


async def test_the_users_own_comes_before_what_all_share_and_silence_is_no_absence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weather").write_text("from a file\n")
    monkeypatch.setenv("CRM_TOKEN", "from the environment")
    settings = CredentialSettings.model_validate(
        {"shared": f"weather=file:{tmp_path / 'weather'},crm=env:CRM_TOKEN,gone=env:NOT_THERE"}
    )
    source = open_credentials(settings, tmp_path)
    CredentialDirectory(tmp_path / "credentials").put("ann", "weather", SecretStr("ann's own"))
    found = {
        (user_id, slot): await source.find(user_id, slot)
        for user_id, slot in (("ann", "weather"), ("bob", "weather"), ("bob", "crm"), ("bob", "other"))
    }
    values = [secret and secret.get_secret_value() for secret in found.values()]
    assert values == ["ann's own", "from a file", "from the environment", None]
    with pytest.raises(CredentialsUnavailableError):
        await source.find("bob", "gone")
    with pytest.raises(CredentialsUnavailableError):
        await CredentialChain([Silent(), SharedCredentials({"crm": "env:CRM_TOKEN"})]).find("ann", "crm")


async def test_a_source_that_cannot_tell_may_be_asked_again() -> None:
    manager = ToolCallManager(ToolRegistry([use]), credentials=Silent())
    plan = manager.plan(context_of(), "run_1", [ToolCall("call_1", "use", "{}")], ["use"])
    [result] = await manager.run(context_of(), plan, RunSink())
    error = json.loads(result.result_json)["error"]
    assert (error["code"], error["retryable"]) == ("credential_unavailable", True)


@pytest.mark.parametrize(
    "shared", [{"a": "hunter2"}, {"a": "file:relative"}, {"a": "env:"}, {"A": "env:X"}, "a", {"a/b": "env:X"}]
)
def test_a_shared_secret_is_named_by_its_place(shared: object) -> None:
    with pytest.raises(ValidationError) as refused:
        CredentialSettings.model_validate({"shared": shared})
    assert "file:/PATH or env:NAME" in str(refused.value) or "is no slot" in str(refused.value)


def test_a_source_that_is_not_installed_keeps_the_server_from_starting(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="no installed package has it"):
        open_credentials(CredentialSettings(sources=("vault",)), tmp_path)


VAULT = """
from pydantic import SecretStr

class Vault:
    async def find(self, user_id, slot):
        return SecretStr(f"{user_id}'s {slot} of the vault") if slot == "vault" else None

class NoVault:
    def find(self, user_id, slot):
        return None

def broken():
    raise RuntimeError("no vault")
"""


@pytest.fixture
def vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package that brings sources: a good one and two that are none."""
    monkeypatch.syspath_prepend(tmp_path)
    points = {"good": "a_vault:Vault", "none": "a_vault:NoVault", "broken": "a_vault:broken"}
    install(tmp_path, "a_vault", VAULT, "parley.credentials", points)


@pytest.mark.usefixtures("vault")
async def test_an_installed_source_is_asked_between_the_directory_and_what_is_shared(tmp_path: Path) -> None:
    (tmp_path / "shared").write_text("shared")
    shared = {"vault": f"file:{tmp_path / 'shared'}", "other": f"file:{tmp_path / 'shared'}"}
    source = open_credentials(CredentialSettings(sources=("good",), shared=shared), tmp_path)
    CredentialDirectory(tmp_path / "credentials").put("bob", "vault", SecretStr("bob's own"))
    found = [await source.find(*asked) for asked in (("ann", "vault"), ("bob", "vault"), ("ann", "other"))]
    assert [secret and secret.get_secret_value() for secret in found] == [
        "ann's vault of the vault",
        "bob's own",
        "shared",
    ]


@pytest.mark.usefixtures("vault")
@pytest.mark.parametrize(("name", "said"), [("none", "is no source"), ("broken", "cannot be made .RuntimeError")])
def test_what_is_installed_and_no_source_keeps_the_server_from_starting(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(StartError, match=said):
        open_credentials(CredentialSettings(sources=(name,)), tmp_path)
