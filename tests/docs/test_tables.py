"""Tables, links and names in the documents agree with the code."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import pytest
import typer.main

from libs import config, contracts
from libs.config import ROOT, SERVICES, Settings
from libs.problems import Problem
from libs.run import cli
from regulars.options.v1 import options_pb2
from services.gateway.settings import GatewaySettings
from tests.docs.reading import document, documents

_ROW = re.compile(r"^\| `(REGULARS_[A-Z_]+)`[ *]*\| ([^|]*)\|", re.M)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_PATH = re.compile(r"`((?:libs|services|protos|tests|docs|deploy|bench)/[\w./-]*\w/?)`")


def _settings() -> dict[str, Field[Any]]:
    common = {f"REGULARS_{f.name.upper()}": f for f in fields(Settings) if not f.metadata.get("derived")}
    known = {f.name for f in fields(Settings)}
    own = {f"REGULARS_GATEWAY_{f.name.upper()}": f for f in fields(GatewaySettings) if f.name not in known}
    return common | own


def test_every_setting_is_in_the_table_and_no_other() -> None:
    listed = [name for name, _ in _ROW.findall(document("docs/operations.md"))]
    assert len(listed) == len(set(listed))
    assert set(listed) == {*_settings(), "REGULARS_CUSTOMERS_ADDRESS"}


def test_the_table_tells_the_defaults() -> None:
    listed = {name: text.strip() for name, text in _ROW.findall(document("docs/operations.md"))}
    for variable, field in _settings().items():
        default = field.default
        if isinstance(default, bool):
            default = str(default).lower()
        elif isinstance(default, float) and default.is_integer():
            default = int(default)
        elif isinstance(default, Path) and default.is_absolute():
            default = default.relative_to(ROOT)
        elif field.metadata.get("under_home"):
            default = f"HOME/{field.metadata['under_home']}"
        if default not in ("", (), None, -1):
            assert listed[variable].strip("`") == str(default), variable


def test_secrets_are_marked() -> None:
    text = document("docs/operations.md")
    for variable, field in _settings().items():
        marked = f"| `{variable}` * |" in text
        assert marked == bool(field.metadata.get("secret")), variable


def _problems(kind: type[Problem] = Problem) -> Iterator[type[Problem]]:
    for below in kind.__subclasses__():
        yield below
        yield from _problems(below)


def test_every_reason_of_a_refusal_is_in_the_table() -> None:
    shown = document("docs/api.md")
    here = (kind for kind in _problems() if kind.__module__.split(".")[0] in {"libs", "services"})
    missing = {kind.reason for kind in here if f"`{kind.reason}`" not in shown}
    assert not missing


def test_every_event_is_in_the_table_and_no_other() -> None:
    messages = (message for file in contracts.files() for message in contracts.messages(file))
    subjects = ((str(m.name), str(m.GetOptions().Extensions[options_pb2.event].subject)) for m in messages)
    found = {(name, subject) for name, subject in subjects if subject}
    rows = re.findall(r"^\| `(customers\.[a-z_.]+)` \| `(\w+)`", document("docs/events.md"), re.M)
    assert {(name, subject) for subject, name in rows} == found


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_paths_lead_somewhere(path: Path) -> None:
    text = path.read_text()
    links = (link.partition("#")[0] for link in _LINK.findall(text) if "://" not in link)
    dead = [link for link in links if link and not (path.parent / link).exists()]
    if "decisions" not in path.parts:  # they stand as they were written
        dead += [name for name in _PATH.findall(text) if not _exists(name)]
    assert not dead


def _exists(name: str) -> bool:
    """True for a path of the repository, and for a module without its `.py`."""
    return (ROOT / name).exists() or (ROOT / f"{name}.py").exists()


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_that_are_named_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", document("Makefile"), re.M))
    commands = typer.main.get_command(cli.whole()).commands  # type: ignore[attr-defined]
    named = path.read_text()
    for target in re.findall(r"(?:`|^)make ((?:[a-z-]+ ?)+)(?:`|$|  )", named, re.M):
        assert set(target.split()) <= targets, target
    for command, below in re.findall(r"(?:`|^|\()regulars ([a-z]+)(?: ([a-z-]+))?", named, re.M):
        assert command in commands, command
        group = getattr(commands[command], "commands", None)
        assert group is None or not below or below in group, f"{command} {below}"


def test_every_service_says_what_it_is() -> None:
    for service in SERVICES:
        text = document(f"services/{service}/README.md").lower()
        for word in ("owns", "promises", "emits", "hears", "never"):
            assert word in text, f"{service}: {word}"


def test_roles_that_are_named_exist() -> None:
    roles = set(tomllib.loads((config.ROOT / "services" / "roles.toml").read_text())["roles"])
    table = document("docs/security.md").partition("| role | may |")[2].partition("\n\n")[0]
    assert roles == set(re.findall(r"^\| ([a-z]+) \|", table, re.M))
