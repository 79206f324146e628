"""The tokens of a customer, under one version of the tenant's search key."""

from collections.abc import Iterable

from libs.crypto import TenantKeys
from libs.crypto.search_tokens import SearchTokens
from services.customers.profiles.rules import Profile, Source
from services.customers.search import rules
from services.customers.search.folding import fold


def with_version(keys: TenantKeys, version: int) -> SearchTokens:
    """What makes the tokens of this version of the key."""
    return keys.search_tokens(version, rules.BITS)


def of_person(tokens: SearchTokens, profile: Profile) -> set[int]:
    """The tokens of names, e-mail and phone."""
    found: set[int] = set()
    known = {name: getattr(profile, name) for name in rules.SEARCHED}
    for word in rules.names_of(known):
        found.update(tokens.of(rules.word_terms, word))
    if profile.email:
        # An e-mail is one person's: nothing is won by remembering its tokens.
        found |= tokens.all(rules.email_terms(fold(profile.email)))
    if profile.phone:
        found |= tokens.all(rules.phone_terms(profile.phone.lstrip("+")))
    return found


def of_sources(tokens: SearchTokens, business_id: object, sources: Iterable[Source]) -> set[int]:
    """The tokens of the external ids that one business knows a customer by."""
    return {
        tokens.token(*term)
        for source in sources
        if source.external_id
        for term in rules.external_terms(rules.external_key(business_id, source.external_id))
    }


def of_city(tokens: SearchTokens, city: str) -> int | None:
    """The token of a city, None for none."""
    return next((tokens.token(*term) for term in rules.city_terms(city) if term[1]), None)
