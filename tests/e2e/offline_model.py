"""A model that plays a script, in a process of its own: for servers that tests without an event loop begin."""

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nursery import begun


@contextmanager
def offline_model(folder: Path, script: str) -> Iterator[str]:
    """Play a script, in YAML; yields the base URL."""
    file, log = folder / "script.yaml", folder / "model.log"
    file.write_text(script, encoding="utf-8")
    program = [sys.executable, "-m", "parley_server", "offline-model", "--listen", "127.0.0.1:0"]
    process = begun([*program, "--script", str(file)], os.environ, folder, log, log)
    try:
        deadline = time.monotonic() + 30
        while not (found := re.search(r"http://[\d.:]+/v1", log.read_text("utf-8") if log.exists() else "")):
            assert process.poll() is None, log.read_text("utf-8")
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield found[0]
    finally:
        process.send_signal(15)
        process.wait()
