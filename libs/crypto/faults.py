"""What goes wrong inside the crypto: never a refusal for a caller, so Boundary answers INTERNAL."""


class CryptoFault(Exception):
    """Sealed data or a key is not as it must be. The text names ids and versions, never a key or a value."""


class KeyMissing(CryptoFault):
    """The keystore has no such key: the tenant was never made here, or the keystore is not the database's."""


class KeyDestroyed(CryptoFault):
    """The key was destroyed on purpose; what it sealed can never be read again."""


class SealBroken(CryptoFault):
    """A sealed value was changed, moved to another place, or sealed under another key."""
