"""The program `parley-server`."""

import os
import sys

from parley_server.signals import ProcessSignals


def main() -> None:
    """Run the program."""
    signals = ProcessSignals()
    if sys.argv[1:2] == ["serve"]:
        # The imports below take most of a second, in which a signal would end the process in its own way.
        signals.catch()
    # gRPC's core writes to standard error past all logging, whatever a client does wrong, and reads this only when it
    # is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from parley_server.cli import cli  # noqa: PLC0415  # after the line above

    cli(prog_name="parley-server", obj=signals)


if __name__ == "__main__":
    main()
