"""What is known of a server by its address and the model's name, and how the settings correct it."""

from dataclasses import asdict, fields

import pytest
from parley_server.llm.profile_settings import ProfileSettings
from parley_server.llm.provider_profiles import ProviderProfile, kind_of, profile_of

NOTHING = ProfileSettings()
OPENAI = "https://api.openai.com/v1"


@pytest.mark.parametrize(
    ("base_url", "kind"),
    [
        (OPENAI, "openai"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("https://API.OpenAI.com./v1", "openai"),
        ("https://api.openai.com.example/v1", "unknown"),
        ("https://notapi.openai.com/v1", "unknown"),
        ("https://mine.openai.azure.com/openai/v1", "azure"),
        ("http://localhost:11434/v1", "ollama"),
        ("http://[::1]:1234/v1", "lm_studio"),
        ("http://localhost:8000/v1", "unknown"),
    ],
)
def test_the_address_tells_the_kind_of_server_where_it_can(base_url: str, kind: str) -> None:
    assert kind_of(base_url) == kind


@pytest.mark.parametrize(
    ("model", "sampling", "context_window"),
    [
        ("gpt-5", False, 400_000),
        ("gpt-5-mini-2025-08-07", False, 400_000),
        ("gpt-5-chat-latest", None, None),
        ("gpt-5.2", None, None),
        ("o3", False, 200_000),
        ("o4-mini", False, 200_000),
        ("gpt-4.1-nano", None, 1_047_576),
        ("omni", None, None),
    ],
)
def test_models_of_one_server_differ(model: str, sampling: bool | None, context_window: int | None) -> None:
    profile = profile_of(OPENAI, model, NOTHING)
    assert (profile.sampling, profile.context_window) == (sampling, context_window)
    assert profile_of("http://other/v1", model, NOTHING) == ProviderProfile()


def test_the_settings_correct_single_fields() -> None:
    settings = ProfileSettings(seed_field="none", sampling=True, context_window=5)
    known = asdict(profile_of(OPENAI, "gpt-5", NOTHING))
    assert asdict(profile_of(OPENAI, "gpt-5", settings)) == {
        **known,
        "seed_field": "none",
        "sampling": True,
        "context_window": 5,
    }


def test_the_settings_name_the_kind_and_its_models_are_known_then() -> None:
    proxied = profile_of("http://proxy/v1", "gpt-5", ProfileSettings(kind="openai"))
    assert proxied == profile_of(OPENAI, "gpt-5", NOTHING)


def test_every_field_can_be_corrected() -> None:
    assert [field.name for field in fields(ProviderProfile)] == list(ProfileSettings.model_fields)
