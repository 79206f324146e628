"""The API's document and the page that shows it; every asset is served from here."""

import gzip
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

# The wheel that brings a current Swagger UI (from 5 on it reads OpenAPI 3.1); only its files are used.
_PACKAGE = "mkdocs_swagger_ui_tag"
_ASSETS = {
    "/docs/swagger-ui.css": ("swagger-ui/stylesheets/swagger-ui.css", "text/css"),
    "/docs/swagger-ui.js": ("swagger-ui/javascripts/swagger-ui-bundle.js", "text/javascript"),
}
_PAGE = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Regulars API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="icon" href="data:,">
</head>
<body>
<div id="page"><noscript>This page needs JavaScript. The document itself:
<a href="/openapi.json">/openapi.json</a></noscript></div>
<script src="/docs/swagger-ui.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START = b"""window.ui = SwaggerUIBundle({
  url: "/openapi.json", dom_id: "#page", deepLinking: true, docExpansion: "none", filter: true,
  displayRequestDuration: true, tryItOutEnabled: true, persistAuthorization: false, validatorUrl: null
});
"""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
    "vary": "accept-encoding",
}

Endpoint = Callable[[Request], Awaitable[Response]]


class Docs:
    """Serves /openapi.json and /docs. All of it is public: it says what the protos say."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        json = orjson.dumps(document, option=orjson.OPT_INDENT_2)
        self._contents: dict[str, tuple[bytes, str]] = {
            "/openapi.json": (json, "application/json"),
            "/docs": (_PAGE, "text/html; charset=utf-8"),
            "/docs/start.js": (_START, "text/javascript"),
        }
        folder = _folder()
        for path, (file, kind) in _ASSETS.items():
            self._contents[path] = ((folder / file).read_bytes(), kind)

    def routes(self) -> list[Route]:
        """One route for each file."""
        return [Route(path, _file(*content)) for path, content in self._contents.items()]


def _folder() -> Path:
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"the package {_PACKAGE} is not installed")
    return Path(spec.origin).parent


def _file(content: bytes, kind: str) -> Endpoint:
    packed = gzip.compress(content, mtime=0)
    etag = f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'

    async def serve(request: Request) -> Response:
        headers = {**_HEADERS, "etag": etag}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(packed, headers={**headers, "content-encoding": "gzip"}, media_type=kind)
        return Response(content, headers=headers, media_type=kind)

    return serve
