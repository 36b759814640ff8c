"""Providers that other packages bring, and what a server without issuers does not load."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from parley_server.auth.factory import AuthChain, ProviderParts, build_auth_chain
from parley_server.auth.provider import Credentials
from parley_server.domain.access_errors import CredentialsInvalidError
from parley_server.domain.errors import StartError
from parley_server.settings import load_settings
from rpc.chassis import HASH_KEY, Keys
from unit.installed_package import install

PACKAGE = """
from parley_server.auth.provider import NOT_MINE, AuthProvider
from parley_server.domain.principal import Principal, PrincipalKind

class Badges(AuthProvider):
    closed = 0

    async def authenticate(self, credentials):
        if credentials.bearer is None or not credentials.bearer.startswith("badge-"):
            return NOT_MINE
        return Principal(kind=PrincipalKind.USER, subject=credentials.bearer[6:], method="badge")

    async def close(self):
        Badges.closed += 1

def broken():
    raise RuntimeError("no badges")
"""


@pytest.fixture
def badges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package that brings providers: a good one and some that are none."""
    monkeypatch.syspath_prepend(tmp_path)
    points = {
        "badge": "some_badges:Badges",
        "none": "builtins:dict",
        "broken": "some_badges:broken",
        "gone": "no_such_module:x",
    }
    install(tmp_path, "some_badges", PACKAGE, "parley.auth_providers", points)


def chain_of(*types: str) -> AuthChain:
    return build_auth_chain(types, ProviderParts(Keys(), HASH_KEY))


@pytest.mark.usefixtures("badges")
async def test_an_installed_provider_is_one_of_the_chain(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path, environment={"PARLEY_AUTH__PROVIDERS": "badge,api_key"})
    chain = chain_of(*settings.admission.provider_types)
    asking: Callable[[str], Credentials] = lambda text: Credentials(text, lambda: "ipv4:10.0.0.1:1")  # noqa: E731
    found = await chain.authenticate(asking("Bearer badge-ann"))
    assert (found.subject, found.method) == ("ann", "badge")
    with pytest.raises(CredentialsInvalidError):
        await chain.authenticate(asking("Bearer parley_x"))
    await chain.close()
    assert sys.modules["some_badges"].Badges.closed == 1


@pytest.mark.usefixtures("badges")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none", "is no AuthProvider"),
        ("broken", r"cannot be made \(RuntimeError\)"),
        ("gone", r"cannot be made \(ModuleNotFoundError\)"),
        ("absent", "no installed package has it"),
    ],
)
def test_what_cannot_be_made_keeps_the_server_from_starting_and_is_named(name: str, words: str) -> None:
    with pytest.raises(StartError, match=rf"\[auth\] providers, {name}: {words}"):
        chain_of("api_key", name)


def test_a_server_without_issuers_and_certificates_does_not_load_what_they_take() -> None:
    code = (
        "import sys, parley_server.app, parley_server.settings\n"
        "from parley_server.auth.factory import ProviderParts, build_auth_chain\n"
        "build_auth_chain(('api_key', 'local'), ProviderParts(None, bytes(32)))\n"
        "print([m for m in ('jwt', 'cryptography', 'parley_server.auth.mtls') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
