"""The first lines of a chat."""

from parley.v1.admin_service_pb2 import GetServerInfoResponse

from parley_console.screen import Screen, Style


def greet(server: GetServerInfoResponse, screen: Screen) -> None:
    """Say who answers: the server's version, the agent, the model, and plainly when a script stands in for one."""
    if server.offline_model:
        screen.line(f"Parley {server.version} · agent {server.default_agent_id} · offline model")
        screen.line(
            "No model is configured: a script answers here and no AI. "
            "Set OPENAI_API_KEY for the server and start it again.",
            Style.YELLOW,
        )
    else:
        screen.line(f"Parley {server.version} · agent {server.default_agent_id} · model {server.default_model}")
    screen.line("/help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves", Style.DIM)
