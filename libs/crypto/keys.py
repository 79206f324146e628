"""The keys of one service as its code sees them: seal, open, and find, for one tenant at a time."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from os import urandom
from typing import NamedTuple
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from libs.audit import Reading
from libs.crypto import subject_keys
from libs.crypto.blind_index import blind_index
from libs.crypto.faults import KeyDestroyed, KeyMissing
from libs.crypto.keystore import Keystore, Kind
from libs.crypto.seal import Column, DataKey, open_sealed, seal
from libs.crypto.search_tokens import SearchTokens
from libs.crypto.subject_keys import DATA_KEY_BYTES, SubjectKeyRow
from libs.crypto.versions import LiveVersions, add_first_versions
from libs.db import Tx
from libs.ids import new_id

# How long a process may go on with keys that another one has destroyed, or without one that it has added.
REFRESH_SECONDS = 30.0
MAX_TENANTS = 10_000


class SealedRow(NamedTuple):
    """What opens one value: whom it is about, its row, its data key as stored, and the sealed value."""

    customer_id: UUID
    row_id: UUID
    key_id: UUID
    epoch: int
    wrapped: bytes | None
    sealed: bytes


class BlindIndex(NamedTuple):
    """A fingerprint and the version of the key that made it."""

    key_version: int
    digest: bytes


class TenantKeys:
    """The keys of one tenant. Tenant keys stay in memory for a while, data keys never longer than a call."""

    def __init__(self, keystore: Keystore, tenant_id: UUID) -> None:
        """Raises KeyMissing if the keystore does not know the tenant."""
        self.tenant_id = tenant_id
        self.fresh_until = 0.0
        self._keystore = keystore
        self._keks: dict[int, AESGCM] = {}
        self._secrets: dict[tuple[Kind, int], bytes] = {}
        self._search_tokens: dict[int, SearchTokens] = {}
        self.refresh()

    def refresh(self) -> None:
        """Learns the versions that the keystore has, and forgets the keys that were destroyed."""
        live = self._keystore.versions(self.tenant_id)
        self._newest = {kind: versions[-1] for kind, versions in live.items() if versions}
        self._keks = {epoch: kek for epoch, kek in self._keks.items() if epoch in live[Kind.KEK]}
        self._secrets = {at: key for at, key in self._secrets.items() if at[1] in live[at[0]]}
        self._search_tokens = {v: made for v, made in self._search_tokens.items() if v in live[Kind.SEARCH]}
        self.fresh_until = time.monotonic() + REFRESH_SECONDS

    def secret(self, kind: Kind, version: int) -> bytes:
        """One tenant key. Raises KeyMissing, KeyDestroyed."""
        found = self._secrets.get((kind, version))
        if found is None:
            found = self._secrets[kind, version] = self._keystore.key(self.tenant_id, kind, version)
        return found

    @property
    def page_token_key(self) -> bytes:
        """The key that seals page tokens."""
        return self._newest_secret(Kind.PAGE_TOKEN)

    @property
    def request_hash_key(self) -> bytes:
        """The key of request fingerprints."""
        return self._newest_secret(Kind.REQUEST_HASH)

    def new_subject_key(
        self, live: LiveVersions, subject_id: UUID, now: datetime
    ) -> tuple[SubjectKeyRow, DataKey]:
        """A new data key for a person, and the row that the caller inserts in the transaction of `live`."""
        key_id, secret = new_id(), urandom(DATA_KEY_BYTES)
        return self.row_of_key(live, subject_id, key_id, secret, now), DataKey(key_id, secret)

    def row_of_key(
        self, live: LiveVersions, subject_id: UUID, key_id: UUID, secret: bytes, now: datetime
    ) -> SubjectKeyRow:
        """The row of a data key that was in use before the transaction of `live` began, as a file's is."""
        wrapped = subject_keys.wrap(self._kek(live.epoch), self.tenant_id, key_id, secret)
        return SubjectKeyRow(self.tenant_id, key_id, subject_id, live.epoch, wrapped, now)

    def unwrap(self, key_id: UUID, epoch: int, wrapped: bytes | None) -> DataKey:
        """The data key of a row of `subject_keys`.

        Raises KeyDestroyed for a destroyed key (None) or epoch, KeyMissing, SealBroken.
        """
        return DataKey(key_id, self.unwrapped(key_id, epoch, wrapped))

    def unwrapped(self, key_id: UUID, epoch: int, wrapped: bytes | None) -> bytes:
        """The secret of a data key, for what seals more than values of rows. Raises as `unwrap` does."""
        if wrapped is None:
            raise KeyDestroyed(f"Data key {key_id} was destroyed.")
        kek = self._keks.get(epoch) or self._kek(epoch)
        return subject_keys.unwrap(kek, self.tenant_id, key_id, wrapped)

    def rewrap(self, key_id: UUID, wrapped: bytes, old: int, new: int) -> bytes:
        """The same data key under another epoch."""
        secret = subject_keys.unwrap(self._kek(old), self.tenant_id, key_id, wrapped)
        return subject_keys.wrap(self._kek(new), self.tenant_id, key_id, secret)

    def seal(self, key: DataKey, column: Column, row_id: UUID, plaintext: bytes) -> bytes:
        """`plaintext` as it is stored in this column of this row."""
        return seal(key, column.at(self.tenant_id, row_id), plaintext)

    def open(
        self, reading: Reading, customer_id: UUID, key: DataKey, column: Column, row_id: UUID, sealed: bytes
    ) -> bytes:
        """The plaintext of one stored value, about `customer_id`. Raises SealBroken."""
        return open_sealed(reading, customer_id, key, column.at(self.tenant_id, row_id), sealed)

    def open_all(self, reading: Reading, column: Column, rows: Iterable[SealedRow]) -> list[bytes]:
        """The plaintexts of one column of many rows, in their order. Raises as `unwrap` and `open` do."""
        tenant_id = self.tenant_id
        return [
            open_sealed(
                reading,
                row.customer_id,
                self.unwrap(row.key_id, row.epoch, row.wrapped),
                column.at(tenant_id, row.row_id),
                row.sealed,
            )
            for row in rows
        ]

    def blind_indexes(self, live: LiveVersions, kind: str, value: str) -> list[BlindIndex]:
        """The fingerprints of a normalised identifier that a write must store, one per live key version."""
        versions = live.written[Kind.IDENTIFIER]
        return [BlindIndex(v, blind_index(self.secret(Kind.IDENTIFIER, v), kind, value)) for v in versions]

    def blind_index(self, live: LiveVersions, kind: str, value: str) -> BlindIndex:
        """The fingerprint that a look-up asks for."""
        version = live.current[Kind.IDENTIFIER]
        return BlindIndex(version, blind_index(self.secret(Kind.IDENTIFIER, version), kind, value))

    def search_tokens(self, version: int, bits: Mapping[str, int]) -> SearchTokens:
        """What makes search tokens with this version of the search key. Raises KeyMissing, KeyDestroyed."""
        found = self._search_tokens.get(version)
        if found is None:
            found = self._search_tokens[version] = SearchTokens(self.secret(Kind.SEARCH, version), bits)
        return found

    def _kek(self, epoch: int) -> AESGCM:
        kek = self._keks.get(epoch)
        if kek is None:
            key = self._keystore.key(self.tenant_id, Kind.KEK, epoch)
            kek = self._keks[epoch] = AESGCM(key)
        return kek

    def _newest_secret(self, kind: Kind) -> bytes:
        version = self._newest.get(kind)
        if version is None:
            raise KeyMissing(f"Tenant {self.tenant_id} has no live {kind} key.")
        return self.secret(kind, version)


class Keys:
    """All keys of one service: the one object that its runtime holds."""

    def __init__(self, keystore: Keystore) -> None:
        self.keystore = keystore
        self._tenants: dict[UUID, TenantKeys] = {}

    def for_tenant(self, tenant_id: UUID) -> TenantKeys:
        """The keys of one tenant; reads a few small files when it does not know them. Raises KeyMissing."""
        keys = self._tenants.get(tenant_id)
        if keys is None:
            if len(self._tenants) >= MAX_TENANTS:
                del self._tenants[next(iter(self._tenants))]
            keys = self._tenants[tenant_id] = TenantKeys(self.keystore, tenant_id)
        elif time.monotonic() > keys.fresh_until:
            keys.refresh()
        return keys

    async def create_tenant(self, tx: Tx) -> None:
        """Makes the keys of the tenant of `tx`, who is being created or first heard of. Safe to repeat."""
        await asyncio.to_thread(self.keystore.create_tenant, tx.tenant_id)
        await add_first_versions(tx)
