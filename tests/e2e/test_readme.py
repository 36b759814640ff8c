"""The README's program and commands do what the README says."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pexpect
import pytest
from server_process import ServerProcess

ROOT = Path(__file__).resolve().parents[2]


def test_the_readmes_program_prints_the_tool_call_the_answer_and_the_end(server: ServerProcess, tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert len([line for line in program.splitlines() if line.strip()]) <= 20
    script = tmp_path / "program.py"
    script.write_text(program, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PARLEY_TARGET": server.address},
    )
    call, answer, end = done.stdout.splitlines()
    assert call == '[calculator {"expression": "17 * 23"}]'
    assert answer == "17 * 23 = 391"
    assert re.fullmatch(r"\d+ events, \d+ tokens", end)


def make(home: Path, arguments: list[str], stdin: str) -> subprocess.CompletedProcess[str]:
    """Run make as a user in a fresh shell would, with a data directory of its own."""
    dropped = ("OPENAI_", "PARLEY_", "MAKE", "MFLAGS")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return subprocess.run(
        ["make", "-s", *arguments],
        check=False,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=110,
        cwd=ROOT,
        env={**environment, "PARLEY_HOME": str(home)},
    )


needs_set_up_checkout = pytest.mark.skipif(
    not (ROOT / ".venv" / "setup.stamp").exists(), reason="needs a checkout that `make setup` has set up"
)


@needs_set_up_checkout
@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is 17 * 23?", r"17 \* 23 = 391\n"),
        ("What time is it in Tokyo?", r"It is \d\d:\d\d on \w+day \d+ \w+ \d{4} in Tokyo\.\n"),
    ],
)
def test_make_run_answers_what_it_is_piped_and_prints_the_answer_alone(
    tmp_path: Path, question: str, answer: str
) -> None:
    done = make(tmp_path, ["run"], question + "\n")
    assert re.fullmatch(answer, done.stdout), (done.stdout, done.stderr)
    assert done.returncode == 0


@needs_set_up_checkout
def test_make_run_uses_the_server_that_holds_the_data_directory(own_server: ServerProcess) -> None:
    done = make(own_server.data_dir, ["run"], "What is 6 * 7?")
    assert (done.stdout, done.returncode) == ("6 * 7 = 42\n", 0)
    assert own_server.address in done.stderr
    assert own_server.is_running


@needs_set_up_checkout
def test_make_run_with_nothing_to_answer_fails_and_says_so(tmp_path: Path) -> None:
    done = make(tmp_path, ["run"], "")
    assert done.stdout == ""
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


def test_make_run_starts_a_server_that_dies_again(tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "PARLEY_"))}
    program = [str(ROOT / "scripts" / "run.py")]
    environment = {**clean, "PARLEY_HOME": str(tmp_path), "TERM": "xterm"}
    child = pexpect.spawn(
        sys.executable, program, env=environment, encoding="utf-8", timeout=60, dimensions=(40, 200), cwd=str(tmp_path)
    )
    try:
        child.expect_exact("you>")
        # One that dies at once is not started again.
        time.sleep(2.5)
        child.send("Tell me a long story\r")
        child.expect_exact("Once upon a time")
        os.kill(json.loads((tmp_path / "server.lock").read_text(encoding="utf-8"))["pid"], signal.SIGKILL)
        child.expect_exact("always ends the same way")
        child.send("\x04")
        child.expect(pexpect.EOF)
    finally:
        child.close(force=True)


def test_make_lists_its_targets(tmp_path: Path) -> None:
    listed = make(tmp_path, [], "").stdout
    for target in ("setup", "run", "test", "check", "generate"):
        assert f"make {target}" in listed
