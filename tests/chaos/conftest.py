"""Personal values for the workload."""

from tests.scan.sentinels import sentinels

__all__ = ["sentinels"]
