"""A model that says what a test scripts, one step per call."""

from collections.abc import AsyncGenerator, Sequence

from parley_server.domain.context import RequestContext
from parley_server.domain.tool import ToolCall
from parley_server.domain.usage import Usage
from parley_server.llm.model_service import FinishChunk, FinishReason, ModelChunk, ModelRequest, TextChunk

Step = Sequence[ModelChunk | BaseException]


def say(*texts: str, reason: FinishReason = FinishReason.STOP, output_tokens: int = 1) -> Step:
    """Script an answer in pieces."""
    return [*map(TextChunk, texts), FinishChunk(reason, usage=Usage(input_tokens=10, output_tokens=output_tokens))]


def ask_for(*calls: tuple[str, str], text: str = "", output_tokens: int = 1) -> Step:
    """Script a step that calls tools: names and arguments in JSON."""
    made = tuple(ToolCall(f"provider_{n}", name, arguments) for n, (name, arguments) in enumerate(calls))
    chunks = [TextChunk(text)] if text else []
    usage = Usage(input_tokens=10, output_tokens=output_tokens)
    return [*chunks, FinishChunk(FinishReason.TOOL_CALLS, made, usage)]


class ScriptedModel:
    """Plays one step per call, the last one again and again; an exception in a step is raised there."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.requests: list[ModelRequest] = []
        self.open_streams = 0

    async def stream(self, context: RequestContext, request: ModelRequest) -> AsyncGenerator[ModelChunk]:  # noqa: ARG002
        step = self.steps[min(len(self.requests), len(self.steps) - 1)]
        self.requests.append(request)
        self.open_streams += 1
        try:
            for chunk in step:
                if isinstance(chunk, BaseException):
                    raise chunk
                yield chunk
        finally:
            self.open_streams -= 1

    async def aclose(self) -> None:
        """Nothing to close."""
