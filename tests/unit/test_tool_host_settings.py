"""`[tool_hosts.NAME]`: what an operator may write, and what he is told of the rest."""

from pathlib import Path

import pytest
from parley_server.settings import load_settings
from parley_server.settings_sources import ConfigError
from parley_server.tools.remote.host_settings import ToolHostSettings


def load(folder: Path, toml: str = "", **environment: str) -> dict[str, ToolHostSettings]:
    file = folder / "given.toml"
    file.write_text(toml)
    return dict(load_settings(config=file, data_dir=folder, environment=environment).tool_hosts)


def test_a_host_is_named_by_its_table_and_has_defaults(tmp_path: Path) -> None:
    hosts = load(tmp_path, '[tool_hosts.weather]\ntarget = "127.0.0.1:7000"\n[tool_hosts.b]\ntarget = "unix:/run/b"\n')
    assert list(hosts) == ["weather", "b"]
    host = hosts["weather"]
    assert (host.prefix_of("weather"), host.allowed, host.token.get_secret_value()) == ("weather_", (), "")


def test_a_host_can_be_given_by_the_environment_alone(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    [host] = load(
        tmp_path,
        PARLEY_TOOL_HOSTS__OFFICE__TARGET="tools.example.org:7443",
        PARLEY_TOOL_HOSTS__OFFICE__TOKEN_FILE=str(tmp_path / "token"),
        PARLEY_TOOL_HOSTS__OFFICE__ALLOWED="book, cancel",
        PARLEY_TOOL_HOSTS__OFFICE__PREFIX="",
    ).values()
    assert host.token.get_secret_value() == "s3cret"
    assert (host.allowed, host.prefix_of("office")) == (("book", "cancel"), "")
    assert "s3cret" not in str(host.model_dump(mode="json"))


@pytest.mark.parametrize(
    ("target", "more", "uses_tls"),
    [
        ("127.0.0.1:1", "", False),
        ("127.9.9.9:1", "", False),
        ("[::1]:1", "", False),
        ("localhost:1", "", False),
        ("unix:/run/tools", "", False),
        ("localhost:1", 'tls_ca_file = "ca.pem"', True),
        ("10.0.0.7:1", "", True),
        ("[::2]:1", "", True),
        ("localhost.example.org:1", "", True),
        ("0.0.0.0:1", "", True),
    ],
)
def test_only_on_this_machine_is_there_a_way_without_tls(
    tmp_path: Path, target: str, more: str, uses_tls: bool
) -> None:
    [host] = load(tmp_path, f'[tool_hosts.a]\ntarget = "{target}"\n{more}\n').values()
    assert host.uses_tls is uses_tls


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[tool_hosts.a]\n", ["[tool_hosts.a] target: is missing"]),
        ('[tool_hosts.a]\ntarget = "nowhere"', ["[tool_hosts.a] target", "HOST:PORT or unix:PATH"]),
        ('[tool_hosts.a]\ntarget = "h:0"', ["[tool_hosts.a] target"]),
        ('[tool_hosts.a]\ntarget = "https://h:1"', ["[tool_hosts.a] target"]),
        ('[tool_hosts.a]\ntarget = "h:1"\ntoken = "a b-hunter2"', ["[tool_hosts.a] token", "without blanks"]),
        ('[tool_hosts.a]\ntarget = "h:1"\ntls_certificate_file = "c"', ["tls_private_key_file", "belong together"]),
        ('[tool_hosts.a]\ntarget = "h:1"\ntls_private_key_file = "c"', ["tls_private_key_file", "belong together"]),
        ('[tool_hosts.a]\ntarget = "h:1"\nprefix = "a.b"', ["[tool_hosts.a] prefix"]),
        ('[tool_hosts.a]\ntarget = "h:1"\nallowed = ["a b"]', ["[tool_hosts.a] allowed"]),
        ('[tool_hosts.a]\ntarget = "h:1"\nrefresh_s = 0', ["[tool_hosts.a] refresh_s"]),
        ('[tool_hosts.a]\ntarget = "h:1"\nconnect_timeout_s = inf', ["[tool_hosts.a] connect_timeout_s"]),
        ('[tool_hosts.a]\ntarget = "h:1"\ntoken_fil = "x"', ["there is no such key", "did you mean token?"]),
        *(
            (f'[tool_hosts.a]\ntarget = "h:1"\ndelegate_scopes = ["{scope}"]', ["[tool_hosts.a] delegate_scopes"])
            for scope in ("admin", "approvals:decide", "tool:*", "runs:none", "")
        ),
        ('[tool_hosts.A]\ntarget = "h:1"', ["[tool_hosts.A] is no name"]),
        (
            '[tool_hosts.a]\ntarget = "h:1"\n[tool_hosts.b]\ntarget = "h:2"\nprefix = "a_"',
            ["[tool_hosts.b] prefix", "[tool_hosts.a]", "choose another"],
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place_and_no_secret(tmp_path: Path, toml: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, toml)
    assert all(word in str(refused.value) for word in words), str(refused.value)
    assert "hunter2" not in str(refused.value)
