"""The program `parley-server`."""

import os


def main() -> None:
    """Run the program."""
    # gRPC's core writes to standard error past all logging, whatever a client does wrong, and reads this only when it
    # is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from parley_server.cli import cli  # noqa: PLC0415  # after the line above

    cli(prog_name="parley-server")


if __name__ == "__main__":
    main()
