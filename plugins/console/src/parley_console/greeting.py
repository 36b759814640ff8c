"""The first lines of a chat."""

from parley.v1.admin_service_pb2 import GetServerInfoResponse

from parley_console.screen import Style
from parley_console.terminal import Terminal


def greet(server: GetServerInfoResponse, agent: str, terminal: Terminal) -> None:
    """Say who answers: the server's version, the agent, the model, and plainly when a script stands in for one."""
    if server.offline_model:
        terminal.line(f"Parley {server.version} · agent {agent} · offline model")
        terminal.line(
            "No model is configured: a script answers here and no AI. "
            "Set OPENAI_API_KEY for the server and start it again.",
            Style.YELLOW,
        )
    else:
        terminal.line(f"Parley {server.version} · agent {agent} · model {server.default_model}")
    terminal.line("/help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves", Style.DIM)
