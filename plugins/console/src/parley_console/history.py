"""Where the lines typed at the prompt are kept."""

import os
from collections.abc import Mapping
from pathlib import Path

from prompt_toolkit.history import FileHistory, History, InMemoryHistory


def open_history(environment: Mapping[str, str] = os.environ) -> History:
    """Open the user's history, readable for him alone; where there is no place for a file, one that dies with us."""
    path = history_path(environment)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
    except OSError:
        return InMemoryHistory()
    return FileHistory(path)


def history_path(environment: Mapping[str, str]) -> Path:
    """Return the history's file: below XDG_STATE_HOME, else below ~/.local/state."""
    state_home = environment.get("XDG_STATE_HOME", "")
    base = Path(state_home) if state_home.startswith("/") else Path.home() / ".local" / "state"
    return base / "parley" / "console_history"
