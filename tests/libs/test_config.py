"""Settings: what wins, what is refused, and that all faults come at once."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from libs.config import ConfigError, Settings, load


@dataclass(frozen=True, kw_only=True)
class LoyaltySettings(Settings):
    points_per_unit: int = 1


def test_defaults_hang_on_each_other() -> None:
    settings = load(Settings, "loyalty", {"REGULARS_HOME": "/tmp/r", "REGULARS_GRPC_PORT": "7000"})
    assert settings.keystore == Path("/tmp/r/keystore")
    assert settings.grpc_port_of("loyalty") == 7001
    assert settings.metrics_port_of("loyalty") == 7011
    assert settings.address_of("customers") == "127.0.0.1:7000"


def test_the_services_own_variable_wins_and_stays_its_own() -> None:
    env = {"REGULARS_DB_POOL": "4", "REGULARS_LOYALTY_DB_POOL": "9", "REGULARS_LOYALTY_GRPC_PORT": "5"}
    assert load(Settings, "loyalty", env).db_pool == 9
    customers = load(Settings, "customers", env)
    assert customers.db_pool == 4
    assert customers.grpc_port_of("customers") == 9090
    assert customers.address_of("loyalty") == "127.0.0.1:5"


def test_values_of_every_kind() -> None:
    env = {
        "REGULARS_CORS_ORIGINS": "https://a.example, https://b.example",
        "REGULARS_CLOCK": "2026-01-31T12:00:00Z",
        "REGULARS_LOG_LEVEL": "debug",
        "REGULARS_DEADLINE_SECONDS": "2.5",
        "REGULARS_CUSTOMERS_ADDRESS": "customers.internal:9000",
        "HOME": "/root",
    }
    settings = load(Settings, None, env)
    assert settings.cors_origins == ("https://a.example", "https://b.example")
    assert settings.clock == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert (settings.log_level, settings.deadline_seconds) == ("DEBUG", 2.5)
    assert settings.address_of("customers") == "customers.internal:9000"


def test_all_faults_at_once_and_unknown_ones_by_name() -> None:
    env = {
        "REGULARS_DB_POOL": "many",
        "REGULARS_RPC_LIMIT": "0",
        "REGULARS_DATABASE": "Bad Name",
        "REGULARS_LOG_LEVEL": "loud",
        "REGULARS_CLOCK": "noon",
        "REGULARS_DBPOOL": "4",
        "REGULARS_LOYALTY_POINTS_PER_UNIT": "2",
        "REGULARS_PRIVACY_ADDRESS": "nowhere",
        "REGULARS_SEGMENTS_GRPC_PORT": "x",
    }
    with pytest.raises(ConfigError) as refused:
        load(Settings, "customers", env)
    named = {fault.split(":")[0] for fault in refused.value.faults}
    assert named == set(env) - {"REGULARS_LOYALTY_POINTS_PER_UNIT"}
    assert load(LoyaltySettings, "loyalty", {"REGULARS_LOYALTY_POINTS_PER_UNIT": "2"}).points_per_unit == 2


def test_secrets_come_from_files_and_are_never_shown(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("hush\n")
    settings = load(Settings, "customers", {"REGULARS_MASTER_KEY_FILE": str(key)})
    assert settings.master_key == "hush"
    assert "hush" not in repr(settings)
    with pytest.raises(ConfigError, match="given twice"):
        load(Settings, None, {"REGULARS_MASTER_KEY_FILE": str(key), "REGULARS_MASTER_KEY": "hush"})
    with pytest.raises(ConfigError, match="cannot be read"):
        load(Settings, None, {"REGULARS_MASTER_KEY_FILE": str(tmp_path / "none")})
