"""People who do not exist: the same ones for the same seed, with names as unevenly spread as real ones are."""

import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

FIRST = (Path(__file__).parent / "first_names.txt").read_text().split()
LAST = (Path(__file__).parent / "last_names.txt").read_text().split()
DOMAINS = [
    "gmail.com",
    "yahoo.com",
    "outlook.com",
    "hotmail.com",
    "icloud.com",
    "web.de",
    "gmx.net",
    "orange.fr",
]
DOMAINS += ["libero.it", "mail.ru", "proton.me", "aol.com", "live.com", "msn.com", "t-online.de", "free.fr"]


@dataclass(frozen=True, slots=True)
class Someone:
    """A person who does not exist. `phone` is E.164 in form only."""

    first: str
    last: str
    email: str
    phone: str


def invented(seeds: Sequence[str], count: int, dice: random.Random) -> list[str]:
    """`count` new words that sound like `seeds`: letters by the three before them."""
    follows: dict[str, list[str]] = defaultdict(list)
    for word in seeds:
        if word.isascii():
            padded = f"^^^{word.lower()}$"
            for i in range(len(padded) - 3):
                follows[padded[i : i + 3]].append(padded[i + 3])
    found: dict[str, None] = {}
    order = 3
    while len(found) < count:
        word, state = "", "^" * order
        while len(word) < 14:
            # Now and then a letter from elsewhere, or the seeds would soon be used up.
            letters = follows.get(state) if dice.random() < 0.93 else follows[dice.choice(_states(follows))]
            letter = dice.choice(letters or ["$"])
            if letter == "$":
                break
            word, state = word + letter, (state + letter)[-order:]
        if len(word) >= 4:
            found.setdefault(word.title())
    return list(found)


_cache: dict[int, list[str]] = {}


def _states(follows: dict[str, list[str]]) -> list[str]:
    if id(follows) not in _cache:
        _cache.clear()
        _cache[id(follows)] = sorted(follows)
    return _cache[id(follows)]


def people(count: int, seed: int = 20260101) -> Iterator[Someone]:
    """`count` people, each with an e-mail and a phone that nobody else has."""
    dice = random.Random(seed)
    firsts, lasts = list(dict.fromkeys(FIRST)), list(dict.fromkeys(LAST))
    rare_firsts, rare_lasts = invented(firsts, 7_000, dice), invented(lasts, 80_000, dice)
    first_odds = list(itertools.accumulate(1 / (i + 3) ** 0.8 for i in range(len(firsts))))
    last_odds = list(itertools.accumulate(1 / (i + 3) ** 0.8 for i in range(len(lasts))))
    for i in range(count):
        first = (
            dice.choices(firsts, cum_weights=first_odds)[0]
            if dice.random() < 0.85
            else dice.choice(rare_firsts)
        )
        last = (
            dice.choices(lasts, cum_weights=last_odds)[0] if dice.random() < 0.6 else dice.choice(rare_lasts)
        )
        local = "".join(c for c in f"{first}.{last}".lower() if c.isascii() and (c.isalnum() or c == "."))
        domain = DOMAINS[min(int(dice.expovariate(0.4)), len(DOMAINS) - 1)]
        yield Someone(
            first, last, f"{local.strip('.')}{i:x}@{domain}", f"+1{2_000_000_000 + i * 7919 % 7_999_999_993}"
        )
