"""The RPCs over REST: find the call, know the caller, keep the limits, translate, forward, answer."""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping

from google.protobuf.descriptor import FieldDescriptor
from opentelemetry.trace import SpanKind

from libs import telemetry
from libs.contracts import ContractError, Method
from libs.problems import Code, Problem, TooManyRequests, Unauthenticated, Unavailable
from libs.tokens import Identity, Tokens
from services.gateway import errors, headers, metrics
from services.gateway.access_log import AccessLog
from services.gateway.auth import identify
from services.gateway.calls import Call, Forward
from services.gateway.cors import Cors
from services.gateway.exchange import JSON_TYPE, Broken, ClientGone, Exchange, Receive, Scope, Send
from services.gateway.limits import Key, Limiter, Policy, Verdict, address_of
from services.gateway.problems import MalformedHeader, MethodNotAllowed, NoSuchPath, NotAcceptable
from services.gateway.requests import Raw, RequestReader, Test, idempotency_key
from services.gateway.routes import Binding, Leaf, Router, bindings
from services.gateway.settings import GatewaySettings
from services.gateway.streams import StreamCall
from services.gateway.uploads import UploadCall, UploadReader
from services.gateway.upstreams import Upstream

log = logging.getLogger(__name__)

Target = Call | StreamCall


def compile_routes(
    methods: Iterable[Method], upstreams: Mapping[str, Upstream], comments: Mapping[str, str]
) -> Router[Target]:
    """Every REST form of every RPC. Raises ContractError for rules that cannot be served."""

    def output_only(field: FieldDescriptor) -> bool:
        return is_output_only(field, comments)

    router: Router[Target] = Router()
    created: list[tuple[str, Call]] = []
    readable: set[str] = set()
    for binding in bindings(methods):
        target = _target(binding, upstreams[binding.method.service_name], output_only)
        router.add(binding.verb, binding.template, target)
        shape = binding.template.shape()
        if binding.verb == "GET":
            readable.add(shape)
        if isinstance(target, Call) and target.status == 201:
            created.append((shape, target))
    for shape, call in created:
        if f"{shape}/*" in readable:
            call.locates = True
    return router


def _target(binding: Binding, upstream: Upstream, output_only: Test) -> Target:
    method = binding.method
    if not method.client_streaming:
        reader = RequestReader(binding, output_only)
        return (StreamCall if method.server_streaming else Call)(binding, reader, upstream)
    if method.server_streaming:
        raise ContractError(f"{method.path}: streams in both directions have no REST form")
    return UploadCall(binding, UploadReader(binding, output_only), upstream)


def is_output_only(field: FieldDescriptor, comments: Mapping[str, str]) -> bool:
    """True if only the service sets the field: its comment says "Output only"."""
    return "Output only" in " ".join(comments.get(field.full_name, "").split())


