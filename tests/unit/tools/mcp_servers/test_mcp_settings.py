"""The tables of MCP servers: from a file, from the environment, and what is wrong with them."""

import os
from pathlib import Path

import pytest
from parley_server.domain.tool import ToolEffect
from parley_server.settings import Settings, load_settings
from parley_server.settings_sources import ConfigError
from parley_server.settings_text import settings_text

FILE = """
[mcp.files]
command = "npx"
args = ["-y", "server-filesystem"]
env = { MODE = "a,b", "odd name" = 'quo"ted' }
user_env = { TOKEN = "{github}", BOTH = "{a}-{github}" }
effects = { read = "read" }
"""


def load(tmp_path: Path, text: str = "", **environment: str) -> Settings:
    file = tmp_path / "parley.toml"
    file.write_text(text)
    return load_settings(config=file, data_dir=tmp_path, environment=environment)


def test_a_server_is_described_in_a_table_of_its_own(tmp_path: Path) -> None:
    files = load(tmp_path, FILE).mcp["files"]
    assert (files.command, files.args, files.slots) == ("npx", ("-y", "server-filesystem"), ("github", "a"))
    assert (files.effect, files.effects) == (ToolEffect.WRITE, {"read": ToolEffect.READ})


def test_it_may_be_described_in_the_environment(tmp_path: Path) -> None:
    environment = {"PARLEY_MCP__WEB__URL": "https://example.com/mcp", "PARLEY_MCP__WEB__HEADERS": "A=1, B=2=3"}
    web = load(tmp_path, **environment).mcp["web"]
    assert {name: secret.get_secret_value() for name, secret in web.headers.items()} == {"A": "1", "B": "2=3"}


def test_what_is_shown_of_it_is_a_configuration_and_hides_its_secrets(tmp_path: Path) -> None:
    settings = load(tmp_path, FILE)
    assert "a,b" not in settings_text(settings, with_secrets=False)
    assert load(tmp_path, settings_text(settings, with_secrets=True)).mcp == settings.mcp


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("", "url: set either command or url"),
        ('command = "a"\nurl = "https://a/"', "url: set either command or url"),
        ('url = "ftp://a/"', "url: write http:// or https://"),
        ('url = "https://ann:secret@a/"', "and no password in it"),
        ('url = "https://a/"\nargs = ["a"]', "args: does not go with url"),
        ('command = "a"\nheaders = { A = "b" }', "headers: does not go with command"),
        ('command = "a"\nuser_env = { A = "b" }', "user_env: names no slot"),
        ('command = "a"\nshared = true\nuser_env = { A = "{b}" }', "shared: a client of all users"),
        ('command = "a"\nlist_as = "ann"', "list_as: there are no credentials"),
        ('command = "a"\nprefix = "a b"', "prefix: "),
        ('command = "a"\neffects = { b = "c" }', "effects: "),
        ('command = "a"\ntimeout = 3', "timeout: there is no such key; did you mean timeout_s?"),
    ],
)
def test_what_is_wrong_is_said_with_the_key(tmp_path: Path, table: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, f"[mcp.raw]\n{table}")
    assert "[mcp.raw]" in str(refused.value)
    assert problem in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_name_is_one_that_a_variable_can_hold(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no name"):
        load(tmp_path, '[mcp."../a"]\ncommand = "a"')
    assert not list(os.scandir(tmp_path))[1:]
