"""Who is on stage: three users, one of whose names begins with another's, a service that acts for one, an admin.

Beside the key that he plays with, one of the users and the service have another one that is revoked in the middle.
"""

import math
from dataclasses import dataclass, field
from random import Random

import grpc
from catalogue.door import Caller
from isolation.canary import signature
from isolation.world import ADMIN
from parley.v1 import api_key_service_pb2 as keys
from parley.v1 import request_context_pb2
from parley_server.domain.principal import ADMIN_SCOPE, USER_SCOPES
from rpc.chassis import Metadata, bearer

# The service's second key opens less than what it is handed on to.
_LESS = frozenset({"agents:read", "runs:read", "runs:write"})


@dataclass(frozen=True)
class Speaker:
    """A credential, and the user it speaks for: `owner` is whose all is that he does.

    `actors` are who acts for the owner, the one at work first, and `key_id` the API key that it all rests on. `until`
    is when the credential ends by itself, in seconds since 1970. One that is no `opens` proves something elsewhere.
    """

    role: str
    owner: str
    principal: str
    metadata: Metadata
    scopes: frozenset[str]
    key_id: str
    # Users this credential must never speak for, and those for whom it may hand out tokens besides its own.
    strangers: tuple[str, ...] = ()
    serves: tuple[str, ...] = ()
    actors: tuple[str, ...] = ()
    until: float = math.inf
    opens: bool = True
    is_token: bool = False

    @property
    def handed_on(self) -> tuple[str, ...]:
        """Who acts by a token that is made with this credential: a token's holder is known by that token alone."""
        actor = (*self.actors, self.principal)[0]
        return (actor, *self.actors) if self.is_token else (actor,)

    @property
    def can_run(self) -> bool:
        """Tell whether it may begin runs."""
        return "runs:write" in self.scopes

    def claiming(self, user_id: str) -> Metadata:
        """Return the metadata of a call that is made for a user; what else it says is the caller's own."""
        said = {
            "said-by": signature(self.owner),
            "actors": " ".join(self.actors),
            "scopes": " ".join(sorted(self.scopes)),
            "key": self.key_id,
            "until": str(self.until),
        }
        claim = request_context_pb2.RequestContext(user_id=user_id, metadata=said)
        return (*self.metadata, ("parley-context-bin", claim.SerializeToString()))


@dataclass
class Cast:
    """The speakers of one example, by role; `lent` are those whose keys are revoked."""

    speakers: dict[str, Speaker] = field(default_factory=dict)
    lent: dict[str, Speaker] = field(default_factory=dict)

    @property
    def owners(self) -> list[str]:
        """The users, each once."""
        return list(dict.fromkeys(speaker.owner for speaker in self.speakers.values()))

    def anybody(self, random: Random) -> Speaker:
        """Choose one of all who have a key."""
        return random.choice([*self.speakers.values(), *self.lent.values()])


async def make_cast(channel: grpc.aio.Channel, number: int) -> Cast:
    """Make keys for users that nobody has heard of before; their names are told apart by the number."""
    ann, anna, bob, bot = f"ann{number}", f"ann{number}a", f"bob{number}", f"bot{number}"
    service = f"service:{bot}"
    admin = Caller(channel)
    made = {
        "ann": await user_speaker(admin, "ann", ann, (anna, bob, service)),
        "anna": await user_speaker(admin, "anna", anna, (ann, bot, service)),
        "bob": await user_speaker(admin, "bob", bob, (ann, ADMIN)),
        "bot_for_ann": await bot_speaker(admin, "bot_for_ann", bot, ann, (anna, bob)),
    }
    for_ann = made["bot_for_ann"]
    made["bot"] = Speaker(
        "bot",
        service,
        service,
        for_ann.metadata,
        USER_SCOPES,
        for_ann.key_id,
        strangers=(anna, bob, bot, ADMIN),
        serves=(ann,),
    )
    made["admin"] = await user_speaker(admin, "admin", ADMIN, (ann, bob), USER_SCOPES | {ADMIN_SCOPE})
    lent = [
        await user_speaker(admin, "lent_ann", ann, (anna, bob, service)),
        await bot_speaker(admin, "lent_bot", bot, ann, (anna, bob), _LESS),
    ]
    return Cast(made, {speaker.role: speaker for speaker in lent})


async def lent_anew(channel: grpc.aio.Channel, speaker: Speaker) -> Speaker:
    """Make a key in the place of one that was lent."""
    admin = Caller(channel)
    if speaker.actors:
        bot = speaker.principal.removeprefix("service:")
        return await bot_speaker(admin, speaker.role, bot, speaker.owner, speaker.strangers, speaker.scopes)
    return await user_speaker(admin, speaker.role, speaker.owner, speaker.strangers)


async def user_speaker(
    admin: Caller, role: str, user_id: str, strangers: tuple[str, ...], scopes: frozenset[str] = USER_SCOPES
) -> Speaker:
    """Make a user with a key of his own."""
    request = keys.CreateApiKeyRequest(user_id=user_id, scopes=sorted(scopes))
    made = await admin.ask(request, keys.CreateApiKeyResponse)
    return Speaker(
        role, user_id, f"user:{user_id}", bearer(made.secret), scopes, made.api_key.key_id, strangers=strangers
    )


async def bot_speaker(
    admin: Caller,
    role: str,
    service_id: str,
    user_id: str,
    strangers: tuple[str, ...],
    scopes: frozenset[str] = USER_SCOPES,
) -> Speaker:
    """Make a key of a service that acts for a user."""
    request = keys.CreateApiKeyRequest(service_id=service_id, act_as=[user_id], scopes=sorted(scopes))
    made = await admin.ask(request, keys.CreateApiKeyResponse)
    name = f"service:{service_id}"
    return Speaker(
        role,
        user_id,
        name,
        bearer(made.secret),
        scopes,
        made.api_key.key_id,
        strangers=strangers,
        actors=(name,),
    )
