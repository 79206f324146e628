"""The ASGI application: a few pages by Starlette, everything else by the descriptors' routes."""

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.gateway import errors
from services.gateway.api import Api
from services.gateway.docs import Docs
from services.gateway.exchange import SECURITY, Receive, Scope, Send
from services.gateway.health import Health

_HEADERS = {name.decode(): value.decode() for name, value in SECURITY}


class Gateway:
    """The API's requests never pass Starlette, whose routing costs about as much as their translation."""

    def __init__(self, api: Api, docs: Docs, health: Health, *, public_metrics: bool) -> None:
        self._api = api
        self._health = health
        routes = [
            Route("/healthz", self._healthz),
            Route("/readyz", self._readyz),
            *docs.routes(),
        ]
        if public_metrics:
            routes.append(Route("/metrics", self._metrics))
        self._pages = Starlette(routes=routes)
        self._paths = frozenset(route.path for route in routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            raise NotImplementedError(f"no {scope['type']} here")
        if scope["path"] in self._paths and scope["method"] in {"GET", "HEAD"}:
            await self._pages(scope, receive, send)
        else:
            await self._api(scope, receive, send)

    async def _healthz(self, _: Request) -> Response:
        return _json({"status": "alive"})

    async def _readyz(self, _: Request) -> Response:
        ready, report = await self._health.report()
        return _json(report, 200 if ready else 503)

    async def _metrics(self, _: Request) -> Response:
        return Response(generate_latest(), headers=_HEADERS, media_type=CONTENT_TYPE_LATEST)


def _json(body: dict[str, object], status: int = 200) -> Response:
    return Response(errors.to_bytes(body), status, headers=_HEADERS, media_type="application/json")
