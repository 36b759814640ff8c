"""Hold the house's wall: no Python module of ours is longer than 400 lines."""

import subprocess
import sys
from pathlib import Path

WALL = 400
EXEMPT = ("protos/gen/", "server/src/parley_server/storage/sql/migrations/")


def main() -> int:
    """List the modules over the wall; return the exit code."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        check=True,
        capture_output=True,
        text=True,
    )
    paths = [Path(line) for line in listed.stdout.splitlines() if not line.startswith(EXEMPT)]
    over = [(path, lines) for path in paths if path.exists() and (lines := _lines(path)) > WALL]
    for path, lines in over:
        print(f"{path}: {lines} lines, the wall is {WALL}: which second reason crept in?", file=sys.stderr)
    return 1 if over else 0


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


if __name__ == "__main__":
    sys.exit(main())
