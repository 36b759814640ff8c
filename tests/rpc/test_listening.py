"""Where a server may listen, with what, and who gets in without a credential: all cells of it."""

import asyncio
from itertools import product
from pathlib import Path

import pytest
from certificates import authority, issued_by
from parley_server.auth.auth_settings import Admission, AuthSettings
from parley_server.auth.factory import ProviderParts, build_auth_chain
from parley_server.auth.provider import Credentials
from parley_server.domain.access_errors import CredentialsInvalidError
from parley_server.rpc.drain import Drain
from parley_server.rpc.listener import Listener, ListenError, ServerSettings, complain_of_insecurity
from parley_server.rpc.server import RpcServer
from parley_server.rpc.service import Service
from parley_server.rpc.tls import CertificateReloader
from rpc.chassis import AGENT_SERVICE, HASH_KEY, Keys, Runs
from rpc.tls_server import until
from structlog.testing import capture_logs

CERTIFICATE = issued_by(authority())
# The last one is nobody's: the rule speaks before the name is looked up.
PLACES = {"127.0.0.1:0": True, "localhost:0": True, "unix:{}": True, "0.0.0.0:0": False, "[::]:0": False}
NOBODYS = {"host.invalid:0": False, "192.0.2.1:0": False}


@pytest.mark.parametrize(
    ("place", "has_tls", "allow_insecure"), list(product({**PLACES, **NOBODYS}, [False, True], [False, True]))
)
async def test_where_a_server_starts(tmp_path: Path, place: str, has_tls: bool, allow_insecure: bool) -> None:
    listen = place.format(tmp_path / "socket")
    settings = ServerSettings(listen=listen, allow_insecure_listen=allow_insecure)
    certificates = CertificateReloader(CERTIFICATE.write(tmp_path)) if has_tls else None
    server = RpcServer([Service(AGENT_SERVICE, Runs())], build_auth_chain((), ProviderParts(Keys(), HASH_KEY)), Drain())
    starting = server.start(settings, certificates.credentials() if certificates else None)
    if not (PLACES.get(place) or has_tls or allow_insecure):
        with pytest.raises(ListenError, match=r"reachable from other machines; set \[tls\] certificate_file and"):
            await starting
    elif place in NOBODYS:
        with pytest.raises(ListenError, match="not ours to bind"):
            await starting
    else:
        assert await starting
    await server.stop(0)


@pytest.mark.parametrize(("place", "local"), list(product({**PLACES, **NOBODYS}, [False, True])))
async def test_who_gets_in_without_a_credential(place: str, local: bool) -> None:
    """Off loopback nobody, and a server without any way in does not exist: keys are always one."""
    is_local = Listener.parse(place.format("socket")).is_local
    admission = Admission(AuthSettings(local=local), {}, {}, listens_locally=is_local, asks_for_certificates=False)
    types = admission.provider_types
    assert "api_key" in types
    chain = build_auth_chain(types, ProviderParts(Keys(), HASH_KEY))
    calling = chain.authenticate(Credentials(authorization=None, peer=lambda: "ipv4:127.0.0.1:40000"))
    if local and is_local:
        assert (await calling).method == "local"
    else:
        with pytest.raises(CredentialsInvalidError):
            await calling


async def test_serving_others_in_the_clear_is_complained_about_again_and_again() -> None:
    with capture_logs() as logs:
        complaining = asyncio.create_task(complain_of_insecurity("0.0.0.0:1", every_s=0.001))

        async def twice() -> bool:
            return len(logs) >= 2

        await until(twice)
        complaining.cancel()
    assert {(line["event"], line["log_level"], line["address"]) for line in logs} == {
        ("insecure_listen", "warning", "0.0.0.0:1")
    }
