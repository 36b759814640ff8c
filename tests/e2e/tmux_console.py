"""The console in tmux: a real terminal whose screen and scrollback can be read."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

needs_tmux: Final = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")

_WAIT_S: Final = 30.0
_COLUMNS: Final = 100


class Tmux:
    """A tmux server of its own with one window."""

    def __init__(self, sockets: Path, environment: Mapping[str, str], *arguments: str) -> None:
        self._socket = str(sockets / "tmux")
        self._environment = {**environment, "TERM": "xterm-256color"}
        # The window outlives the console, so that what it left can be read.
        command = ["sh", "-c", '"$@"; echo "exit code $?"; exec cat', "sh", sys.executable, "-m", "parley_console"]
        size = ["-x", str(_COLUMNS), "-y", "30"]
        self._run("-f", "/dev/null", "new-session", "-d", "-s", "s", *size, *command, *arguments)

    def types(self, text: str) -> None:
        """Type a text as it is."""
        self._run("send-keys", "-t", "s", "-l", text)

    def presses(self, *keys: str) -> None:
        """Press keys by tmux's names for them."""
        self._run("send-keys", "-t", "s", *keys)

    def asks(self, text: str) -> None:
        """Type a text and send it."""
        self.types(text)
        self.presses("Enter")

    def pastes(self, text: str) -> None:
        """Paste as terminals do, in brackets."""
        self._run("set-buffer", "-b", "paste", text)
        self._run("paste-buffer", "-p", "-r", "-b", "paste", "-t", "s")

    def resizes(self, columns: int) -> None:
        """Make the window as wide as that."""
        self._run("resize-window", "-t", "s", "-x", str(columns))

    def screen(self) -> str:
        """Return what is to be seen."""
        return self._run("capture-pane", "-p", "-t", "s")

    def history(self, *, escapes: bool = False) -> str:
        """Return all that was ever written and not erased, rows that the terminal wrapped joined again."""
        captured = self._run("capture-pane", "-p", "-J", "-S", "-", "-t", "s", *(["-e"] if escapes else []))
        return re.sub(" +$", "", captured, flags=re.MULTILINE)

    def sees(self, text: str, *, times: int = 1) -> None:
        """Wait until a text stands in the history so many times."""
        deadline = time.monotonic() + _WAIT_S
        while (history := self.history()).count(text) < times:
            assert time.monotonic() < deadline, f"{text!r} did not come {times}x:\n{history}"
            time.sleep(0.03)

    def shows(self, text: str) -> None:
        """Wait until a text is to be seen now."""
        deadline = time.monotonic() + _WAIT_S
        while text not in (screen := self.screen()):
            assert time.monotonic() < deadline, f"{text!r} is not shown:\n{screen}"
            time.sleep(0.03)

    def ends(self) -> int:
        """Wait for the console's end; returns its exit code."""
        self.sees("exit code ")
        return int(self.history().rpartition("exit code ")[2].split()[0])

    def close(self) -> None:
        """End the window and all in it."""
        self._run("kill-server")

    def _run(self, *arguments: str) -> str:
        return subprocess.run(
            ["tmux", "-S", self._socket, *arguments],
            env=self._environment,
            check=True,
            capture_output=True,
            encoding="utf-8",
        ).stdout


@contextmanager
def console(address: str, home: Path, *arguments: str, **extra: str) -> Iterator[Tmux]:
    """Run `parley` with these arguments for a block; it has shown its prompt when the block begins."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("PARLEY_", "TMUX", "NO_COLOR"))
    }
    home.mkdir(parents=True, exist_ok=True)
    environment = {**inherited, "PARLEY_TARGET": address, "HOME": str(home), "XDG_STATE_HOME": "", **extra}
    with tempfile.TemporaryDirectory() as sockets:  # tmp_path is too long for a socket
        tmux = Tmux(Path(sockets), environment, *arguments)
        try:
            tmux.sees("Ctrl-D leaves")
            yield tmux
        finally:
            tmux.close()
