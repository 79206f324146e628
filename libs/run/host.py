"""Hosts one or several services in this process: `regulars serve`."""

import asyncio
import importlib
import signal
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from libs import config
from libs.run.service import running


def declaration(name: str) -> Any:
    """What `services.<name>.__main__` declares as SERVICE; libs import no service by name."""
    return importlib.import_module(f"services.{name}.__main__").SERVICE
