"""What the demonstration says to the gateway: plain REST with a token, as any client would."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self

import httpx

SECONDS = 30


class Refused(Exception):
    """The gateway did not do what was asked; the text says what it answered."""


class Rest:
    """A client of one tenant."""

    def __init__(self, url: str, token: str) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=SECONDS, trust_env=False)
        self.use(token)

    def use(self, token: str) -> None:
        """Goes on with another token. With one for a single business, every request is about that one."""
        self._client.headers["authorization"] = f"Bearer {token}"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def get(self, path: str, **query: Any) -> Any:
        """The answer to a GET. Raises Refused."""
        return await self._ask("GET", path, query)

    async def post(self, path: str, body: Mapping[str, Any] | None = None, **query: Any) -> Any:
        """The answer to a POST of JSON. Raises Refused."""
        return await self._ask("POST", path, query, json=body or {})

    async def put(self, path: str, body: Mapping[str, Any]) -> Any:
        """The answer to a PUT of JSON. Raises Refused."""
        return await self._ask("PUT", path, {}, json=body)

    async def upload(self, path: str, content: bytes, media: str, **query: Any) -> Any:
        """The answer to a POST of a file. Raises Refused."""
        return await self._ask("POST", path, query, content=content, headers={"content-type": media})

    async def lines(self, path: str, **query: Any) -> AsyncIterator[Any]:
        """The messages of a stream, one after another as they come. Raises Refused."""
        headers = {"accept": "application/x-ndjson"}
        async with self._client.stream("GET", path, params=query, headers=headers) as answer:
            if answer.is_error:
                await answer.aread()
                raise Refused(answer.text)
            async for line in answer.aiter_lines():
                message = json.loads(line)
                if "error" in message:
                    raise Refused(line)
                yield message

    async def _ask(self, verb: str, path: str, query: Mapping[str, Any], **how: Any) -> Any:
        answer = await self._client.request(verb, path, params=query, **how)
        if answer.is_error:
            raise Refused(f"{verb} {path}: {answer.text}")
        return answer.json()
