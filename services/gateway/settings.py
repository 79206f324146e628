"""What the gateway is told beyond what every service is."""

from dataclasses import dataclass

from libs.config import Settings, within


@dataclass(frozen=True, kw_only=True)
class GatewaySettings(Settings):
    """Field `body_limit` comes from REGULARS_GATEWAY_BODY_LIMIT, and so on."""

    body_limit: int = within(1024, 1 << 30, 1 << 20)  # bytes
    body_seconds: float = within(0.1, 3600, 20)  # for a body to arrive
    header_limit: int = within(1024, 1 << 20, 32 << 10)  # bytes of request line and headers
    header_seconds: float = within(0.1, 300, 10)  # for them to arrive
    keep_alive_seconds: int = within(
        1, 3600, 65
    )  # idle connections; longer than common balancers keep theirs
    longest_seconds: float = within(0.2, 3600, 60)  # highest X-Request-Timeout of a call
    stream_seconds: float = within(1, 86_400, 600)  # deadline of streams, and their highest X-Request-Timeout
    transfer_seconds: float = within(1, 86_400, 21_600)  # deadline of uploads and downloads of files
    idle_seconds: float = within(
        0.1, 3600, 60
    )  # for the next bytes to come or to be taken, of whatever streams
    channels: int = within(1, 32, 1)  # gRPC connections to each service
    calls: int = within(1, 100_000, 256)  # at once to each service; more wait
    waiting: int = within(0, 1_000_000, 20_000)  # at most for each service; more are refused
    rate_limit_address: int = within(
        0, 10_000_000, 300
    )  # failed log-ins a minute from one address; 0: no limit
    trusted_proxies: int = within(0, 10, 0)  # proxies in front that add to X-Forwarded-For
    public_metrics: bool = True  # /metrics on the REST port as well
