"""Which models a caller may name, and what is known of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from parley_server.domain.errors import UnknownModelError
from parley_server.llm.model_settings import ModelServerSettings, ModelSettings, ProviderSettings
from parley_server.llm.provider_profiles import ProviderProfile, profile_of
from parley_server.llm.router import MAIN_PROVIDER

ANY_MODEL = "*"
MAX_MODELS = 1000


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """A model by its name, the provider it is asked at, and how it is asked there."""

    name: str
    provider: str
    profile: ProviderProfile


@dataclass(frozen=True, slots=True)
class ModelCatalog:
    """The models that a caller may name: the `models`, the server's default first, and what fits one of `patterns`."""

    models: tuple[ModelDescription, ...] = ()
    patterns: tuple[str, ...] = (ANY_MODEL,)

    def check(self, model: str) -> None:
        """Raise UnknownModelError for a model that a caller may not name."""
        named = any(model == each.name for each in self.models)
        if not named and not any(_fits(model, pattern) for pattern in self.patterns):
            raise UnknownModelError


Profiles = Callable[[str], ProviderProfile]


def profiles_of(main: ModelSettings, providers: Mapping[str, ProviderSettings]) -> Profiles:
    """Return what tells how a model is asked, by its name, whether it is listed or not."""
    servers = {model: provider for provider in providers.values() for model in provider.models}

    def profile(model: str) -> ProviderProfile:
        server: ModelServerSettings = servers.get(model, main)
        return profile_of(server.base_url, model, server.profile)

    return profile


def catalog_of(main: ModelSettings, providers: Mapping[str, ProviderSettings]) -> ModelCatalog:
    """Return what the settings let callers name: the default, the fall-backs, the providers' models, the allowed."""
    servers: dict[str, tuple[str, ModelServerSettings]] = {
        model: (name, provider) for name, provider in providers.items() for model in provider.models
    }
    exact = (pattern for pattern in main.allowed if not pattern.endswith("*"))
    models = dict.fromkeys((main.name, *main.fallbacks, *servers, *exact))
    return ModelCatalog(
        tuple(_description(model, *servers.get(model, (MAIN_PROVIDER, main))) for model in models),
        tuple(pattern for pattern in main.allowed if pattern.endswith("*")),
    )


def _description(model: str, provider: str, server: ModelServerSettings) -> ModelDescription:
    return ModelDescription(model, provider, profile_of(server.base_url, model, server.profile))


def _fits(model: str, pattern: str) -> bool:
    return model.startswith(pattern[:-1])
