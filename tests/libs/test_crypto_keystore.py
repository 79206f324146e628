"""The keystore: private, durable, one key per version whoever makes it, and nothing comes back."""

import os
import stat
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from uuid import UUID

import pytest

from libs.crypto import BadMasterKey, CryptoFault, FolderKeystore, KeyDestroyed, KeyMissing, Kind, MasterKeys
from libs.crypto.master import ensure_master_key, new_master_key
from libs.ids import new_id

MASTER = new_master_key()
TENANT = new_id()


def opened(folder: Path, master: str = MASTER, service: str = "customers") -> FolderKeystore:
    return FolderKeystore(folder / "keystore", service, MasterKeys(master))


@pytest.fixture
def keystore(tmp_path: Path) -> FolderKeystore:
    keystore = opened(tmp_path)
    keystore.create_tenant(TENANT)
    return keystore


def files(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "keystore").rglob("*") if path.is_file())


def test_a_new_tenant_has_one_key_of_each_kind(keystore: FolderKeystore, tmp_path: Path) -> None:
    assert keystore.versions(TENANT) == dict.fromkeys(Kind, (1,))
    keys = {keystore.key(TENANT, kind, 1) for kind in Kind}
    assert len(keys) == len(Kind)
    assert {len(key) for key in keys} == {32}
    keystore.create_tenant(TENANT)
    assert {opened(tmp_path).key(TENANT, kind, 1) for kind in Kind} == keys


def test_only_the_owner_may_look(keystore: FolderKeystore, tmp_path: Path) -> None:
    for path in (tmp_path / "keystore").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
    (tmp_path / "keystore" / "customers").chmod(0o755)
    opened(tmp_path)
    assert stat.S_IMODE((tmp_path / "keystore" / "customers").stat().st_mode) == 0o700


def test_no_key_is_on_disk_in_clear(keystore: FolderKeystore, tmp_path: Path) -> None:
    content = b"".join(path.read_bytes() for path in files(tmp_path))
    assert not any(keystore.key(TENANT, kind, 1) in content for kind in Kind)


def test_unknown_keys_are_missing(keystore: FolderKeystore) -> None:
    with pytest.raises(KeyMissing):
        keystore.key(TENANT, Kind.KEK, 2)
    for call in (keystore.versions, lambda tenant: keystore.add_version(tenant, Kind.KEK, 2)):
        with pytest.raises(KeyMissing):
            call(new_id())


def test_a_destroyed_key_never_comes_back(keystore: FolderKeystore, tmp_path: Path) -> None:
    keystore.add_version(TENANT, Kind.KEK, 2)
    old = (tmp_path / "keystore" / "customers" / str(TENANT) / "kek.1").read_bytes()
    for _ in range(2):
        keystore.destroy(TENANT, Kind.KEK, 1)
    keystore.destroy(TENANT, Kind.SEARCH, 7)
    for kind, version in ((Kind.KEK, 1), (Kind.SEARCH, 7)):
        with pytest.raises(KeyDestroyed):
            keystore.key(TENANT, kind, version)
        with pytest.raises(KeyDestroyed):
            keystore.add_version(TENANT, kind, version)
    keystore.create_tenant(TENANT)
    opened(tmp_path, f"{new_master_key()},{MASTER}").rewrap()
    assert keystore.versions(TENANT)[Kind.KEK] == (2,)
    assert not any(old in path.read_bytes() for path in files(tmp_path))


def test_a_closed_tenant_gets_no_new_keys(keystore: FolderKeystore) -> None:
    for kind in Kind:
        keystore.destroy(TENANT, kind, 1)
    keystore.create_tenant(TENANT)
    assert keystore.versions(TENANT) == dict.fromkeys(Kind, ())


def test_a_copy_that_a_dying_writer_left_goes_with_its_key(keystore: FolderKeystore, tmp_path: Path) -> None:
    key = tmp_path / "keystore" / "customers" / str(TENANT) / "kek.1"
    os.link(key, key.with_name(".kek.1.123.abcd"))
    keystore.destroy(TENANT, Kind.KEK, 1)
    assert [path.name for path in key.parent.glob(".*")] == []


def test_a_key_opens_only_under_its_own_name(keystore: FolderKeystore, tmp_path: Path) -> None:
    folder = tmp_path / "keystore" / "customers" / str(TENANT)
    (folder / "kek.2").write_bytes((folder / "kek.1").read_bytes())
    changed = bytearray((folder / "search.1").read_bytes())
    changed[-1] ^= 1
    (folder / "search.1").write_bytes(changed)
    for kind, version in ((Kind.KEK, 2), (Kind.SEARCH, 1)):
        with pytest.raises(CryptoFault, match="was changed"):
            keystore.key(TENANT, kind, version)


def test_master_keys_rotate(keystore: FolderKeystore, tmp_path: Path) -> None:
    keys = {kind: keystore.key(TENANT, kind, 1) for kind in Kind}
    fresh = new_master_key()
    both = opened(tmp_path, f"{fresh}, {MASTER}")
    assert (both.rewrap(), both.rewrap()) == (len(Kind), 0)
    assert {kind: opened(tmp_path, fresh).key(TENANT, kind, 1) for kind in Kind} == keys
    with pytest.raises(CryptoFault, match="No master key"):
        keystore.key(TENANT, Kind.KEK, 1)


@pytest.mark.parametrize(
    "text", ["", "  ,", "short", "AAAA", "ä" * 44, MASTER[:-2], MASTER + ",x"], ids=range(7)
)
def test_a_bad_master_key_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(BadMasterKey) as refused:
        MasterKeys(text)
    assert not text.strip(" ,") or text not in str(refused.value)


def test_a_master_key_file_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "master.key"
    ensure_master_key(path)
    text = path.read_text()
    ensure_master_key(path)
    assert path.read_text() == text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    MasterKeys(text)


def test_services_do_not_share_keys(keystore: FolderKeystore, tmp_path: Path) -> None:
    loyalty = opened(tmp_path, service="loyalty")
    loyalty.create_tenant(TENANT)
    assert loyalty.key(TENANT, Kind.KEK, 1) != keystore.key(TENANT, Kind.KEK, 1)


def _make(folder: Path, master: str, tenant: UUID) -> list[bytes]:
    keystore = opened(folder, master)
    keystore.create_tenant(tenant)
    keystore.add_version(tenant, Kind.KEK, 2)
    return [keystore.key(tenant, kind, 1) for kind in Kind] + [keystore.key(tenant, Kind.KEK, 2)]


def test_processes_at_once_make_the_same_keys(tmp_path: Path) -> None:
    tenants = [new_id() for _ in range(10)]
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        made = [[pool.submit(_make, tmp_path, MASTER, tenant) for _ in range(4)] for tenant in tenants]
        for same in made:
            assert len({tuple(each.result()) for each in same}) == 1
    assert not [path for path in files(tmp_path) if path.name.startswith(".")]
