"""A token issuer's keys, asked of the web."""

import httpx
import orjson

MAX_BYTES = 1 << 20
TIMEOUT_SECONDS = 5


async def discovered(issuer: str) -> str:
    """Where an issuer says that its keys are. Raises as `get`."""
    known = orjson.loads(await get(issuer.rstrip("/") + "/.well-known/openid-configuration"))
    return str(known["jwks_uri"])


async def get(url: str) -> bytes:
    """What is at an address. Raises OSError if it cannot be had, ValueError if it is too long."""
    try:
        async with (
            httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as client,
            client.stream("GET", url) as response,
        ):
            response.raise_for_status()
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise ValueError("the issuer's answer is too long")
            return bytes(body)
    except httpx.HTTPError as error:
        raise OSError(f"no answer of the issuer: {type(error).__name__}") from error
