"""Start of a server: from the command to SERVING, and memory then, with a fresh and with a used data directory.

    python benchmarks/start.py [rounds]

SERVING is when the server publishes its address, which it does once health says so. Memory is VmRSS, then and after
a first answer (the model client loads behind the start).
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from parley_client import ParleyClient
from parley_server.storage.sql.lock_file import read_holder


def start(data_dir: Path) -> tuple[subprocess.Popen[bytes], str, float]:
    """Start a server; return it, its address and the seconds it took."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "PARLEY_"))}
    began = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, "-m", "parley_server", "serve", "--listen", "127.0.0.1:0", "--data-dir", str(data_dir)],
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    while True:
        holder = read_holder(data_dir / "server.lock")
        if holder is not None and holder.pid == server.pid and holder.address:
            return server, holder.address, time.perf_counter() - began
        if server.poll() is not None:
            sys.exit("the server did not start")
        time.sleep(0.002)


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise LookupError("no VmRSS")


async def first_answer(address: str) -> float:
    """Ask once; return the seconds to the end of the answer."""
    async with ParleyClient(address) as parley:
        began = time.perf_counter()
        async with parley.run("hello") as run:
            async for _ in run:
                pass
        return time.perf_counter() - began


def measure(data_dir: Path) -> tuple[float, float, float, float]:
    """Return seconds to SERVING, MiB then, seconds of the first answer, MiB after it."""
    server, address, seconds = start(data_dir)
    try:
        at_start = rss_mib(server.pid)
        answered = asyncio.run(first_answer(address))
        return seconds, at_start, answered, rss_mib(server.pid)
    finally:
        server.terminate()
        server.wait(20)


def main() -> None:
    """Print a row per kind of data directory, medians over the rounds."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    rows: dict[str, list[tuple[float, float, float, float]]] = {"fresh": [], "used": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            rows["fresh"].append(measure(Path(folder)))
            rows["used"].append(measure(Path(folder)))
    print(f"{'data directory':<16}{'to SERVING s':>14}{'RSS MiB':>10}{'first answer s':>16}{'RSS after MiB':>15}")
    for name, measured in rows.items():
        serving, at_start, answered, after = (statistics.median(column) for column in zip(*measured, strict=True))
        print(f"{name:<16}{serving:>14.2f}{at_start:>10.0f}{answered:>16.2f}{after:>15.0f}")


if __name__ == "__main__":
    main()
