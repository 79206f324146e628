"""What the code itself must not do, found in its syntax tree."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from libs.config import ROOT

MIGRATIONS = "migrations"
# Where an exception of any kind may end. Everywhere else it is handed on.
ENDS_HERE = {
    "libs/boundary.py": "every RPC ends there",
    "services/gateway/api.py": "every HTTP request ends there",
    "libs/audit.py": "the loop that moves the trail to the outbox",
    "libs/consumer.py": "the loop that fetches events",
    "libs/deliveries.py": "each event's failure is its own",
    "libs/job_runner.py": "the loop of jobs; each job's failure is its own",
    "services/customers/imports/child.py": "the process of one import; its end is told to the job",
    "services/loyalty/due.py": "each tenant's failure is its own, and told at the end",
    "services/loyalty/referrals/jobs.py": "each referral's failure is its own, and told at the end",
    "libs/leases.py": "the loop that holds a lease",
    "libs/relay.py": "the loop that publishes",
    "libs/run/loops.py": "the loop around every loop",
    "libs/timers.py": "the loop of timers; each task's failure is its own",
}
# SQL that is put together from names, never from values.
BUILT_SQL = {
    "libs/crypto/rotation.py": "constants of its own",
    "libs/db.py": "constants of its own",
    "libs/migrate.py": "names of roles, schemas and tables",
    "services/customers/imports/writing.py": "names of tables and columns, from a constant",
    "services/customers/orders/actions.py": "names of columns, from a constant",
    "services/customers/orders/metrics.py": "names of tables and columns, constants of its own",
    "services/loyalty/reports/cohorts.py": "constants of its own",
    "services/loyalty/reports/rewards.py": "names of columns and expressions, constants of its own",
}
_NOW = re.compile(r"\b(now|clock_timestamp|statement_timestamp)\(\)|\bcurrent_(timestamp|date|time)\b", re.I)


def sources() -> list[Path]:
    folders = (ROOT / name for name in ("libs", "services", "protos"))
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def at(path: Path, node: ast.expr | ast.stmt | ast.excepthandler) -> str:
    return f"{path.relative_to(ROOT)}:{node.lineno}"


def named(node: ast.AST | None) -> str:
    """`os.environ` of such an expression, "" of any other."""
    if isinstance(node, ast.Attribute):
        return f"{named(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def in_migrations(path: Path) -> bool:
    return MIGRATIONS in path.relative_to(ROOT).parts


def test_the_environment_is_read_in_one_place() -> None:
    reads = [
        at(path, node)
        for path in sources()
        if path != ROOT / "libs/config.py"
        for node in ast.walk(tree(path))
        if (isinstance(node, ast.Attribute) and named(node) in {"os.environ", "os.environb", "os.getenv"})
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and any(a.name == "environ" for a in node.names)
        )
    ]
    assert reads == []


def catches_all(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            broad = node.type is None or {named(kind) for kind in kinds} & {"Exception", "BaseException"}
            last = node.body[-1]
            if broad and not isinstance(last, ast.Raise):
                yield at(path, node)
        elif (
            isinstance(node, ast.Call)
            and named(node.func).endswith("suppress")
            and {named(each) for each in node.args} & {"Exception", "BaseException"}
        ):
            yield at(path, node)


def test_any_exception_ends_only_at_boundary_and_in_the_loops() -> None:
    caught = {str(path.relative_to(ROOT)): list(catches_all(path)) for path in sources()}
    assert [place for name, places in caught.items() if name not in ENDS_HERE for place in places] == []
    assert [name for name in ENDS_HERE if not caught.get(name)] == [], "listed for nothing"


def is_put_together(node: ast.expr) -> bool:
    """True for an f-string with something in it, `+`, `%` and `.format(…)` of text."""
    if isinstance(node, ast.JoinedStr):
        return any(isinstance(part, ast.FormattedValue) for part in node.values)
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Add | ast.Mod)
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "format"
        and (isinstance(node.func.value, ast.Constant | ast.JoinedStr))
    )


def statements(path: Path) -> Iterator[ast.expr]:
    """What is given to text(), SQL() or a method that runs SQL."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and node.args:
            name = named(node.func).rpartition(".")[2]
            if name in {"text", "SQL", "execute", "executemany", "exec_driver_sql", "copy", "scalar"}:
                yield node.args[0]


def test_no_value_is_written_into_sql() -> None:
    built = {
        str(path.relative_to(ROOT)): [at(path, sql) for sql in statements(path) if is_put_together(sql)]
        for path in sources()
        if not in_migrations(path)
    }
    assert [place for name, places in built.items() if name not in BUILT_SQL for place in places] == []


def test_sql_is_given_the_instant() -> None:
    """`REGULARS_CLOCK` moves what the code calls now; the database's own clock would not follow."""
    told = [
        at(path, part)
        for path in sources()
        if not in_migrations(path)
        for sql in statements(path)
        for part in ast.walk(sql)
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and _NOW.search(part.value)
    ]
    asked = [
        at(path, node)
        for path in sources()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and named(node) in {"func.now", "sqlalchemy.func.now"}
    ]
    assert told + asked == []


@pytest.mark.parametrize(
    "path", [p for p in sources() if in_migrations(p)], ids=lambda p: str(p.relative_to(ROOT))
)
def test_migrations_import_none_of_our_code(path: Path) -> None:
    modules = {
        name.partition(".")[0]
        for node in ast.walk(tree(path))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not modules & {"libs", "services", "regulars", "protos"}


def test_tests_do_not_sleep_the_process() -> None:
    slept = [
        at(path, node)
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and named(node) == "time.sleep"
    ]
    assert slept == []
