"""Tables of which there is one for every name the operator gives: `[providers.NAME]`."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from parley_server.settings import Settings, load_settings
from parley_server.settings_sources import ConfigError
from parley_server.settings_text import settings_text

SECRET = "sk-very-secret"
MAIN = '[model]\nbase_url = "http://main/v1"\nname = "m"\n'
GROQ = '[providers.groq]\nbase_url = "http://groq/v1"\nmodels = ["a", "b"]\n'


def load(tmp_path: Path, toml: str, environment: Mapping[str, str] | None = None) -> Settings:
    file = tmp_path / "given.toml"
    file.write_text(MAIN + toml, encoding="utf-8")
    return load_settings(config=file, data_dir=tmp_path, environment=environment or {})


def refused(tmp_path: Path, toml: str, environment: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, toml, environment)
    return str(error.value).splitlines()


def test_the_environment_adds_to_a_table_of_the_file_and_makes_its_own(tmp_path: Path) -> None:
    environment = {
        "PARLEY_PROVIDERS__GROQ__API_KEY": SECRET,
        "PARLEY_PROVIDERS__GROQ__MODELS": "c, d",
        "PARLEY_PROVIDERS__LM_STUDIO__BASE_URL": "http://lm/v1",
        "PARLEY_PROVIDERS__LM_STUDIO__MODELS": "e",
    }
    providers = load(tmp_path, GROQ, environment).providers
    assert list(providers) == ["groq", "lm_studio"]
    groq = providers["groq"]
    assert (groq.base_url, groq.api_key.get_secret_value(), groq.models) == ("http://groq/v1", SECRET, ("c", "d"))
    assert (providers["lm_studio"].base_url, providers["lm_studio"].models) == ("http://lm/v1", ("e",))


def test_a_secret_of_such_a_table_may_stand_in_a_file(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(SECRET, encoding="utf-8")
    key.chmod(0o600)
    for settings in (
        load(tmp_path, f'{GROQ}api_key_file = "{key}"'),
        load(tmp_path, GROQ, {"PARLEY_PROVIDERS__GROQ__API_KEY_FILE": str(key)}),
    ):
        assert settings.providers["groq"].api_key.get_secret_value() == SECRET
    both = refused(tmp_path, f'{GROQ}api_key_file = "{key}"\napi_key = "x"')
    assert both == [f"{tmp_path / 'given.toml'}: [providers.groq] api_key_file: api_key is set, too; keep one"]
    assert "[providers.groq] api_key_file: " in refused(tmp_path, f'{GROQ}api_key_file = "/absent"')[0]


def test_what_is_shown_is_a_configuration_that_gives_the_same_and_holds_no_secret(tmp_path: Path) -> None:
    settings = load(tmp_path, f'{GROQ}api_key = "{SECRET}"\n')
    assert SECRET not in settings_text(settings, with_secrets=False) + repr(settings)
    address = GROQ.replace("//groq", f"//user:{SECRET}@groq")
    assert 'base_url = "http://***@groq/v1"' in settings_text(load(tmp_path, address), with_secrets=False)
    shown = settings_text(settings, with_secrets=True)
    assert f'[providers.groq]\nbase_url = "http://groq/v1"\napi_key = "{SECRET}"' in shown
    copy = tmp_path / "copy.toml"
    copy.write_text(shown, encoding="utf-8")
    again = load_settings(config=copy, data_dir=tmp_path, environment={})
    assert settings_text(again, with_secrets=True).splitlines()[2:] == shown.splitlines()[2:]


def test_all_problems_of_all_tables_are_told_at_once(tmp_path: Path) -> None:
    toml = '[providers.a]\nbase_urll = "http://a"\nmodels = []\n[providers.b]\n[providers.B-C]\nmodels = ["x y"]\n'
    environment = {"PARLEY_PROVIDERS__D__API_KEY": f"{SECRET} x", "PARLEY_PROVIDERS__E": "x", "PARLEY_PROVIDERS_F": "x"}
    lines = refused(tmp_path, toml, environment)
    for words in (
        "given.toml: [providers.a] base_urll: there is no such key; did you mean base_url?",
        "given.toml: [providers.a] models: ",
        "[providers.b] base_url: is missing; set it, for example by PARLEY_PROVIDERS__B__BASE_URL",
        "[providers.b] models: is missing",
        "[providers.B-C] base_url: is missing",
        "given.toml: [providers.B-C] models: must be 1 to 128",
        "[providers.B-C] is no name; write small letters",
        "PARLEY_PROVIDERS__D__API_KEY: [providers.d] api_key: must be printable",
        "[providers.d] base_url: is missing",
        "[providers.d] models: is missing",
        "PARLEY_PROVIDERS__E: e is a table; write [providers.e]",
        "PARLEY_PROVIDERS_F is not read; write PARLEY_PROVIDERS__F, with two underscores",
    ):
        assert sum(words in line for line in lines) == 1, (words, lines)
    assert len(lines) == 12
    assert SECRET not in "".join(lines)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[providers]\ngroq = 1", "groq is a table; write [providers.groq]"),
        ('[providers."x.y"]', '[providers."x.y"] is no name'),
        ("[provider.groq]", "there is no section [provider]; did you mean providers?"),
        ("[log.level]\nx = 1", "[log] level: "),
    ],
)
def test_a_table_in_the_wrong_place_is_named(tmp_path: Path, toml: str, words: str) -> None:
    assert any(words in line for line in refused(tmp_path, toml))


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        (
            f'{GROQ}[providers.other]\nbase_url = "http://o"\nmodels = ["b"]',
            "[providers.other] models: b is listed twice",
        ),
        (GROQ.replace('"b"', '"a"'), "[providers.groq] models: a is listed twice, for groq; keep one"),
        (GROQ.replace("groq]", "default]"), "[providers.default] is no name; the server of [model]"),
        ("[model.profile]\nseed_feld = 1", "[model.profile] seed_feld: there is no such key; did you mean seed_field?"),
        ('[model.profile]\nseed_field = "x"', "[model.profile] seed_field: Input should be 'seed', 'random_seed'"),
        ("[providers.groq]\nprofile = 1", "profile is a table; write [providers.groq.profile]"),
        (f'{GROQ}[providers.groq.profile]\nimages = "?"', "[providers.groq.profile] images: "),
    ],
)
def test_what_is_wrong_with_providers_and_profiles_is_named(tmp_path: Path, toml: str, words: str) -> None:
    assert any(words in line for line in refused(tmp_path, toml)), refused(tmp_path, toml)


def test_a_profile_is_corrected_by_file_and_environment_and_shown(tmp_path: Path) -> None:
    environment = {"PARLEY_MODEL__PROFILE__SEED_FIELD": "none", "PARLEY_PROVIDERS__GROQ__PROFILE__IMAGES": "false"}
    settings = load(tmp_path, f"[model.profile]\nstop = true\n{GROQ}", environment)
    profile = settings.model.profile
    assert (profile.seed_field, profile.stop, profile.kind) == ("none", True, None)
    assert settings.providers["groq"].profile.images is False
    shown = settings_text(settings, with_secrets=False)
    assert "[providers.groq.profile]" in shown
    assert 'seed_field = "none"' in shown
    assert "# kind is not set" in shown


def test_providers_need_a_main_server(tmp_path: Path) -> None:
    file = tmp_path / "given.toml"
    file.write_text(GROQ, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"\[model\] base_url: is missing"):
        load_settings(config=file, data_dir=tmp_path, environment={})


@pytest.mark.parametrize(
    ("pattern", "is_good"), [("*", True), ("gpt-5*", True), ("m", True), ("a*b", False), ("", False)]
)
def test_what_is_allowed_may_end_in_a_star(tmp_path: Path, pattern: str, is_good: bool) -> None:
    environment = {"PARLEY_MODEL__ALLOWED": f"x, {pattern}"}
    if is_good:
        assert load(tmp_path, "", environment).model.allowed == ("x", pattern)
    else:
        assert "PARLEY_MODEL__ALLOWED: [model] allowed: " in refused(tmp_path, "", environment)[0]


PRICE = '[prices."gpt-5.1/mini"]\ninput = 0.1\noutput = "2.5"\ncurrency = "EUR"\n'


def test_prices_are_exact_and_shown_as_they_were(tmp_path: Path) -> None:
    settings = load(tmp_path, PRICE)
    [(model, price)] = settings.prices.items()
    assert (model, str(price.input), price.cached_input, str(price.output)) == ("gpt-5.1/mini", "0.1", None, "2.5")
    copy = tmp_path / "copy.toml"
    copy.write_text(settings_text(settings, with_secrets=False), encoding="utf-8")
    assert load_settings(config=copy, data_dir=tmp_path, environment={}).prices == settings.prices


def test_prices_of_two_currencies_are_refused(tmp_path: Path) -> None:
    other = '[prices.b]\ninput = 1\noutput = 1\ncurrency = "USD"\n'
    assert refused(tmp_path, PRICE + other) == [
        "[prices.b] currency: is not that of the other prices; give all prices in one"
    ]
    [told] = refused(tmp_path, '[prices.b]\ninput = 1\noutput = -1\ncurrency = "USD"\n')
    assert "[prices.b] output: " in told
