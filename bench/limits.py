"""What the product is measured against: the least code on the same grpc.aio and the same psycopg.

    python -m bench.limits '{"answer": base64, "url": …, "statement": …, "begin": …}'

Answers three methods: Echo gives back what it got; Constant, under the product's own name, always the same
message; Get runs the product's transaction (BEGIN with its settings, its SELECT, COMMIT) and gives a message
of the size of the product's.
"""

import asyncio
import base64
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import grpc
import psycopg
import uvloop

ECHO, GET, CONSTANT = (
    "/limit.Limit/Echo",
    "/limit.Limit/Get",
    "/regulars.customers.v1.CustomersService/GetCustomer",
)
CONNECTIONS = 8

Behaviour = Callable[[bytes, Any], Awaitable[bytes]]


class Handlers(grpc.GenericRpcHandler):
    """Raw bytes in, raw bytes out."""

    def __init__(self, behaviours: dict[str, Behaviour]) -> None:
        self._handlers: dict[str, Any] = {
            name: grpc.unary_unary_rpc_method_handler(behaviour) for name, behaviour in behaviours.items()
        }

    def service(self, details: Any) -> Any:
        """The handler of a method."""
        return self._handlers.get(details.method)


async def serve(given: dict[str, Any]) -> None:
    """Serves until killed."""
    answer = base64.b64decode(given["answer"])
    pool: asyncio.LifoQueue[psycopg.AsyncConnection[Any]] = asyncio.LifoQueue()
    for _ in range(CONNECTIONS):
        made = await psycopg.AsyncConnection.connect(given["url"], autocommit=True, prepare_threshold=0)
        pool.put_nowait(made)

    async def echo(request: bytes, context: Any) -> bytes:
        return request

    async def constant(request: bytes, context: Any) -> bytes:
        return answer

    async def get(request: bytes, context: Any) -> bytes:
        where = given["where"] | {"customer": UUID(bytes=request)}
        connection = await pool.get()
        try:
            await connection.execute(given["begin"], prepare=False)
            cursor = await connection.execute(given["statement"], where)
            row = await cursor.fetchone()
            await connection.commit()
        finally:
            pool.put_nowait(connection)
        return answer if row else b""

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Handlers({ECHO: echo, GET: get, CONSTANT: constant}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(json.dumps({"port": port}) + "\n")
    sys.stdout.flush()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(json.loads(sys.argv[1])))
