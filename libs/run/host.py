"""Hosts one or several services in this process: `regulars serve`."""

import importlib
from typing import Any


def declaration(name: str) -> Any:
    """What `services.<name>.__main__` declares as SERVICE; libs import no service by name."""
    return importlib.import_module(f"services.{name}.__main__").SERVICE
