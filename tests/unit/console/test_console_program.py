"""The program itself, as a shell runs it."""

import asyncio
import json
import os
import shlex
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio
from parley_console.version import VERSION
from unit.client.event_log import answered
from unit.client.scripted_server import ScriptedRun, serving

QUESTION_LIMIT = 256 * 1024


@dataclass
class Finished:
    code: int
    out: str
    err: str


PARLEY = (sys.executable, "-m", "parley_console")


async def start(*command: str, target: str = "", **environment: str) -> asyncio.subprocess.Process:
    """Start a program in an environment that knows of no other server."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")}
    env = {**inherited, "PARLEY_TARGET": target, **environment}
    return await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=env)


async def parley(*arguments: str, target: str = "", stdin: bytes = b"", importtime: str = "") -> Finished:
    process = await start(*PARLEY, *arguments, target=target, PYTHONPROFILEIMPORTTIME=importtime)
    out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(), err.decode())


@pytest_asyncio.fixture
async def echo() -> AsyncIterator[tuple[ScriptedRun, str]]:
    """A server that answers 391, and its address."""
    run = ScriptedRun(answered("It is ", "391."))
    async with serving(run) as address:
        yield run, address


async def test_the_version_is_told_without_grpc() -> None:
    told = await parley("--version")
    assert (told.code, told.out) == (0, f"parley, version {VERSION}\n")
    imported = await parley("--version", importtime="1")
    modules = {line.rpartition("|")[2].strip() for line in imported.err.splitlines()}
    assert "click" in modules
    assert not modules & {"grpc", "parley_client", "prompt_toolkit", "rich"}


async def test_ask_imports_nothing_of_the_chat(echo: tuple[ScriptedRun, str]) -> None:
    asked = await parley("ask", "hi", target=echo[1], importtime="1")
    modules = {line.rpartition("|")[2].strip() for line in asked.err.splitlines()}
    assert "grpc" in modules
    assert not modules & {"prompt_toolkit", "rich"}


async def test_a_question_as_an_argument(echo: tuple[ScriptedRun, str]) -> None:
    asked = await parley("ask", "What", "is", "17 * 23?", target=echo[1])
    assert (asked.code, asked.out, asked.err) == (0, "It is 391.\n", "")


@pytest.mark.parametrize("arguments", [("ask",), ("ask", "-"), ()])
async def test_a_question_from_a_pipe(arguments: tuple[str, ...], echo: tuple[ScriptedRun, str]) -> None:
    asked = await parley(*arguments, stdin=b"What is 17 * 23?\n", target=echo[1])
    assert (asked.code, asked.out) == (0, "It is 391.\n")


async def test_an_argument_leaves_standard_input_alone(echo: tuple[ScriptedRun, str]) -> None:
    process = await start(*PARLEY, "ask", "hi", target=echo[1])
    assert process.stdout is not None
    async with asyncio.timeout(10):
        assert await process.stdout.read() == b"It is 391.\n"
        assert await process.wait() == 0


async def test_a_reader_that_goes_away_is_no_failure() -> None:
    pieces = [f"{'x' * 1000}{n}\n" for n in range(500)]
    async with serving(ScriptedRun(answered(*pieces))) as address:
        pipeline = f"{shlex.join(PARLEY)} ask hi | head -n 1; exit ${{PIPESTATUS[0]}}"
        process = await start("bash", "-c", pipeline, target=address)
        out, err = await process.communicate()
    assert (process.returncode, out, err) == (0, pieces[0].encode(), b"")


async def test_the_options_of_the_connection_stand_before_or_after_the_command(
    echo: tuple[ScriptedRun, str],
) -> None:
    run, target = echo
    for arguments in (
        ("--target", target, "--api-key", "k", "ask", "hi", "--json"),
        ("--target", "127.0.0.1:1", "ask", "--target", target, "--api-key", "k", "--json", "hi"),
    ):
        asked = await parley(*arguments)
        assert json.loads(asked.out)["output_text"] == "It is 391."
    assert {("authorization", "Bearer k") in call.metadata for call in run.calls} == {True}


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (("ask",), b""),
        (("ask",), b" \n"),
        (("ask", " "), b""),
        (("ask",), b"\xff\xfe"),
        (("ask", "\udcff"), b""),
        (("ask", "hi", "--agent", "\udcff"), b""),
        (("ask",), b"x" * (QUESTION_LIMIT + 1)),
        (("ask", "hi", "--deadline", "soon"), b""),
        (("ask", "hi", "--unknown"), b""),
        (("ask", "hi", "--approvals", "maybe"), b""),
        (("tools", "settle", "call_1", "maybe"), b""),
        (("ask", "hi", "--root-certificates", "/nowhere"), b""),
        (("ask", "hi", "--target", "example.org:1", "--api-key", "secret"), b""),
        (("unknown",), b""),
        (("-r",), b"hi"),
        (("-c", "ask", "hi"), b""),
        (("completion", "csh"), b""),
    ],
)
async def test_bad_usage_is_64(arguments: tuple[str, ...], stdin: bytes) -> None:
    refused = await parley(*arguments, stdin=stdin)
    assert (refused.code, refused.out) == (64, "")
    assert "Error: " in refused.err
    assert "secret" not in refused.err
    assert "Traceback" not in refused.err


@pytest.mark.parametrize(
    ("shell", "begins"), [("bash", "_parley_completion"), ("zsh", "#compdef"), ("fish", "function")]
)
async def test_shells_can_complete(shell: str, begins: str) -> None:
    printed = await parley("completion", shell)
    assert (printed.code, printed.out.strip().startswith(begins)) == (0, True)
    assert "_PARLEY_COMPLETE" in printed.out


async def test_completion_offers_commands_and_options_without_grpc() -> None:
    process = await start(
        *PARLEY,
        _PARLEY_COMPLETE="bash_complete",
        COMP_WORDS="parley ask --str",
        COMP_CWORD="2",
        PYTHONPROFILEIMPORTTIME="1",
    )
    out, err = await process.communicate()
    assert out == b"plain,--stream-json\n"
    assert b"grpc" not in err


async def test_no_server_is_69(unused_tcp_port: int) -> None:
    refused = await parley("ask", "hi", "--target", f"127.0.0.1:{unused_tcp_port}")
    assert (refused.code, refused.out) == (69, "")
    assert refused.err.startswith(f"parley: no server answers at 127.0.0.1:{unused_tcp_port}: ")
    assert refused.err.count("\n") == 1


async def test_a_question_that_does_not_come_is_asked_for_and_ctrl_c_is_130() -> None:
    process = await start(*PARLEY, "ask")
    assert process.stderr is not None
    assert await process.stderr.readline() == b"parley: waiting for the question on standard input\n"
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 130
    assert (await process.stderr.read()).strip() == b""
