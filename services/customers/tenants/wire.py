"""Tenant rows to messages."""

from typing import Any

from sqlalchemy import Row

from libs.instants import stamp
from regulars.customers.v1 import tenants_pb2 as pb


def tenant(row: Row[Any]) -> pb.Tenant:
    """The message of a row of `accounts`."""
    return pb.Tenant(
        id=str(row.tenant_id), slug=row.slug, display_name=row.display_name, created_at=stamp(row.created_at)
    )