class Api:
    """Answers every request that no page does."""

    def __init__(
        self,
        settings: GatewaySettings,
        router: Router[Target],
        tokens: Tokens,
        limiter: Limiter,
        access_log: AccessLog,
    ) -> None:
        self._settings = settings
        self._router = router
        self._tokens = tokens
        self._limiter = limiter
        self._access_log = access_log
        self._cors = Cors(settings.cors_origins)
        self._tenant = Policy("tenant", settings.rate_limit_tenant)
        self._client = Policy("client", settings.rate_limit_client)
        self._address = Policy("address", settings.rate_limit_address)
        policies = [policy for policy in (self._tenant, self._client) if policy.quota]
        self._policies = ", ".join(f'"{policy.name}";q={policy.quota};w=60' for policy in policies).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request. It ends with an answer, or with a broken connection if one had begun."""
        exchange = Exchange(scope, receive, send)
        exchange.extra.extend(self._cors.headers(exchange.headers))
        began = time.perf_counter()
        metrics.HTTP_RUNNING.inc()
        try:
            await self._serve(exchange)
        except ClientGone:
            exchange.status = errors.CLIENT_GONE
        except asyncio.CancelledError:
            # The gateway stops, and has waited for as long as it does: nobody knows what becomes of the call.
            if exchange.status:
                raise
            await self._refuse(exchange, Unavailable(), None)
        finally:
            seconds = time.perf_counter() - began
            metrics.HTTP_RUNNING.dec()
            metrics.seconds_of(exchange.method, exchange.route, exchange.status).observe(seconds)
            self._access_log.write(
                exchange.method,
                exchange.route,
                exchange.status,
                seconds,
                exchange.tenant,
                exchange.request_id,
            )

    async def _serve(self, exchange: Exchange) -> None:
        target: Target | None = None
        try:
            found = await self._route(exchange)
            if found is None:
                return
            target, segments = found
            exchange.route = target.binding.template.text
            name = f"{exchange.method} {exchange.route}"
            above = telemetry.extract(headers.traceparent(exchange.headers, exchange.request_id))
            with telemetry.span(name, SpanKind.SERVER, above, {"http.route": exchange.route}) as span:
                try:
                    await self._call(exchange, target, segments)
                except Problem as problem:
                    if problem.code is Code.UNAUTHENTICATED and target.binding.method.access.link:
                        self._limiter.take(self._failures(exchange))
                    await self._refuse(exchange, problem, target)
                span.set_attribute("http.response.status_code", exchange.status)
        except Problem as problem:
            await self._refuse(exchange, problem, target)
        except (ClientGone, Broken):
            raise
        except Exception:  # the gateway's own boundary
            log.exception(
                "request failed", extra={"route": exchange.route, "request_id": exchange.request_id}
            )
            if exchange.status:
                await exchange.break_off()
            await self._refuse(exchange, Problem(), target)

    async def _route(self, exchange: Exchange) -> tuple[Target, list[str]] | None:
        """The target and the path's segments; None if the answer is given already."""
        path: str = exchange.scope["raw_path"].decode("latin-1")
        segments = path.split("/")[1:]
        leaf = self._router.find(segments)
        if leaf is None:
            if segments[-1] == "" and self._router.find(segments[:-1]) is not None:
                query = exchange.scope["query_string"]
                location = path[:-1].encode() + (b"?" + query if query else b"")
                await exchange.answer(308, [(b"location", location)])
                return None
            raise NoSuchPath
        target = leaf.targets.get("GET" if exchange.method == "HEAD" else exchange.method)
        if target is not None:
            return target, segments
        exchange.route = leaf.shape
        if exchange.method != "OPTIONS":
            raise MethodNotAllowed(allow=leaf.allow())
        await self._options(exchange, leaf)
        return None

    async def _options(self, exchange: Exchange, leaf: Leaf[Target]) -> None:
        allow = leaf.allow()
        preflight = self._cors.preflight(exchange.headers, allow)
        await exchange.answer(204, [(b"allow", allow.encode()), *preflight])

    async def _call(self, exchange: Exchange, target: Target, segments: list[str]) -> None:
        given = exchange.headers
        link = target.binding.method.access.link
        authorization = self._admit_unknown(exchange) if link else await self._admit(exchange)
        seconds = headers.deadline(given, *self._seconds(target))
        media = None
        if target.offered:
            media = headers.preferred(given.get(b"accept"), target.offered)
            if media is None:
                raise NotAcceptable(offered=", ".join(target.offered))
        metadata = self._metadata(exchange, target.reader, authorization)
        forward = Forward(metadata, seconds, self._settings.idle_seconds)
        if isinstance(target, UploadCall):
            await target.upload(exchange, forward)
            return
        body = await self._body(exchange, target.reader)
        request = target.reader.read(Raw(segments, exchange.scope["query_string"], given, body))
        await target.run(exchange, request, forward, media)

    def _seconds(self, target: Target) -> tuple[float, float]:
        """The deadline of a call that asks for none, and the longest that one may ask for."""
        settings = self._settings
        if isinstance(target, UploadCall) or (isinstance(target, StreamCall) and target.is_file):
            return settings.transfer_seconds, settings.transfer_seconds
        if isinstance(target, StreamCall):
            return settings.stream_seconds, settings.stream_seconds
        return settings.deadline_seconds, settings.longest_seconds

    def _admit_unknown(self, exchange: Exchange) -> str:
        """Lets somebody with a link in, unless too many from there did not hold; the service knows more."""
        verdict = self._limiter.peek(self._failures(exchange))
        if verdict is not None and not verdict.allowed:
            self._over(exchange, verdict)
        return ""

    async def _admit(self, exchange: Exchange) -> str:
        """Knows the caller and keeps the limits; gives the header to forward."""
        address = self._failures(exchange)
        verdict = self._limiter.peek(address)
        if verdict is not None and not verdict.allowed:
            self._over(exchange, verdict)
        try:
            identity, authorization = await identify(exchange.headers, self._tokens)
        except Unauthenticated:
            self._limiter.take(address)
            raise
        exchange.tenant = str(identity.tenant_id) if identity.tenant_id else None
        verdict = self._limiter.take(self._keys(identity))
        if verdict is not None:
            exchange.extra.append((b"ratelimit-policy", self._policies))
            exchange.extra.append((b"ratelimit", verdict.header()))
            if not verdict.allowed:
                self._over(exchange, verdict)
        return authorization

    def _keys(self, identity: Identity) -> tuple[Key, ...]:
        client = f"{identity.tenant_id}/{identity.client_id or identity.subject}"
        if identity.tenant_id is None:
            return ((self._client, client),)
        return ((self._tenant, str(identity.tenant_id)), (self._client, client))

    def _failures(self, exchange: Exchange) -> tuple[Key, ...]:
        forwarded = exchange.headers.get(b"x-forwarded-for")
        address = address_of(exchange.scope.get("client"), forwarded, self._settings.trusted_proxies)
        return ((self._address, address),)

    def _over(self, exchange: Exchange, verdict: Verdict) -> None:
        metrics.HTTP_LIMITED.labels(verdict.policy.name).inc()
        raise TooManyRequests(
            retry_after_seconds=verdict.reset_seconds, policy=verdict.policy.name, limit=verdict.policy.quota
        )

    async def _body(self, exchange: Exchange, reader: RequestReader) -> bytes | None:
        if not reader.takes_body:
            exchange.check_no_body()
            return None
        if not exchange.has_body():
            return None
        if not reader.takes_file:
            patch = reader.binding.verb == "PATCH"
            exchange.check_json((headers.JSON, headers.MERGE_PATCH) if patch else (headers.JSON,))
        return await exchange.body(self._settings.body_limit, self._settings.body_seconds)

    def _metadata(
        self, exchange: Exchange, reader: RequestReader, authorization: str
    ) -> tuple[tuple[str, str], ...]:
        """What goes along. To a service x-request-id is the key of idempotency, so a write has it only by the
        client's Idempotency-Key: an id that a client reuses for tracing must not make two writes one.
        """
        given = exchange.headers
        found = [("traceparent", telemetry.traceparent())]
        if authorization:
            found.append(("authorization", authorization))
        key = given.get(b"idempotency-key")
        if reader.binding.verb == "GET":
            found.append(("x-request-id", exchange.request_id))
        elif key is not None and not reader.has_request_id:
            found.append(("x-request-id", idempotency_key(key)))
        purpose = given.get(b"x-regulars-purpose")
        if purpose is not None:
            text = purpose.decode("latin-1")
            if not (text.isascii() and text.isprintable() and len(text) <= 200):
                raise MalformedHeader(
                    "X-Regulars-Purpose must be at most 200 printable characters of ASCII.",
                    header="X-Regulars-Purpose",
                )
            found.append(("x-regulars-purpose", text))
        return tuple(found)

    async def _refuse(self, exchange: Exchange, problem: Problem, target: Target | None) -> None:
        status = errors.status_of(problem)
        if exchange.status:
            # An answer had begun; the connection is broken by now.
            exchange.status = status
            return
        names = None if target is None else target.names
        body = errors.to_bytes(errors.body_of(problem, exchange.request_id, names))
        await exchange.answer(status, [JSON_TYPE, *errors.headers_of(problem)], body)
