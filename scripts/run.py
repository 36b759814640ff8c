"""Start a server and the console on it: what `make run` does. A server that dies is started again.

Standard output belongs to the console: with piped input it holds the answer alone. The server's log goes to
`server.log` in the data directory. When a server holds the data directory already, only the console is opened.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from parley_server.settings import default_data_dir
from parley_server.storage.sql.lock_file import live_holder, read_holder

LISTEN = "127.0.0.1:50051"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
# One that dies sooner would die again.
MIN_LIFE_S = 2.0


def main() -> int:
    """Run the console and return its exit code."""
    data_dir = default_data_dir()
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    holder = live_holder(data_dir / "server.lock")
    if holder is not None and holder.address:
        _say(f"a server on {data_dir} listens on {holder.address}; opening the console on it")
        return _console(holder.address)
    with _server(data_dir) as address:
        return _console(address)


@contextlib.contextmanager
def _server(data_dir: Path) -> Iterator[str]:
    """Run a server for a block, again when it dies; yields its address."""
    log_path = data_dir / "server.log"
    server = _start(data_dir, log_path, _free_listener())
    stopping = threading.Event()

    def keep(address: str) -> None:
        nonlocal server
        began = time.monotonic()
        while server.wait() is not None and not stopping.is_set() and time.monotonic() - began > MIN_LIFE_S:
            began = time.monotonic()
            server = _start(data_dir, log_path, address)
        if stopping.is_set():
            server.terminate()

    try:
        address = _wait_for(server, data_dir, log_path)
        threading.Thread(target=keep, args=(address,), daemon=True).start()
        yield address
    finally:
        stopping.set()
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            server.kill()


def _start(data_dir: Path, log_path: Path, listen: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "parley_server", "serve", "--listen", listen, "--data-dir", str(data_dir)]
    with log_path.open("ab") as log:
        # Ctrl-C in the console is the console's.
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def _wait_for(server: subprocess.Popen[bytes], data_dir: Path, log_path: Path) -> str:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and server.poll() is None:
        holder = read_holder(data_dir / "server.lock")
        if holder is not None and holder.pid == server.pid and holder.address:
            return holder.address
        time.sleep(0.02)
    last_lines = "\n".join(log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
    sys.exit(f"parley: the server did not start; the end of {log_path}:\n{last_lines}")


def _free_listener() -> str:
    """Return the usual listener, or a free port where somebody has that one."""
    host, port = LISTEN.split(":")
    with socket.socket() as probe:
        try:
            probe.bind((host, int(port)))
        except OSError:
            _say(f"{LISTEN} is taken; listening on a free port")
            return f"{host}:0"
    return LISTEN


def _console(address: str) -> int:
    console = Path(sys.executable).with_name("parley")
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return subprocess.run(
            [console],
            check=False,
            env={**os.environ, "PARLEY_TARGET": address},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ).returncode
    finally:
        signal.signal(signal.SIGINT, previous)


def _say(text: str) -> None:
    print(f"parley: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
