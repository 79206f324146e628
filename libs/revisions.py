"""Where the migrations of a service lie, and which is the newest. Known without the tool that runs them."""

from pathlib import Path

from libs import config

PLUMBING = Path(__file__).parent / "migrations"
SERVICES = config.ROOT / "services"


def directories(service: str) -> list[tuple[str, Path]]:
    """The lines of migrations of `service`, in their order: (version table, directory)."""
    both = [("plumbing_version", PLUMBING), ("schema_version", SERVICES / service / "migrations")]
    return [(table, path) for table, path in both if path.is_dir()]


def newest(service: str) -> dict[str, str | None]:
    """The newest revision of each line, by its version table. A file is named after its revision: `0003_…`."""
    return {
        table: max((file.name.partition("_")[0] for file in path.glob("[0-9]*.py")), default=None)
        for table, path in directories(service)
    }
