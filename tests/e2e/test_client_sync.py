"""The blocking client against the real server."""

import inspect
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import parley_client
import pytest
from parley.v1.run_pb2 import RUN_STATE_CANCELLED, RUN_STATE_SUCCEEDED
from parley_client import NotFoundError, ReconnectLimits, UnavailableError, sync
from parley_client.loop_thread import LOOP_THREAD
from parley_client.sync import ParleyClient
from run_history import check_run
from server_process import ServerProcess

ROOT = Path(__file__).resolve().parents[2]
FACES = [
    (sync.ParleyClient, parley_client.ParleyClient),
    (sync.RunStream, parley_client.RunStream),
    (sync.Conversations, parley_client.Conversations),
    (sync.Accounts, parley_client.Accounts),
    (sync.Approvals, parley_client.Approvals),
    (sync.Tools, parley_client.Tools),
]
# The attributes that an asynchronous stream sets in its constructor.
SET_IN_CONSTRUCTORS = {"conversation_id", "finished", "target"}


def public(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


@pytest.mark.parametrize(("face", "behind"), FACES)
def test_the_faces_have_the_names_and_the_arguments_of_what_is_behind_them(face: type, behind: type) -> None:
    assert public(face) - {"behind"} - SET_IN_CONSTRUCTORS == public(behind)
    for name in public(behind):
        method = getattr(behind, name)
        if callable(method):
            blocking = getattr(face, name)
            assert list(inspect.signature(blocking).parameters) == list(inspect.signature(method).parameters)
            assert blocking.__doc__ == method.__doc__
            assert not inspect.iscoroutinefunction(blocking)


def test_a_run_is_followed_and_continued(server: ServerProcess) -> None:
    with ParleyClient(server.address, "") as client:
        assert client.target == server.address
        assert client.server_info().offline_model
        assert "assistant" in [agent.agent_id for agent in client.agents()]
        assert "calculator" in [tool.name for tool in client.tools.list()]
        assert list(client.approvals.list()) == []
        with client.run("What is 17 * 23?") as run:
            events = list(run)
        check_run(events)
        assert (run.text, run.error, run.last_seq) == ("17 * 23 = 391", None, len(events))
        assert run.finished is not None
        with client.run("And 2 + 2?", conversation_id=run.conversation_id) as second:
            assert second.wait().state == RUN_STATE_SUCCEEDED
        with client.watch(run.run_id, 2) as rest:
            assert list(rest) == events[2:]


def test_lists_are_iterators_that_may_be_left_early(server: ServerProcess) -> None:
    with ParleyClient(server.address, "") as client:
        conversation = client.conversations.create("Sums")
        for question in ("What is 1 + 1?", "What is 2 + 2?", "What is 3 + 3?"):
            with client.run(question, conversation_id=conversation.conversation_id) as run:
                run.wait()
        messages = list(client.conversations.messages(conversation.conversation_id, page_size=2))
        assert len(messages) > 3
        assert len(list(client.list_runs(conversation_id=conversation.conversation_id))) == 3
        conversations = client.conversations.list(page_size=1)
        assert next(conversations).conversation_id == conversation.conversation_id
        assert client.conversations.get(conversation.conversation_id).title == "Sums"


def test_threads_share_a_client_and_one_cancels_what_another_reads(server: ServerProcess) -> None:
    with ParleyClient(server.address, "") as client:
        with ThreadPoolExecutor(4) as threads:
            sums = range(8)
            answers = list(threads.map(lambda number: _ask(client, f"What is {number} + 1?"), sums))
        assert answers == [f"{number} + 1 = {number + 1}" for number in sums]
        with client.run("Tell me a story") as run:
            canceller = threading.Timer(0.2, run.cancel)
            canceller.start()
            assert run.wait().state == RUN_STATE_CANCELLED
            canceller.join()


def _ask(client: ParleyClient, question: str) -> str:
    with client.run(question) as run:
        run.wait()
    return run.text


def test_errors_are_those_of_the_other_client(server: ServerProcess, unused_tcp_port: int) -> None:
    with ParleyClient(server.address, "") as client, pytest.raises(NotFoundError):
        client.get_run("run_absent")
    limits = ReconnectLimits(connect_for_s=0.1)
    with ParleyClient(f"127.0.0.1:{unused_tcp_port}", "", reconnect=limits) as client, pytest.raises(UnavailableError):
        client.run("hello").__enter__()
    with pytest.raises(RuntimeError, match="not open"):
        client.get_run("run_absent")
    with pytest.raises(ValueError, match="without TLS"):
        ParleyClient("example.org:443", "key")


def test_a_stream_goes_on_over_a_crash_and_says_so(own_server: ServerProcess) -> None:
    heard: list[str] = []
    with (
        ParleyClient(own_server.address, "") as client,
        client.run("Please count to 50", on_reconnect=lambda error, _: heard.append(error.code.name)) as run,
    ):
        events = []
        for event in run:
            events.append(event)
            if event.seq == 8:
                own_server.kill()
                own_server.start()
    check_run(events)
    assert heard


def test_a_callback_that_calls_its_client_is_refused(own_server: ServerProcess) -> None:
    refusals: list[str] = []

    def call_back(*_: object) -> None:
        try:
            client.agents()
        except RuntimeError as error:
            refusals.append(str(error))

    with (
        ParleyClient(own_server.address, "") as client,
        client.run("Please count to 50", on_reconnect=call_back) as run,
    ):
        next(run)
        own_server.kill()
        own_server.start()
        run.wait()
    assert "a callback of the client must not call it" in refusals[0]


def test_clients_share_one_thread_that_ends_with_the_last(server: ServerProcess) -> None:
    def threads() -> int:
        return sum(thread.name == "parley-client" for thread in threading.enumerate())

    with ParleyClient(server.address, "") as first, ParleyClient(server.address, "") as second:
        assert threads() == 1
        left = first.list_runs()
        next(left)
        assert second.server_info().version
    assert (threads(), LOOP_THREAD.is_running) == (0, False)
    left.close()


def test_ctrl_c_reaches_a_program_that_waits_for_an_event(server: ServerProcess, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, signal, threading\n"
        "from parley_client.sync import ParleyClient\n"
        f"with ParleyClient({server.address!r}, '') as client, client.run('Tell me a story') as run:\n"
        "    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "    try:\n"
        "        run.wait()\n"
        "    except KeyboardInterrupt:\n"
        "        print(run.cancel().run_id == run.run_id, run.wait().state)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)], check=True, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == (f"True {RUN_STATE_CANCELLED}\n", "")


def test_the_readmes_program_prints_the_answer(server: ServerProcess, tmp_path: Path) -> None:
    readme = (ROOT / "clients" / "python" / "README.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"A test runs this program. -->\n```python\n(.*?)```", readme, flags=re.DOTALL)
    program = tmp_path / "program.py"
    program.write_text(text, encoding="utf-8")
    environment = {**os.environ, "PARLEY_TARGET": server.address}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )
    assert done.stdout == "17 * 23 = 391\n"
