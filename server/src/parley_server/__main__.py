"""The program `parley-server`."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from parley_server.signals import ProcessSignals


def main() -> None:
    """Run the program."""
    signals = ProcessSignals()
    if sys.argv[1:2] == ["serve"]:
        # The imports below take most of a second, in which a signal would end the process in its own way.
        signals.catch()
        # What they build stays for ever: the server turns the collector on once all of it is there.
        gc.disable()
    # gRPC's core writes to standard error past all logging, whatever a client does wrong, and reads this only when it
    # is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    with _unseen("rich"):
        # It takes 3 MiB of that where it finds it, for colours that a server's log has none of.
        import structlog  # noqa: F401, PLC0415
    from parley_server.cli import cli  # noqa: PLC0415  # after the line above

    cli(prog_name="parley-server", obj=signals)


@contextmanager
def _unseen(module: str) -> Iterator[None]:
    """Keep a package from being found for a block."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # the import system's own sign for it
    try:
        yield
    finally:
        del sys.modules[module]


if __name__ == "__main__":
    main()
