"""What the gateway counts, by route template."""

from functools import cache

from prometheus_client import Counter, Gauge, Histogram

from libs.telemetry import BUCKETS

HTTP_SECONDS = Histogram(
    "regulars_http_seconds", "Time of an answered request.", ["method", "route", "status"], buckets=BUCKETS
)
HTTP_RUNNING = Gauge("regulars_http_running", "Requests that are being answered.")
HTTP_LIMITED = Counter("regulars_http_limited", "Requests refused by a rate limit.", ["policy"])


@cache
def seconds_of(method: str, route: str, status: int) -> Histogram:
    """The histogram of one route and status; looked up once."""
    return HTTP_SECONDS.labels(method, route, str(status))
