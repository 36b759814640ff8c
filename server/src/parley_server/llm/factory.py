"""Builds what asks the models: one client for every model server, and the way from a model's name to it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from parley_server.llm.fallback_service import FallbackService
from parley_server.llm.model_catalog import ANY_MODEL, ModelCatalog, Profiles, catalog_of, profiles_of
from parley_server.llm.model_service import ModelService
from parley_server.llm.model_settings import ModelServerSettings, ModelSettings, ProviderSettings
from parley_server.llm.offline.script import load_script
from parley_server.llm.offline.server import OFFLINE_MODEL_NAME, OfflineModelServer
from parley_server.llm.openai_service import OpenAIService
from parley_server.llm.provider_profiles import kind_of
from parley_server.llm.resilient_service import ResilientService
from parley_server.llm.retry import IMPATIENT_S, MAX_RETRY_AFTER_S, RetryPolicy
from parley_server.llm.router import MAIN_PROVIDER, ModelRouter, Provider
from parley_server.metrics.recorder import SILENT, Recorder

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Models:
    """What asks the models, and which of them callers may name; the first is the default.

    By the `profiles` conversations are made to fit their models' windows; None: they are not.
    """

    service: ModelService
    catalog: ModelCatalog
    is_offline: bool
    profiles: Profiles | None = None


@asynccontextmanager
async def open_models(
    main: ModelSettings | None, providers: Mapping[str, ProviderSettings], recorder: Recorder = SILENT
) -> AsyncIterator[Models]:
    """Open the way to the models for a block; without a main server to the offline one."""
    if main is None:
        async with offline_model() as offline:
            _log.warning("offline_model", hint="no AI answers: set OPENAI_API_KEY or [model] base_url to connect one")
            async with _opened(offline, providers, recorder, is_offline=True) as models:
                yield models
    else:
        async with _opened(main, providers, recorder, is_offline=False) as models:
            yield models


@asynccontextmanager
async def offline_model() -> AsyncIterator[ModelSettings]:
    """Serve the offline model for a block; yield the settings that ask it."""
    async with OfflineModelServer(load_script()) as upstream:
        # Its script says what fails, and that is to be seen; it answers to any name.
        yield ModelSettings(base_url=upstream.base_url, name=OFFLINE_MODEL_NAME, retries=0, allowed=(ANY_MODEL,))


@asynccontextmanager
async def _opened(
    main: ModelSettings, providers: Mapping[str, ProviderSettings], recorder: Recorder, *, is_offline: bool
) -> AsyncIterator[Models]:
    service = build_model_service(main, providers, recorder)
    try:
        profiles = profiles_of(main, providers) if main.compact else None
        yield Models(service, catalog_of(main, providers), is_offline, profiles)
    finally:
        await service.aclose()


def build_model_service(
    main: ModelSettings, providers: Mapping[str, ProviderSettings], recorder: Recorder = SILENT
) -> ModelService:
    """Build it inside a running event loop; every server is asked as patiently as its settings want."""
    max_retry_after_s = IMPATIENT_S if main.fallbacks else MAX_RETRY_AFTER_S

    def provider(name: str, settings: ModelServerSettings, models: Sequence[str]) -> Provider:
        # What is left out of a request, and what is refused, depends on it.
        _log.info("model_server", provider=name, kind=settings.profile.kind or kind_of(settings.base_url))
        policy = RetryPolicy(settings.retries, max_retry_after_s)
        return Provider(name, ResilientService(OpenAIService(settings), name, policy, models, recorder))

    further = {name: provider(name, settings, settings.models) for name, settings in providers.items()}
    by_model = {model: further[name] for name, settings in providers.items() for model in settings.models}
    exact = (pattern for pattern in main.allowed if not pattern.endswith("*"))
    known = [model for model in (main.name, *main.fallbacks, *exact) if model not in by_model]
    service: ModelService = ModelRouter(provider(MAIN_PROVIDER, main, known), by_model)
    return FallbackService(service, main.fallbacks) if main.fallbacks else service
