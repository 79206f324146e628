"""Problems go over the wire and come back; errors of the database become what a caller can act upon."""

from typing import Any

import grpc
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from libs import problems, status
from libs.problems import Code, Conflict, EtagMismatch, InvalidArgument, NotFound, Problem, Violation
from tests.servers import Servers


class NameTaken(Problem):
    code = Code.ALREADY_EXISTS
    reason = "NAME_TAKEN"
    message = "The name is taken."


CONSTRAINTS: dict[str, Any] = {"things_name_key": NameTaken}


@pytest.fixture
async def engine(servers: Servers) -> Any:
    url = servers.postgres_url.replace("postgresql://", "postgresql+psycopg://", 1)
    found = create_async_engine(url, hide_parameters=True)
    yield found
    await found.dispose()


async def failure(engine: AsyncEngine, *statements: str) -> DBAPIError:
    with pytest.raises(DBAPIError) as failed:
        await _run(engine, statements)
    return failed.value


async def _run(engine: AsyncEngine, statements: tuple[str, ...]) -> None:
    async with engine.connect() as connection:
        for statement in statements:
            await connection.execute(text(statement))


@pytest.mark.parametrize(
    "problem",
    [
        NotFound("Gone.", who="1"),
        EtagMismatch(),
        Conflict(retry_after_seconds=0),
        problems.TooManyRequests(retry_after_seconds=1.5),
        InvalidArgument(violations=[Violation("a.b[0]", "must be", "STRING_MIN_LEN")]),
        NameTaken(customer="x"),
    ],
)
def test_a_problem_comes_back_as_itself(problem: Problem) -> None:
    back = status.from_status(status.to_status(problem))
    assert (back.code, back.reason, back.message) == (problem.code, problem.reason, problem.message)
    assert (back.violations, back.retry_after_seconds) == (problem.violations, problem.retry_after_seconds)
    assert {k: v for k, v in back.metadata.items() if k != "violations_total"} == problem.metadata
    if type(problem) is not NameTaken:
        assert type(back) is type(problem)


def test_reasons_of_services_are_caught_by_their_code() -> None:
    class CustomerNotFound(NotFound):
        reason = "CUSTOMER_NOT_FOUND"

    back = status.from_status(status.to_status(CustomerNotFound()))
    assert isinstance(back, NotFound)
    assert back.reason == "CUSTOMER_NOT_FOUND"


def test_details_are_bounded_whatever_they_hold() -> None:
    facts = {f"fact{i}": "é\ud800" * 10_000 for i in range(5)}
    violations = [Violation(f"field{i}" * 100, "wrong" * 1000) for i in range(10_000)]
    found = status.to_status(InvalidArgument("x" * 10_000, violations=violations, **facts))  # type: ignore[arg-type]
    assert found.ByteSize() < 5000
    assert status.from_status(found).metadata["violations_total"] == "10000"


def test_errors_without_details_are_told_by_their_code() -> None:
    def back(code: grpc.StatusCode, *metadata: Any) -> tuple[str, str]:
        problem = status.from_rpc_error(
            grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*metadata))
        )
        return problem.code.value, problem.reason

    assert back(grpc.StatusCode.UNAVAILABLE) == ("UNAVAILABLE", "UNAVAILABLE")
    assert back(grpc.StatusCode.UNKNOWN) == ("INTERNAL", "INTERNAL")
    assert back(grpc.StatusCode.DATA_LOSS) == ("INTERNAL", "INTERNAL")
    assert back(grpc.StatusCode.CANCELLED) == ("UNAVAILABLE", "UNAVAILABLE")  # the peer stopped
    assert back(grpc.StatusCode.NOT_FOUND, ("grpc-status-details-bin", b"\xff\xff")) == ("NOT_FOUND",) * 2


async def test_constraints_become_their_services_refusals(engine: AsyncEngine) -> None:
    columns = "name text constraint things_name_key unique, n int constraint n_low check (n < 5)"
    make = f"create temporary table things ({columns})"
    taken = await failure(
        engine, make, "insert into things values ('ann')", "insert into things values ('ann')"
    )
    found = status.from_database(taken, CONSTRAINTS)
    assert type(found) is NameTaken
    other = await failure(engine, make, "insert into things values ('ann', 9)")
    assert status.from_database(other, CONSTRAINTS) is None
    facts = status.database_facts(other)
    assert facts == {
        "driver": "CheckViolation",
        "sqlstate": "23514",
        "constraint": "n_low",
        "table": "things",
    }
    assert "ann" not in str(facts)


async def test_trouble_of_the_database_tells_whether_to_try_again(engine: AsyncEngine) -> None:
    cancelled = await failure(engine, "set statement_timeout = 10", "select pg_sleep(5)")
    assert _code(cancelled) == "DEADLINE_EXCEEDED"
    read_only = await failure(engine, "set transaction read only", "create table never (x int)")
    assert _code(read_only) == "UNAVAILABLE"
    ended = await failure(engine, "select pg_terminate_backend(pg_backend_pid())")
    assert _code(ended) == "UNAVAILABLE"
    assert _code(await failure(engine, "do $$ begin raise sqlstate '40001'; end $$")) == "ABORTED"
    assert _code(await failure(engine, "do $$ begin raise sqlstate '40P01'; end $$")) == "ABORTED"
    assert _code(await failure(engine, "do $$ begin raise sqlstate '53300'; end $$")) == "UNAVAILABLE"
    assert status.from_database(await failure(engine, "select * from nowhere")) is None
    nobody = create_async_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    with pytest.raises(OperationalError) as absent:
        await _run(nobody, ("select 1",))
    assert _code(absent.value) == "UNAVAILABLE"
    assert _code(PoolTimeoutError("no connection")) == "UNAVAILABLE"
    assert _code(psycopg.OperationalError("the connection is closed")) == "UNAVAILABLE"
    assert status.from_database(ValueError("x")) is None


def _code(error: Exception) -> str:
    problem = status.from_database(error)
    assert problem is not None
    if problem.code is Code.UNAVAILABLE:
        assert problem.retry_after_seconds
    return problem.code.value


def test_every_code_has_its_grpc_value() -> None:
    assert {status.status_code(code).name for code in Code} == {code.value for code in Code}
