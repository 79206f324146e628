"""The four kinds of RPC as grpc.aio knows them, with types."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]  # at run time it takes no parameters
else:
    Handler = grpc.RpcMethodHandler

Context = grpc.aio.ServicerContext[Any, Any]
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]

# Makes a handler from a behaviour on bytes; by the attribute that holds the behaviour.
MAKERS: Mapping[str, Callable[[Any], Handler]] = {
    "unary_unary": grpc.unary_unary_rpc_method_handler,
    "unary_stream": grpc.unary_stream_rpc_method_handler,
    "stream_unary": grpc.stream_unary_rpc_method_handler,
    "stream_stream": grpc.stream_stream_rpc_method_handler,
}


def kind_of(handler: Handler) -> str:
    """`unary_stream` and so on."""
    return next(kind for kind in MAKERS if getattr(handler, kind) is not None)
