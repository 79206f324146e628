"""Checks the contracts: `python -m protos.check`; with --accept it also makes them the new baseline."""

import argparse
import sys
from collections.abc import Callable

from protos import buf
from protos.build import DESCRIPTORS, GEN, PROTOS, ROOT

Check = Callable[[], list[str]]


def main(arguments: list[str] | None = None) -> int:
    """Runs every check and prints what it found; 1 if that is anything."""
    parser = argparse.ArgumentParser(prog="python -m protos.check", description=__doc__)
    parser.add_argument(
        "--accept",
        action="store_true",
        help="keep the contracts as the baseline that later ones must not break, even if they break this one",
    )
    accept: bool = parser.parse_args(arguments).accept
    if _stale():
        print("gen/ is older than the protos: run `make proto` first.", file=sys.stderr)
        return 1
    # Only now: it imports the generated code.
    from protos import permissions, rules

    checks: dict[str, Check] = {
        "form": buf.misformed,
        "lint": buf.lint,
        "comments": lambda: [f"{name}: no comment" for name in rules.uncommented()],
        "house rules": rules.faults,
        "docs/permissions.md": permissions.stale,
    }
    results = [_passes(name, check) for name, check in checks.items()]
    if accept:
        _accept()
    else:
        results.append(_passes("breaking changes", _broken, _WHY_BROKEN))
    return 0 if all(results) else 1


_WHY_BROKEN = (
    "Clients were promised what is in protos/baseline.binpb.gz. Keep it beside the new (v2 beside v1 for a\n"
    "release), or, if nobody was given it yet, accept the contracts as they are: python -m protos.check --accept"
)


def _passes(name: str, check: Check, why: str = "") -> bool:
    found = check()
    print(f"protos: {name}: {'ok' if not found else f'{len(found)} found'}")
    for line in found:
        print(f"  {line}")
    if found and why:
        print(why)
    return not found


def _broken() -> list[str]:
    from protos import rules

    before = buf.baseline()
    if before == buf.without_comments(buf.current()):
        return []
    return [*buf.breaking(before), *rules.gone(before)]


def _accept() -> None:
    for line in _broken() if buf.BASELINE.exists() else []:
        print(f"  accepted: {line}")
    buf.accept(buf.current())
    print(f"protos: {buf.BASELINE.relative_to(ROOT)} is the contracts as they are now.")


def _stale() -> bool:
    made = GEN / DESCRIPTORS
    sources = [*PROTOS.glob("regulars/**/*.proto"), PROTOS / "build.py"]
    return not made.exists() or made.stat().st_mtime < max(source.stat().st_mtime for source in sources)


if __name__ == "__main__":
    sys.exit(main())
