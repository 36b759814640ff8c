"""What becomes of whom sends bad credentials, and of his neighbours."""

import asyncio
from datetime import UTC, datetime

import pytest
from parley_server.auth.api_key import PresentedKey
from parley_server.auth.factory import AuthChain, ProviderParts, build_auth_chain
from parley_server.auth.provider import Credentials
from parley_server.domain.access_errors import AuthUnavailableError
from parley_server.domain.api_key import ApiKey, StoredKey
from parley_server.domain.errors import ParleyError
from parley_server.domain.principal import PrincipalKind

HASH_KEY = b"k" * 32
GUESSER = "ipv4:192.0.2.1:1"
LIMIT = 3


class Keys:
    """Keys in memory; `fault` is raised by look-ups, and `gate` holds them up."""

    def __init__(self) -> None:
        self.stored: dict[str, StoredKey] = {}
        self.lookups = 0
        self.fault: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def find(self, key_id: str) -> StoredKey | None:
        self.lookups += 1
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        return self.stored.get(key_id)

    def issue(self) -> str:
        made = PresentedKey.mint()
        key = ApiKey(made.key_id, PrincipalKind.USER, "ann", frozenset(), (), datetime.now(UTC))
        self.stored[key.key_id] = StoredKey(key, made.hash(HASH_KEY))
        return made.text


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def chain(keys: Keys) -> AuthChain:
    return build_auth_chain(("api_key", "local"), ProviderParts(keys, HASH_KEY, max_failures_per_minute=LIMIT))


async def answer(chain: AuthChain, key: str | None, peer: str = GUESSER) -> str:
    """Return the caller's subject, or the reason he is refused for."""
    sent = Credentials(None if key is None else f"Bearer {key}", lambda: peer)
    try:
        return (await chain.authenticate(sent)).subject
    except ParleyError as error:
        return error.reason


def guess() -> str:
    return PresentedKey.mint().text


async def test_too_many_guesses_end_the_looking_also_at_the_right_key(keys: Keys, chain: AuthChain) -> None:
    for _ in range(LIMIT):
        assert await answer(chain, guess()) == "CREDENTIALS_INVALID"
    before = keys.lookups
    for key in (guess(), keys.issue(), "parley_x", "other", ""):
        assert await answer(chain, key) == "AUTH_RATE_LIMITED"
    assert keys.lookups == before
    assert await answer(chain, keys.issue(), "ipv4:192.0.2.2:1") == "ann"


@pytest.mark.parametrize("junk", ["", "x", "parley_", "parley_x_y_z", "eyJhbGciOiJub25lIn0.e30."])
async def test_junk_is_counted_as_well(chain: AuthChain, junk: str) -> None:
    answers = [await answer(chain, junk) for _ in range(LIMIT + 1)]
    assert answers == ["CREDENTIALS_INVALID"] * LIMIT + ["AUTH_RATE_LIMITED"]


async def test_a_key_that_was_good_before_goes_on_working_from_there(keys: Keys, chain: AuthChain) -> None:
    known = keys.issue()
    assert await answer(chain, known) == "ann"
    for _ in range(LIMIT + 1):
        await answer(chain, guess())
    for _ in range(2):
        assert await answer(chain, known) == "ann"
        chain.forget(known.split("_")[1])  # what the passing of time does: it is looked up again
    keys.stored.clear()
    assert [await answer(chain, known) for _ in range(2)] == ["CREDENTIALS_INVALID", "AUTH_RATE_LIMITED"]


async def test_a_call_without_a_credential_is_no_guess(chain: AuthChain) -> None:
    for _ in range(LIMIT + 1):
        assert await answer(chain, None) == "CREDENTIALS_INVALID"
    assert await answer(chain, guess()) == "CREDENTIALS_INVALID"


async def test_guesses_at_the_same_time_get_no_more_answers(keys: Keys, chain: AuthChain) -> None:
    keys.gate.clear()
    asking = [asyncio.ensure_future(answer(chain, guess())) for _ in range(20)]
    await asyncio.sleep(0)
    keys.gate.set()
    answers = await asyncio.gather(*asking)
    assert (answers.count("CREDENTIALS_INVALID"), answers.count("AUTH_RATE_LIMITED")) == (LIMIT, 20 - LIMIT)


async def test_many_new_good_keys_at_the_same_time_are_all_let_in(keys: Keys, chain: AuthChain) -> None:
    answers = await asyncio.gather(*(answer(chain, keys.issue()) for _ in range(20)))
    assert answers == ["ann"] * 20


async def test_a_store_that_fails_is_nobodys_bad_credential(keys: Keys, chain: AuthChain) -> None:
    keys.fault = OSError()
    for _ in range(LIMIT + 1):
        with pytest.raises(AuthUnavailableError):
            await chain.authenticate(Credentials(f"Bearer {keys.issue()}", lambda: GUESSER))


async def test_a_network_of_one_subscriber_is_one_origin(chain: AuthChain) -> None:
    for host in range(LIMIT):
        assert await answer(chain, guess(), f"ipv6:%5B2001:db8::{host}%5D:1") == "CREDENTIALS_INVALID"
    assert await answer(chain, guess(), "ipv6:%5B2001:db8::ffff%5D:9") == "AUTH_RATE_LIMITED"
    assert await answer(chain, guess(), "ipv6:%5B2001:db8:0:1::%5D:1") == "CREDENTIALS_INVALID"


async def test_this_machine_may_guess_ten_times_as_often_and_keeps_its_local_user(chain: AuthChain) -> None:
    peers = ["ipv4:127.0.0.1:1", "ipv6:%5B::1%5D:1", "unix:"]
    for number in range(10 * LIMIT):
        assert await answer(chain, guess(), peers[number % 3]) == "CREDENTIALS_INVALID"
    for peer in peers:
        assert await answer(chain, guess(), peer) == "AUTH_RATE_LIMITED"
        assert await answer(chain, None, peer) not in {"AUTH_RATE_LIMITED", "CREDENTIALS_INVALID"}
