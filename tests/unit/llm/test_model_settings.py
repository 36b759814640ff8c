"""The settings of the model's server."""

import pytest
from parley_server.llm.model_settings import OFFICIAL_BASE_URL, ModelSettings
from pydantic import ValidationError


def test_defaults() -> None:
    settings = ModelSettings(name="m")
    assert (settings.base_url, settings.api_key.get_secret_value()) == (OFFICIAL_BASE_URL, "")


def test_the_slash_at_the_end_of_the_address_does_not_matter() -> None:
    assert ModelSettings(name="m", base_url="http://localhost:1/v1/").base_url == "http://localhost:1/v1"


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "localhost:1",
        "ftp://x",
        "http://",
        "http://x/v1?a=b",
        "http://x/#y",
        "http://x:0",
        "http://x:65536",
        "http://a..b/v1",
        f"http://{'a' * 64}.example/v1",
    ],
)
def test_what_is_no_web_address_is_refused(base_url: str) -> None:
    with pytest.raises(ValidationError):
        ModelSettings(name="m", base_url=base_url)


@pytest.mark.parametrize("key", ["sk secret", "sk-\u00e9", "sk-\x00", "sk-a\nb"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ValidationError) as raised:
        ModelSettings.model_validate({"name": "m", "api_key": key})
    assert key not in str(raised.value)


@pytest.mark.parametrize("field", ["connect_timeout_s", "first_event_timeout_s", "gap_timeout_s"])
@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_time_outs_are_real(field: str, seconds: float) -> None:
    with pytest.raises(ValidationError):
        ModelSettings.model_validate({"name": "m", field: seconds})


def test_the_key_is_not_in_the_representation() -> None:
    assert "sk-secret" not in repr(ModelSettings.model_validate({"name": "m", "api_key": "sk-secret"}))


def test_what_stands_for_a_port_is_not_repeated() -> None:
    with pytest.raises(ValidationError, match="must have a port") as raised:
        ModelSettings(name="m", base_url="http://user:geheim/v1")
    assert "geheim" not in str(raised.value)
