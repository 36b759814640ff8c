"""The settings: which place wins, and that no misspelling passes."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from parley_server.settings import Settings, StorageSettings, default_data_dir, load_settings
from parley_server.settings_sources import ConfigError

SECRET = "sk-very-secret"


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in an empty directory, where no parley.toml of anybody's lies."""
    directory = tmp_path / "cwd"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


def load(tmp_path: Path, toml: str | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Load with this file and this environment alone."""
    config = None
    if toml is not None:
        config = tmp_path / "given.toml"
        config.write_text(toml, encoding="utf-8")
    return load_settings(config=config, data_dir=tmp_path / "data", environment=environment or {})


def refused(tmp_path: Path, toml: str | None = None, environment: Mapping[str, str] | None = None) -> str:
    """Return the sentence of an error."""
    with pytest.raises(ConfigError) as error:
        load(tmp_path, toml, environment)
    return str(error.value)


def test_nothing_has_to_be_set(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert settings.server.listen == "127.0.0.1:50051"
    assert settings.server.allow_insecure_listen is False
    assert settings.auth.local is True
    assert settings.auth.hash_key is None
    assert (settings.log.format, settings.log.level) == ("auto", "info")
    assert settings.storage.sqlite_path(settings.data_dir) == tmp_path / "data" / "parley.db"
    assert settings.model_settings() is None
    assert settings.config_file is None


def test_the_command_line_wins_over_the_environment_over_the_file_over_the_default(tmp_path: Path) -> None:
    toml = '[server]\nlisten = "127.0.0.1:1"\ndrain_grace_s = 1\n[log]\nlevel = "debug"'
    environment = {"PARLEY_SERVER__LISTEN": "127.0.0.1:2", "PARLEY_SERVER__DRAIN_GRACE_S": "2"}
    settings = load(tmp_path, toml, environment)
    assert (settings.server.listen, settings.server.drain_grace_s, settings.log.level) == ("127.0.0.1:2", 2.0, "debug")
    flags = {("server", "listen"): "127.0.0.1:3"}
    settings = load_settings(config=tmp_path / "given.toml", data_dir=tmp_path, flags=flags, environment=environment)
    assert (settings.server.listen, settings.server.drain_grace_s) == ("127.0.0.1:3", 2.0)


def test_the_file_is_the_one_named_else_here_else_with_the_data(tmp_path: Path, working_directory: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "parley.toml").write_text('[log]\nlevel = "error"')
    assert load(tmp_path).log.level == "error"
    (working_directory / "parley.toml").write_text('[log]\nlevel = "warning"')
    assert load(tmp_path).log.level == "warning"
    settings = load(tmp_path, '[log]\nlevel = "debug"')
    assert (settings.log.level, settings.config_file) == ("debug", tmp_path / "given.toml")


def test_a_file_that_is_named_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: there is no such file; correct --config"):
        load_settings(config=tmp_path / "absent.toml", data_dir=tmp_path, environment={})


def test_the_data_directory_is_the_one_of_the_environment_else_the_platforms() -> None:
    assert default_data_dir({"PARLEY_HOME": "/srv/parley"}) == Path("/srv/parley")
    assert default_data_dir({"PARLEY_HOME": "here"}) == Path.cwd() / "here"
    assert default_data_dir({"PARLEY_HOME": "~/p"}) == Path.home() / "p"
    assert default_data_dir({"PARLEY_HOME": ""}).name == "parley"
    assert load_settings(environment={"PARLEY_HOME": "/srv/parley"}).data_dir == Path("/srv/parley")


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ('[model]\nnmae = "x"\nbase_url = "http://x"', ["given.toml", "[model] nmae", "did you mean name?"]),
        ("[server]\nxyz = 1", ["given.toml", "[server] xyz", "there are allow_insecure_listen, ", "drain_grace_s, "]),
        ("[serverr]", ["given.toml", "[serverr]", "did you mean server?"]),
        ("listen = 1", ["given.toml", "no section [listen]"]),
        ("server = 1", ["given.toml", "write [server]"]),
        ("[server]\ndrain_grace_s = 'long'", ["given.toml", "[server] drain_grace_s", "valid number"]),
        ("[server]\ndrain_grace_s = -1", ["[server] drain_grace_s", "greater than or equal to 0"]),
        ("[tls]\ncertificate_file = 'c'", ["[tls] private_key_file", "set both or neither"]),
        ("[tls]\nprivate_key_file = 'k'", ["given.toml", "[tls] private_key_file", "set both or neither"]),
        ("[tls]\nclient_ca_file = 'a'", ["given.toml", "[tls] client_ca_file", "certificate_file"]),
        ("[log]\nformat = 'xml'", ["[log] format", "'auto', 'json' or 'console'"]),
        ("[storage]\nurl = 'mysql://x'", ["[storage] url", "sqlite:///PATH", "postgresql://USER@HOST/DATABASE"]),
        ("[model]\nbase_url = 'ftp://x'\nname = 'm'", ["[model] base_url", "http"]),
        ("[server\n", ["given.toml", "line 1", "correct the line"]),
    ],
)
def test_what_is_wrong_in_the_file_is_named_with_its_place_and_remedy(
    tmp_path: Path, toml: str, words: list[str]
) -> None:
    sentence = refused(tmp_path, toml)
    assert all(word in sentence for word in words), sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("PARLEY_SERVER__LISTN", ["PARLEY_SERVER__LISTN", "did you mean listen?"]),
        ("PARLEY_SERVR__LISTEN", ["PARLEY_SERVR__LISTEN", "did you mean server?"]),
        ("PARLEY_X__Y", ["PARLEY_X__Y", "there are approval_rules, approvals, "]),
        ("PARLEY_SERVER__", ["PARLEY_SERVER__", "no such key"]),
        ("PARLEY_MODEL_NAME", ["PARLEY_MODEL_NAME is not read", "write PARLEY_MODEL__NAME"]),
        ("PARLEY_SERVER", ["PARLEY_SERVER is not read"]),
        ("PARLEY_LOG__LEVEL", ["PARLEY_LOG__LEVEL", "[log] level"]),
        ("PARLEY_AUTH__LOCAL", ["PARLEY_AUTH__LOCAL", "boolean"]),
    ],
)
def test_what_is_wrong_in_the_environment_is_named(tmp_path: Path, variable: str, words: list[str]) -> None:
    sentence = refused(tmp_path, environment={variable: "nonsense"})
    assert all(word in sentence for word in words), sentence


def test_other_peoples_variables_are_let_be(tmp_path: Path) -> None:
    of_clients = ("TARGET", "API_KEY", "TLS", "ROOT_CERTIFICATES", "CLIENT_CERTIFICATE", "CLIENT_KEY", "TELEGRAM_TOKEN")
    environment = {"PATH": "x", **{f"PARLEY_{name}": "x" for name in of_clients}}
    assert load(tmp_path, environment=environment).model_settings() is None


@pytest.mark.parametrize(("text", "value"), [("false", False), ("0", False), ("true", True), ("1", True)])
def test_words_of_the_environment_become_values(tmp_path: Path, text: str, value: bool) -> None:
    assert load(tmp_path, environment={"PARLEY_AUTH__LOCAL": text}).auth.local is value


def test_shared_credentials_are_named_by_their_places(tmp_path: Path) -> None:
    places = {"maps": "file:/run/secrets/maps", "crm": "env:CRM"}
    toml = '[credentials.shared]\nmaps = "file:/run/secrets/maps"\ncrm = "env:CRM"\n'
    environment = {"PARLEY_CREDENTIALS__SHARED": "maps=file:/run/secrets/maps, crm=env:CRM"}
    assert load(tmp_path, toml).credentials.shared == places
    assert load(tmp_path, environment=environment).credentials.shared == places
    assert load(tmp_path).credentials.directory(tmp_path / "data") == tmp_path / "data" / "credentials"
    wrong = refused(tmp_path, f'[credentials.shared]\nmaps = "{SECRET}"')
    assert "[credentials] shared: maps: write file:/PATH or env:NAME" in wrong
    assert SECRET not in wrong


def test_an_emptied_directory_of_credentials_is_the_one_in_the_data_directory(tmp_path: Path) -> None:
    for settings in (
        load(tmp_path, '[credentials]\ndir = ""'),
        load(tmp_path, environment={"PARLEY_CREDENTIALS__DIR": ""}),
    ):
        assert settings.credentials.directory(settings.data_dir) == tmp_path / "data" / "credentials"


def test_secrets_are_in_no_error_and_in_no_printed_settings(tmp_path: Path) -> None:
    for section, key in (("model", "api_key"), ("auth", "hash_key")):
        toml = f'[{section}]\n{key} = "{SECRET}"\nxyz = "{SECRET}"'
        assert SECRET not in refused(tmp_path, toml)
        assert SECRET not in refused(tmp_path, environment={f"PARLEY_{section.upper()}__{key.upper()}X": SECRET})
        assert SECRET not in repr(load(tmp_path, f'[{section}]\n{key} = "{SECRET}"'))
    assert SECRET not in refused(tmp_path, f'[model]\napi_key = "{SECRET} with blanks"')
    assert SECRET not in refused(tmp_path, f'[model]\napi_key = ["{SECRET}"]')


def test_a_secret_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{SECRET}\n", encoding="utf-8")
    file.chmod(0o600)
    for settings in (
        load(tmp_path, f'[model]\napi_key_file = "{file}"'),
        load(tmp_path, '[model]\napi_key = "other"', {"PARLEY_MODEL__API_KEY_FILE": str(file)}),
    ):
        assert settings.model.api_key.get_secret_value() == SECRET
        assert settings.has_model
    settings = load(tmp_path, f'[model]\napi_key_file = "{file}"', {"PARLEY_MODEL__API_KEY": "other"})
    assert settings.model.api_key.get_secret_value() == "other"
    file.write_text("sqlite:///other.db\n", encoding="utf-8")
    assert load(tmp_path, f'[storage]\nurl_file = "{file}"').storage.url == "sqlite:///other.db"


def test_a_file_of_a_secret_that_gives_none_is_named(tmp_path: Path) -> None:
    absent, empty = tmp_path / "absent", tmp_path / "empty"
    empty.write_text("\n", encoding="utf-8")
    environment = {"PARLEY_MODEL__API_KEY_FILE": str(absent)}
    sentence = refused(tmp_path, environment=environment)
    assert "PARLEY_MODEL__API_KEY_FILE: [model] api_key_file: " in sentence
    assert f"{absent} cannot be read" in sentence
    assert f"{empty} is empty" in refused(tmp_path, environment={"PARLEY_MODEL__API_KEY_FILE": str(empty)})
    both = refused(tmp_path, environment={**environment, "PARLEY_MODEL__API_KEY": SECRET})
    assert "api_key is set, too; keep one" in both
    assert SECRET not in both
    assert "no such key" in refused(tmp_path, '[model]\nname_file = "x"\nbase_url = "http://x"\nname = "m"')


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    toml = "[server]\nlistn = 'x'\ndrain_grace_s = -1\n[nothing]\n"
    lines = refused(tmp_path, toml, {"PARLEY_LOG__LEVEL": "loud"}).splitlines()
    assert len(lines) == 4
    for words in ("did you mean listen?", "drain_grace_s", "no section [nothing]", "PARLEY_LOG__LEVEL"):
        assert sum(words in line for line in lines) == 1, words


def test_the_fall_backs_of_the_model(tmp_path: Path) -> None:
    environment = {"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": "http://fall.back/v1", "PARLEY_MODEL__NAME": "m"}
    model = load(tmp_path, environment=environment).model_settings()
    assert model is not None
    assert (model.base_url, model.api_key.get_secret_value(), model.name) == ("http://fall.back/v1", SECRET, "m")
    model = load(tmp_path, '[model]\nbase_url = "http://own/v1"\napi_key = "own"', environment).model_settings()
    assert model is not None
    assert (model.base_url, model.api_key.get_secret_value()) == ("http://own/v1", "own")


def test_a_key_alone_asks_the_official_server_for_its_usual_model(tmp_path: Path) -> None:
    model = load(tmp_path, environment={"OPENAI_API_KEY": SECRET}).model_settings()
    assert model is not None
    assert model.base_url == "https://api.openai.com/v1"
    assert model.name


def test_another_server_needs_a_models_name(tmp_path: Path) -> None:
    sentence = refused(tmp_path, environment={"PARLEY_MODEL__BASE_URL": "http://localhost:11434/v1"})
    assert sentence == "[model] name: is missing; set it, for example by PARLEY_MODEL__NAME"


@pytest.mark.parametrize(
    "environment", [{}, {"OPENAI_API_KEY": ""}, {"PARLEY_MODEL__API_KEY": " "}, {"PARLEY_MODEL__NAME": "m"}]
)
def test_without_a_key_and_a_base_url_the_model_is_the_offline_one(tmp_path: Path, environment: dict[str, str]) -> None:
    assert load(tmp_path, environment=environment).model_settings() is None


@pytest.mark.parametrize(
    ("url", "path"),
    [("", "data/parley.db"), ("sqlite:///other.db", "data/other.db"), ("sqlite:////abs/p.db", "/abs/p.db")],
)
def test_the_databases_file(tmp_path: Path, url: str, path: str) -> None:
    settings = load(tmp_path, environment={"PARLEY_STORAGE__URL": url})
    assert settings.storage.sqlite_path(settings.data_dir) == tmp_path / path


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:p@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:p/@w:@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u@h:5432/d?password=p&sslmode=require", "postgresql://u@h:5432/d?password=***&sslmode=require"),
        ("postgresql://u@/d?host=/run", "postgresql://u@/d?host=/run"),
        ("sqlite:///d", "sqlite:///d"),
    ],
)
def test_the_password_of_a_database_is_not_shown(url: str, shown: str) -> None:
    storage = StorageSettings(url=url)
    assert storage.model_dump(mode="json") == {"url": shown}
    assert storage.is_postgres == url.startswith("postgresql")


def test_the_configurations_document_is_what_the_models_say() -> None:
    root = Path(__file__).resolve().parents[2]
    script = [sys.executable, str(root / "scripts" / "document_settings.py"), "--check"]
    checked = subprocess.run(script, check=False, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, ""), checked.stderr
