"""The way from a model's name to its server, and a user's key on the way."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import pytest
from model_server import ModelServer
from parley_server.domain.errors import Reason
from parley_server.llm.factory import build_model_service
from parley_server.llm.model_service import FinishChunk, ModelChunk, ModelCredential, ModelError, ModelService
from parley_server.llm.model_settings import ProviderSettings
from pydantic import SecretStr
from unit.llm.service_calls import CONTEXT, HELLO

CALLS, AT_ONCE = 200, 10


@asynccontextmanager
async def service_of(upstream: ModelServer, second: ModelServer, **main: object) -> AsyncIterator[ModelService]:
    further = ProviderSettings.model_validate(
        {"base_url": second.base_url, "api_key": "sk-second", "models": ("theirs", "theirs-too")}
    )
    service = build_model_service(upstream.settings(**main), {"second": further})
    try:
        yield service
    finally:
        await service.aclose()


async def ask(service: ModelService, model: str, credential: ModelCredential | None = None) -> list[ModelChunk]:
    request = replace(HELLO, model=model, credential=credential)
    async with aclosing(service.stream(CONTEXT, request)) as chunks:
        return [chunk async for chunk in chunks]


def own_key(provider: str, text: str) -> ModelCredential:
    return ModelCredential(provider, SecretStr(text))


@pytest.fixture
async def second() -> AsyncIterator[ModelServer]:
    async with ModelServer() as server:
        yield server


async def test_a_model_is_asked_where_it_is_listed_and_any_other_at_the_main_server(
    upstream: ModelServer, second: ModelServer
) -> None:
    async with service_of(upstream, second) as service:
        for model in ("theirs", "offline", "theirs-too", "anything"):
            assert isinstance((await ask(service, model))[-1], FinishChunk)
    asked = [(request.body["model"], request.headers["Authorization"]) for request in second.requests]
    assert asked == [("theirs", "Bearer sk-second"), ("theirs-too", "Bearer sk-second")]
    assert [request.body["model"] for request in upstream.requests] == ["offline", "anything"]
    assert {request.headers["Authorization"] for request in upstream.requests} == {"Bearer sk-test"}


@pytest.mark.parametrize("settings_key", ["sk-test", ""])
async def test_keys_of_users_never_cross_on_the_shared_connections(
    upstream: ModelServer, second: ModelServer, settings_key: str
) -> None:
    """Every call names its user in the model's name, which the server sees beside the key."""
    async with service_of(upstream, second, api_key=settings_key) as service:

        async def call(number: int) -> None:
            user = ("ann", "bob", "")[number % 3]
            await ask(service, f"model-of-{user}", own_key("default", f"sk-{user}") if user else None)

        for first in range(0, CALLS, AT_ONCE):
            await asyncio.gather(*(call(number) for number in range(first, first + AT_ONCE)))
    seen = {(request.body["model"], request.headers.get("Authorization")) for request in upstream.requests}
    without = ("model-of-", "Bearer sk-test" if settings_key else None)
    assert seen == {("model-of-ann", "Bearer sk-ann"), ("model-of-bob", "Bearer sk-bob"), without}
    assert len(upstream.requests) == CALLS
    by_connection = Counter(peer for peer, _ in {(each.peer, each.body["model"]) for each in upstream.requests})
    assert max(by_connection.values()) == 3, "no connection was used by all"


@pytest.mark.parametrize(("model", "provider"), [("theirs", "default"), ("offline", "second")])
async def test_a_users_key_is_sent_to_no_other_provider(
    upstream: ModelServer, second: ModelServer, model: str, provider: str
) -> None:
    async with service_of(upstream, second) as service:
        with pytest.raises(ModelError) as raised:
            await ask(service, model, own_key(provider, "sk-ann"))
        assert raised.value.reason == Reason.MODEL_AUTHENTICATION_FAILED
    assert upstream.requests + second.requests == []


async def test_a_users_key_does_not_follow_a_fall_back_to_another_provider(
    upstream: ModelServer, second: ModelServer
) -> None:
    gone = ModelServer()
    async with gone:
        address = gone.base_url
    settings = {"base_url": address, "fallbacks": ("theirs",), "retries": 0}
    async with service_of(upstream, second, **settings) as service:
        assert len(await ask(service, "offline")) > 1
        with pytest.raises(ModelError) as raised:
            await ask(service, "offline", own_key("default", "sk-ann"))
        assert raised.value.reason == Reason.MODEL_UNAVAILABLE
    assert [request.headers["Authorization"] for request in second.requests] == ["Bearer sk-second"]
