"""`parley-server models check`: asks the model servers of the settings what they take."""

import json
from collections.abc import Callable, Iterator, Mapping

from parley_server.llm.check.asker import Asker
from parley_server.llm.check.questions import MAX_QUESTIONS
from parley_server.llm.check.survey import survey
from parley_server.llm.check.verdict import corrections, lines_of
from parley_server.llm.factory import offline_model
from parley_server.llm.model_settings import ModelServerSettings, ModelSettings, ProviderSettings, without_credentials
from parley_server.llm.provider_profiles import profile_of

AGREES, DIFFERS, UNUSABLE = 0, 1, 3
QUESTION_TIMEOUT_S = 60.0

_Target = tuple[str, ModelServerSettings, str]


async def check_models(
    main: ModelSettings | None,
    providers: Mapping[str, ProviderSettings],
    model: str,
    say: Callable[[str], None],
    timeout_s: float = QUESTION_TIMEOUT_S,
) -> int:
    """Ask for one model, or with an empty name for one of every server; say line by line what came of it.

    Returns AGREES, DIFFERS when the profile in use is wrong in something, UNUSABLE when a server does not answer.
    """
    if main is None:
        async with offline_model() as offline:
            return await check_models(offline, providers, model, say, timeout_s)
    targets = list(_targets(main, providers, model))
    say(f"{MAX_QUESTIONS * len(targets)} questions at most, of {timeout_s:g} s each at most")
    return max([await _check(*target, say, timeout_s) for target in targets])


def _targets(main: ModelSettings, providers: Mapping[str, ProviderSettings], model: str) -> Iterator[_Target]:
    places: dict[str, _Target] = {
        listed: (f"providers.{name}", provider, listed)
        for name, provider in providers.items()
        for listed in provider.models
    }
    if model:
        yield places.get(model, ("model", main, model))
        return
    if main.name not in places:
        yield "model", main, main.name
    yield from (places[provider.models[0]] for provider in providers.values())


async def _check(
    table: str, server: ModelServerSettings, model: str, say: Callable[[str], None], timeout_s: float
) -> int:
    profile = profile_of(server.base_url, model, server.profile)
    say(f"\n[{table}] {model} at {without_credentials(server.base_url)}, asked as {profile.kind}")
    async with Asker(server, timeout_s) as asker:
        found = await survey(asker, model, profile)
    for name, words in lines_of(found):
        say(f"  {name:<15}{words}")
    if not found.is_usable:
        return UNUSABLE
    right = corrections(found, profile)
    if not right:
        say(f"  the profile is right ({asker.asked} questions)")
        return AGREES
    say(f"  the profile is wrong ({asker.asked} questions); write\n\n[{table}.profile]")
    for name, value in right.items():
        say(f"{name} = {json.dumps(value)}")
    return DIFFERS
