"""Which models a caller may name."""

from hypothesis import given
from hypothesis import strategies as st
from parley_server.domain.errors import UnknownModelError
from parley_server.llm.model_catalog import ModelCatalog, catalog_of
from parley_server.llm.model_settings import ModelSettings, ProviderSettings

names = st.text("ab*", min_size=1, max_size=4)


def settings(**fields: object) -> ModelSettings:
    return ModelSettings.model_validate({"base_url": "http://main/v1", "name": "big", **fields})


def may_name(catalog: ModelCatalog, model: str) -> bool:
    try:
        catalog.check(model)
    except UnknownModelError:
        return False
    return True


@given(
    model=names,
    allowed=st.lists(st.builds(str.__add__, st.text("ab", min_size=1, max_size=3), st.sampled_from(["", "*"]))),
)
def test_a_name_is_allowed_that_is_one_or_begins_as_a_pattern_does(model: str, allowed: list[str]) -> None:
    expected = any(model.startswith(each[:-1]) if each.endswith("*") else model == each for each in allowed)
    assert may_name(catalog_of(settings(allowed=allowed), {}), model) == expected


def test_the_default_comes_first_and_every_model_once() -> None:
    provider = ProviderSettings.model_validate({"base_url": "http://second/v1", "models": ["theirs", "spare", "more"]})
    main = settings(fallbacks=["spare", "big"], allowed=["more", "own", "x*"])
    catalog = catalog_of(main, {"second": provider})
    assert [(model.name, model.provider) for model in catalog.models] == [
        ("big", "default"),
        ("spare", "second"),
        ("theirs", "second"),
        ("more", "second"),
        ("own", "default"),
    ]
    assert catalog.patterns == ("x*",)
    assert all(may_name(catalog, name) for name in ("big", "spare", "theirs", "more", "own", "xy"))
    assert not any(may_name(catalog, name) for name in ("", "bigger", "x*y"[1:]))


def test_by_default_nothing_may_be_named_but_the_default() -> None:
    catalog = catalog_of(settings(), {})
    assert [may_name(catalog, name) for name in ("big", "other")] == [True, False]
