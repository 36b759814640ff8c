"""`parley-server models check` on servers that differ from what is assumed of them, each in one thing."""

import asyncio
import os
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from parley_server.llm.check.command import AGREES, DIFFERS, UNUSABLE, check_models
from parley_server.llm.check.questions import MAX_QUESTIONS
from parley_server.llm.model_settings import ModelSettings, ProviderSettings
from unit.llm.picky_server import PickyServer

SECRET = "sk-very-secret"
# What a PickyServer does that an unknown one is not assumed to.
RIGHT: Mapping[str, object] = {"response_format": "json_schema", "context_window": 4096}


async def checked(server: PickyServer, **settings: object) -> tuple[int, str]:
    """Check a server with a profile that is right but for what `settings` say; return the code and what was said."""
    profile = {**RIGHT, **settings}
    main = ModelSettings.model_validate(
        {"base_url": server.base_url, "name": "m", "api_key": SECRET, "profile": profile}
    )
    said: list[str] = []
    code = await check_models(main, {}, "", said.append)
    assert SECRET not in "".join(said)
    return code, "\n".join(said)


async def test_a_server_that_is_as_assumed_is_said_to_be_and_asked_no_more_than_was_told() -> None:
    async with PickyServer() as server:
        code, said = await checked(server)
        assert code == AGREES, said
        assert f"{MAX_QUESTIONS} questions at most" in said
        assert f"the profile is right ({server.asked} questions)" in said
        assert server.asked <= MAX_QUESTIONS
        for line in ("reachable      yes", "listed (the server lists 1)", "yes, 2 calls at once", "max_tokens kept"):
            assert line in said


@pytest.mark.parametrize(
    ("server", "profile", "right"),
    [
        (PickyServer(refuses=frozenset({"stream_options"})), {}, {"stream_options": False}),
        (PickyServer(), {"stream_options": False}, {"stream_options": True}),
        (PickyServer(limits_by=("max_completion_tokens",)), {}, {"max_tokens_field": "max_completion_tokens"}),
        (
            PickyServer(limits_by=(), refuses=frozenset({"max_tokens"})),
            {},
            {"max_tokens_field": "max_completion_tokens"},
        ),
        (PickyServer(roles=frozenset({"developer", "user", "assistant", "tool"})), {}, {"system_role": "developer"}),
        (PickyServer(refuses=frozenset({"temperature"})), {}, {"sampling": False}),
        (PickyServer(refuses=frozenset({"stop"})), {}, {"stop": False}),
        (PickyServer(), {"stop": False}, {"stop": True}),
        (PickyServer(refuses=frozenset({"seed"})), {}, {"seed_field": "none"}),
        (PickyServer(refuses=frozenset({"tools"})), {}, {"tools": False}),
        (PickyServer(), {"tools": False, "images": False}, {"tools": True, "images": True}),
        (PickyServer(calls_beside_schema=True), {}, {"format_beside_tools": True}),
        (PickyServer(), {"format_beside_tools": True}, {"format_beside_tools": False}),
        (PickyServer(holds_schema=False), {}, {"response_format": "json_object"}),
        (PickyServer(refuses=frozenset({"response_format"})), {}, {"response_format": "none"}),
        (PickyServer(), {"response_format": "none"}, {"response_format": "json_schema"}),
        (
            PickyServer(reasoning_field="reasoning", wants_reasoning=True),
            {},
            {"replay_reasoning": "tool_calls", "reasoning_field": "reasoning"},
        ),
        (PickyServer(), {"context_window": 1}, {"context_window": 4096}),
    ],
)
async def test_what_differs_is_found_and_its_lines_correct_it(
    server: PickyServer, profile: dict[str, object], right: dict[str, object]
) -> None:
    async with server:
        code, said = await checked(server, **profile)
        assert code == DIFFERS, said
        lines = said[said.index("\n[model.profile]") :]
        assert tomllib.loads(lines) == {"model": {"profile": right}}
        again, said = await checked(server, **{**profile, **right})
        assert again == AGREES, said


@pytest.mark.parametrize(
    "server",
    [
        PickyServer(sends_usage="always"),
        PickyServer(sends_usage="never"),
        PickyServer(limits_by=("max_completion_tokens", "max_tokens")),
        PickyServer(limits_by=()),
        PickyServer(keeps_stop=False),
        PickyServer(calls=0),
        PickyServer(calls=1, reasoning_field="reasoning"),
        PickyServer(sees=False),
    ],
)
async def test_what_was_not_seen_to_be_wrong_is_let_be(server: PickyServer) -> None:
    async with server:
        code, said = await checked(server)
        assert code == AGREES, said


async def test_a_server_that_does_not_answer_is_unusable_and_asked_nothing_more() -> None:
    async with PickyServer(key="another") as server:
        code, said = await checked(server)
        assert (code, "refused (HTTP 401)" in said, server.asked) == (UNUSABLE, True, 2)
        gone = ModelSettings(base_url=server.base_url, name="m")
    lines: list[str] = []
    assert await check_models(gone, {}, "", lines.append) == UNUSABLE
    assert lines[-2:] == ["  reachable      no", "  answer         none: no answer"]
    async with PickyServer(refuses=frozenset({"messages"}), listed=()) as server:
        code, said = await checked(server)
        assert (code, "not listed (the server lists 0)" in said, "none: HTTP 400" in said) == (UNUSABLE, True, True)


async def test_every_server_is_checked_and_the_worst_counts() -> None:
    async with PickyServer() as main, PickyServer(listed=("a", "b"), holds_schema=False) as second:
        settings = ModelSettings.model_validate({"base_url": main.base_url, "name": "m", "profile": RIGHT})
        provider = {"base_url": second.base_url, "models": ("a", "b"), "profile": RIGHT}
        providers = {"second": ProviderSettings.model_validate(provider)}
        said: list[str] = []
        assert await check_models(settings, providers, "", said.append) == DIFFERS
        assert [line.split(" at ")[0] for line in said if line.startswith("\n[")] == [
            "\n[model] m",
            "\n[providers.second] a",
        ]
        asked = main.asked
        assert await check_models(settings, providers, "b", said.append) == DIFFERS
        assert main.asked == asked


async def test_the_program_checks_the_offline_model_too(tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "PARLEY_"))}
    program = (sys.executable, "-m", "parley_server", "models", "check", "--data-dir", str(tmp_path))
    process = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE, env=clean, cwd=tmp_path)
    said, _ = await process.communicate()
    assert (process.returncode, b"the profile is right" in said) == (AGREES, True), said
