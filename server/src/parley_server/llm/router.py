"""A ModelService made of several: every model is asked at the provider that has it."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

from parley_server.domain.context import RequestContext
from parley_server.domain.errors import ErrorKind, Reason
from parley_server.llm.model_service import ModelChunk, ModelError, ModelRequest, ModelService, Remedy

# What the server of `[model]` is called where providers are told apart; none of `[providers]` may have the name.
MAIN_PROVIDER = "default"


@dataclass(frozen=True, slots=True)
class Provider:
    """A model server by its name, and what asks it."""

    name: str
    service: ModelService


class ModelRouter:
    """Asks `main` for every model that `by_model` does not name."""

    def __init__(self, main: Provider, by_model: Mapping[str, Provider]) -> None:
        self._by_model = dict(by_model)
        self._main = main

    def stream(self, context: RequestContext, request: ModelRequest) -> AsyncGenerator[ModelChunk]:
        """Ask the model's provider; see `ModelService.stream`.

        Raises:
            ModelError: MODEL_AUTHENTICATION_FAILED where the request's key is another provider's.
        """
        provider = self._by_model.get(request.model, self._main)
        if request.credential is not None and request.credential.provider != provider.name:
            return _refuse_foreign_key()
        return provider.service.stream(context, request)

    async def aclose(self) -> None:
        """Close the connections to all."""
        providers = {provider.name: provider for provider in (self._main, *self._by_model.values())}
        for provider in providers.values():
            await provider.service.aclose()


async def _refuse_foreign_key() -> AsyncGenerator[ModelChunk]:
    """Fail as any other stream does: when it is read."""
    nothing: tuple[ModelChunk, ...] = ()
    for chunk in nothing:
        yield chunk
    raise ModelError(
        ErrorKind.FAILED_PRECONDITION,
        Reason.MODEL_AUTHENTICATION_FAILED,
        "the key is for another model server",
        remedy=Remedy.ASK_ANOTHER,
    )
