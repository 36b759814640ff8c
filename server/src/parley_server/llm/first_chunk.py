"""Where a model's answer begins: until then another call can take its place, and nobody notices."""

from collections.abc import AsyncGenerator

from parley_server.llm.model_errors import incomplete
from parley_server.llm.model_service import ModelChunk


async def first_chunk(chunks: AsyncGenerator[ModelChunk]) -> ModelChunk:
    """Return the first chunk; when this raises, nothing of the stream is left open.

    Raises:
        ModelError: as `ModelService.stream` does.
    """
    async for chunk in chunks:
        return chunk
    raise incomplete()
