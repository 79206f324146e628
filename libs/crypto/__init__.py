"""Keys, sealed values and blind indexes. A service holds one `Keys`; see docs/decisions/0002."""

from pathlib import Path

from libs.crypto.faults import CryptoFault, KeyDestroyed, KeyMissing, SealBroken
from libs.crypto.keys import BlindIndex, Keys, SealedRow, TenantKeys
from libs.crypto.keystore import FolderKeystore, Keystore, Kind
from libs.crypto.master import BadMasterKey, MasterKeys
from libs.crypto.seal import Column, DataKey, key_id_of
from libs.crypto.subject_keys import SubjectKeyRow
from libs.crypto.versions import LiveVersions, live_versions

__all__ = [
    "BadMasterKey",
    "BlindIndex",
    "Column",
    "CryptoFault",
    "DataKey",
    "FolderKeystore",
    "KeyDestroyed",
    "KeyMissing",
    "Keys",
    "Keystore",
    "Kind",
    "LiveVersions",
    "MasterKeys",
    "SealBroken",
    "SealedRow",
    "SubjectKeyRow",
    "TenantKeys",
    "key_id_of",
    "live_versions",
    "open_keys",
]


def open_keys(service: str, keystore: Path, master_key: str) -> Keys:
    """The keys of `service` in the directory `keystore` (setting REGULARS_KEYSTORE).

    Raises BadMasterKey (REGULARS_MASTER_KEY is missing or malformed), CryptoFault (the directory is not
    private).
    """
    return Keys(FolderKeystore(keystore, service, MasterKeys(master_key)))
