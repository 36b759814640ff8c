"""The program `parley`."""

import os
import sys


def main() -> int:
    """Run the program; returns its exit code."""
    # gRPC's core writes to the terminal past every logger, and reads this when it is first imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from parley_console.cli import run  # noqa: PLC0415 - after the line above

        return run(sys.argv[1:])
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
