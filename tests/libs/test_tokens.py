"""Tokens: what holds, what does not, rotation of keys, and issuers that are away."""

import asyncio
import base64
import json
import stat
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from libs import internal_keys, jwks
from libs.caller import Caller
from libs.config import Settings
from libs.ids import new_id
from libs.internal_keys import InternalIssuer
from libs.issuer import make_issuer, mint
from libs.problems import Problem, Unauthenticated, Unavailable
from libs.tokens import Tokens

ISSUER, AUDIENCE = "https://id.example", "regulars"
TENANT = new_id()


class Issuer:
    """An OIDC issuer with a key set in a file."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "jwks.json"
        self.keys: dict[str, Any] = {
            "rsa": RSAKey.generate_key(2048, parameters={"kid": "rsa"}),
            "ec": ECKey.generate_key("P-256", parameters={"kid": "ec", "use": "sig"}),
            "ed": OKPKey.generate_key("Ed25519", parameters={"kid": "ed"}),
        }
        self.publish()

    def publish(self) -> None:
        self.file.write_text(json.dumps({"keys": [key.as_dict(private=False) for key in self.keys.values()]}))

    def token(self, kid: str = "ec", alg: str = "ES256", key: Any = None, **changes: Any) -> str:
        now = int(time.time())
        claims: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "iat": now, "exp": now + 60}
        claims |= {"tenant": str(TENANT), "businesses": "*", "roles": ["owner"]} | changes
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode({"alg": alg, "kid": kid}, claims, key or self.keys[kid], algorithms=[alg])


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path)


@pytest.fixture
async def tokens(issuer: Issuer, tmp_path: Path) -> AsyncIterator[Tokens]:
    found = Tokens("customers", ISSUER, AUDIENCE, str(issuer.file), tmp_path / "internal")
    yield found
    await found.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(internal_keys, "RETRY_SECONDS", 0.0)


async def cause(tokens: Tokens, token: str) -> str:
    with pytest.raises(Unauthenticated) as refused:
        await tokens.user(token)
    return refused.value.metadata["cause"]


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
async def test_the_three_algorithms_and_no_other(issuer: Issuer, tokens: Tokens) -> None:
    for kid, alg in (("rsa", "RS256"), ("ec", "ES256"), ("ed", "EdDSA"), ("ed", "Ed25519")):
        identity = await tokens.user(issuer.token(kid, alg))
        assert (identity.subject, identity.tenant_id, identity.businesses) == ("ann", TENANT, None)
    assert await cause(tokens, issuer.token("rsa", "RS512")) == "algorithm"
    assert await cause(tokens, issuer.token("rsa", "PS256")) == "algorithm"
    public = issuer.keys["rsa"].as_pem(private=False)
    confused = issuer.token("rsa", "HS256", OctKey.import_key(base64.urlsafe_b64encode(public).decode()))
    assert await cause(tokens, confused) == "algorithm"
    assert await cause(tokens, issuer.token("rsa", "ES256", issuer.keys["ec"])) == "signature"


async def test_unsigned_and_tampered_tokens(issuer: Issuer, tokens: Tokens) -> None:
    head, body, signature = issuer.token().split(".")

    def encoded(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    for none in ("none", "None", "NONE"):
        assert await cause(tokens, f"{encoded({'alg': none, 'kid': 'ec'})}.{body}.") in {
            "algorithm",
            "malformed",
        }
    assert await cause(tokens, f"{head}.{encoded(claims | {'sub': 'eve'})}.{signature}") == "signature"
    assert await cause(tokens, f"{head}.{body}.{'A' * len(signature)}") == "signature"
    for broken in (
        "",
        ".",
        "a.b",
        "a.b.c",
        "é.é.é",
        f"{head}.{body}",
        "x" * 20_000,
        f"{encoded([])}.{body}.{signature}",
    ):
        assert await cause(tokens, broken) == "malformed"
    assert (await tokens.user(f"{head}.{body}.{signature}")).subject == "ann"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"iss": "https://evil.example"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"aud": "other"}, "audience"),
        ({"aud": None}, "audience"),
        ({"aud": ["a", "b"]}, "audience"),
        ({"exp": int(time.time()) - 3600}, "expired"),
        ({"exp": None}, "exp"),
        ({"exp": "tomorrow"}, "exp"),
        ({"exp": True}, "exp"),
        ({"nbf": int(time.time()) + 3600}, "not_yet"),
        ({"iat": int(time.time()) + 3600}, "not_yet"),
        ({"sub": None}, "claims"),
        ({"sub": 7}, "claims"),
        ({"roles": "owner"}, "claims"),
        ({"tenant": "acme"}, "tenant"),
        ({"tenant": 7}, "tenant"),
        ({"businesses": "all"}, "businesses"),
        ({"businesses": ["x"]}, "businesses"),
        ({"businesses": [None]}, "businesses"),
        ({"customer": "x"}, "customer"),
    ],
)
async def test_claims_that_do_not_hold(
    issuer: Issuer, tokens: Tokens, changes: dict[str, Any], why: str
) -> None:
    assert await cause(tokens, issuer.token(**changes)) == why


async def test_what_a_token_gives(issuer: Issuer, tokens: Tokens) -> None:
    business, customer = new_id(), new_id()
    identity = await tokens.user(
        issuer.token(businesses=[str(business)], aud=["x", AUDIENCE], name="Ann", azp="app")
    )
    assert (identity.kind, identity.businesses, identity.roles) == (
        "user",
        frozenset({business}),
        frozenset({"owner"}),
    )
    assert (identity.display_name, identity.client_id) == ("Ann", "app")
    assert (await tokens.user(issuer.token(businesses=None))).businesses == frozenset()
    own = await tokens.user(issuer.token(customer=str(customer), roles=["owner"]))
    assert (own.kind, own.customer_id, own.roles) == ("customer", customer, frozenset({"customer"}))
    assert (await tokens.user(issuer.token(tenant=None))).tenant_id is None


async def test_a_kept_token_still_expires(
    issuer: Issuer, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = issuer.token()
    await tokens.user(token)
    later = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: later)
    assert await cause(tokens, token) == "expired"


@pytest.mark.usefixtures("impatient")
async def test_new_keys_are_found_and_withdrawn_ones_forgotten(issuer: Issuer, tokens: Tokens) -> None:
    old = issuer.token("ec")
    await tokens.user(old)
    del issuer.keys["ec"]
    issuer.keys["new"] = ECKey.generate_key("P-256", parameters={"kid": "new"})
    fresh = issuer.token("new")
    assert await cause(tokens, fresh) == "key"
    issuer.publish()
    assert (await tokens.user(fresh)).subject == "ann"
    assert await cause(tokens, old) == "key"


async def test_made_up_key_ids_do_not_make_it_read_again(issuer: Issuer, tokens: Tokens) -> None:
    await tokens.user(issuer.token())
    issuer.keys["new"] = issuer.keys["ec"]
    issuer.file.unlink()
    for number in range(50):
        assert (
            await cause(tokens, issuer.token("new") if number % 2 else issuer.token("new", sub=f"x{number}"))
            == "key"
        )


@pytest.mark.usefixtures("impatient")
async def test_keys_outlive_an_issuer_that_is_away(issuer: Issuer, tmp_path: Path) -> None:
    tokens = Tokens("customers", ISSUER, AUDIENCE, str(tmp_path / "later.json"), tmp_path)
    with pytest.raises(Unavailable):
        await tokens.user(issuer.token())
    (tmp_path / "later.json").write_text(issuer.file.read_text())
    await tokens.user(issuer.token())
    for broken in ("", "[]", '{"keys": 7}', "not json"):
        (tmp_path / "later.json").write_text(broken)
        issuer.keys["strange"] = issuer.keys["ec"]
        assert await cause(tokens, issuer.token("strange", sub=broken or "x")) == "key"
        assert (await tokens.user(issuer.token(sub=f"y{broken}"))).kind == "user"
    await tokens.close()


async def test_an_issuer_on_the_web_is_found_by_its_name(issuer: Issuer, tmp_path: Path) -> None:
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        asked.append(path)
        keys_are_at = json.dumps({"jwks_uri": f"{url}/keys"}).encode()
        body = keys_are_at if path.startswith("/.well-known") else issuer.file.read_bytes()
        writer.write(
            b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    tokens = Tokens.of(Settings(home=tmp_path, oidc_issuer=url), "customers")
    for _ in range(3):
        assert (await tokens.user(issuer.token(iss=url))).subject == "ann"
    assert asked == ["/.well-known/openid-configuration", "/keys"]
    server.close()
    assert (await tokens.user(issuer.token("rsa", "RS256", iss=url))).subject == "ann"
    await tokens.close()


@pytest.mark.filterwarnings("ignore:Key size")
def test_weak_and_foreign_keys_are_left_out() -> None:
    keys: list[Any] = [
        RSAKey.generate_key(1024, parameters={"kid": "short"}),
        OctKey.generate_key(256, parameters={"kid": "shared"}),
        ECKey.generate_key("P-521", parameters={"kid": "p521"}),
        OKPKey.generate_key("X25519", parameters={"kid": "exchange"}),
        ECKey.generate_key("P-256", parameters={"kid": "good"}),
        ECKey.generate_key("P-256", parameters={"kid": "secret", "use": "enc"}),
    ]
    listed = [key.as_dict(private=False) if key.key_type != "oct" else key.as_dict() for key in keys]
    assert set(jwks.parse(json.dumps({"keys": [*listed, 7, {}, {"kty": "RSA"}]}).encode())) == {"good"}


@pytest.mark.usefixtures("impatient")
async def test_the_development_issuer(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    tokens = Tokens.of(settings, "customers")
    make_issuer(tmp_path)
    assert stat.S_IMODE((tmp_path / "issuer" / "key.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "issuer").stat().st_mode) == 0o700
    first = mint(tmp_path, tenant=TENANT, roles=["owner"], businesses=[TENANT], name="Ann", client_id="c")
    identity = await tokens.user(first)
    assert (identity.tenant_id, identity.businesses, identity.client_id) == (TENANT, frozenset({TENANT}), "c")
    make_issuer(tmp_path, rotate=True)
    second = mint(tmp_path, tenant=None, roles=["platform"])
    assert (await tokens.user(second)).tenant_id is None
    assert (await tokens.user(first)).subject == "developer"
    assert "d" not in json.loads((tmp_path / "issuer" / "jwks.json").read_text())["keys"][0]


@pytest.mark.usefixtures("impatient")
async def test_services_trust_each_other_by_their_own_keys(tmp_path: Path) -> None:
    caller = Caller(tenant_id=TENANT, subject="ann", businesses=frozenset({TENANT}))
    loyalty = InternalIssuer("loyalty", tmp_path)
    tokens = Tokens("customers", ISSUER, AUDIENCE, str(tmp_path / "none"), tmp_path)
    token = loyalty.token("customers", caller)
    identity = await tokens.internal(token)
    assert (identity.service, identity.on_behalf_of, identity.kind) == ("loyalty", "ann", "service")
    assert (identity.tenant_id, identity.businesses) == (TENANT, frozenset({TENANT}))
    assert loyalty.token("customers", caller) is token
    assert loyalty.token("privacy", caller) != token
    assert stat.S_IMODE((tmp_path / "loyalty.pem").stat().st_mode) == 0o600
    assert InternalIssuer("loyalty", tmp_path).token("customers", caller)
    for wrong, why in (
        (loyalty.token("privacy", caller), "audience"),
        (InternalIssuer("segments", tmp_path / "elsewhere").token("customers", caller), "key"),
        (_forged(tmp_path, sub="customers"), "subject"),
        (_forged(tmp_path, iss="https://id.example"), "issuer"),
        (_forged(tmp_path, exp=int(time.time()) - 60), "expired"),
        (_forged(tmp_path, kid="../../etc/passwd"), "key"),
    ):
        assert await _cause(tokens.internal, wrong) == why
    with pytest.raises(Problem):
        await tokens.user(token)


@pytest.mark.usefixtures("impatient")
async def test_a_service_may_make_itself_another_key(tmp_path: Path) -> None:
    caller = Caller(tenant_id=None, subject="ann")
    tokens = Tokens("customers", ISSUER, AUDIENCE, "", tmp_path)
    old = InternalIssuer("loyalty", tmp_path).token("customers", caller)
    await tokens.internal(old)
    (tmp_path / "loyalty.pem").unlink()
    fresh = InternalIssuer("loyalty", tmp_path).token("customers", caller)
    assert (await tokens.internal(fresh)).service == "loyalty"
    assert await _cause(tokens.internal, old) == "signature"


async def test_an_internal_token_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    issuer, caller = InternalIssuer("loyalty", tmp_path), Caller(tenant_id=None, subject="ann")
    first, now = issuer.token("customers", caller), time.time()
    monkeypatch.setattr(time, "time", lambda: now + 30)
    assert issuer.token("customers", caller) == first
    monkeypatch.setattr(time, "time", lambda: now + 45)
    assert issuer.token("customers", caller) != first


async def _cause(verify: Callable[[str], Any], token: str) -> str:
    with pytest.raises(Unauthenticated) as refused:
        await verify(token)
    return refused.value.metadata["cause"]


def _forged(folder: Path, kid: str = "loyalty", **changes: Any) -> str:
    """What the service itself could sign."""
    key = OKPKey.import_key((folder / "loyalty.pem").read_bytes())
    claims = {"iss": "regulars-internal", "sub": "loyalty", "aud": "customers", "exp": int(time.time()) + 60}
    return jwt.encode({"alg": "Ed25519", "kid": kid}, claims | changes, key, algorithms=["Ed25519"])
