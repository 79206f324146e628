"""What a stack makes for itself unless it is given: master key, development issuer, keys between services."""

from collections.abc import Iterable

from libs import config
from libs.crypto.master import ensure_master_key
from libs.internal_keys import InternalIssuer
from libs.issuer import make_issuer
from libs.run.stack.home import Home


def ensure(settings: config.Settings, home: Home, services: Iterable[str]) -> dict[str, str]:
    """Makes what is missing before the first service starts; gives the variables that tell of it."""
    if not settings.oidc_issuer:
        make_issuer(home.root)
    for name in services:
        InternalIssuer(name, settings.internal_keys)
    if settings.master_key:
        return {}
    path = home.secrets / "master.key"
    ensure_master_key(path)
    return {"REGULARS_MASTER_KEY_FILE": str(path)}
