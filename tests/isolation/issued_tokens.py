"""The tokens of DelegationService: what may be asked for, and what must be in the answer."""

from isolation.cast import Speaker
from isolation.delegates import Delegates, speaker_of
from isolation.tokens import SERVER, Expected, TokenReader
from isolation.world import World
from parley.v1 import delegation_service_pb2 as pb
from parley_server.domain.principal import ADMIN_SCOPE

MOST_ACTORS = 4
_LONGEST_S = 300


def asks_too_much(speaker: Speaker, request: object) -> bool:
    """Tell whether a request is for a token that its caller must not get, whoever it is for."""
    if not isinstance(request, pb.IssueDelegationTokenRequest):
        return False
    return (
        not set(request.scopes) <= speaker.scopes - {ADMIN_SCOPE}
        or request.audience.startswith("host:")
        or len(speaker.handed_on) > MOST_ACTORS
    )


def take_in_issued(
    world: World,
    delegates: Delegates,
    reader: TokenReader,
    speaker: Speaker,
    request: pb.IssueDelegationTokenRequest,
    raw: bytes,
) -> None:
    """Judge a token that somebody was given; from now on somebody calls with it."""
    response = pb.IssueDelegationTokenResponse.FromString(raw)
    where = f"DelegationService.IssueDelegationToken by {speaker.role}"
    claims = reader.read(response.token)
    if claims is None:
        world.leak(where, "a token that is not signed so")
        return
    lifetime_s = request.lifetime.seconds if request.HasField("lifetime") else _LONGEST_S
    expected = Expected(
        user_id=request.user_id or speaker.owner,
        actors=speaker.handed_on,
        audiences=frozenset({request.audience or SERVER}),
        scopes=frozenset(request.scopes),
        key_id=speaker.key_id,
        latest_end=min(claims.iat + lifetime_s, speaker.until),
    )
    for difference in expected.denied_by(claims):
        world.leak(where, f"a token with {difference}")
    if (tuple(response.actors), response.expire_time.seconds) != (claims.actors, claims.exp):
        world.leak(where, "a token that says something else than the answer")
    delegates.add(speaker_of(response.token, claims, f"delegate of {speaker.role}"))
