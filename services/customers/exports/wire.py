"""Export requests to what they ask for, and exports to messages."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from google.protobuf.json_format import MessageToDict, ParseDict
from sqlalchemy import Row

from libs.caller import Caller
from libs.instants import stamp
from libs.jobs_service import message as job_message
from libs.problems import Faults
from regulars.customers.v1 import exports_pb2 as pb
from regulars.customers.v1.search_pb2 import SearchCustomersRequest
from services.customers.businesses.rules import AttributeDefinition
from services.customers.exports import columns, walk
from services.customers.exports.columns import Column, Needs
from services.customers.exports.queries import Known
from services.customers.exports.walk import Wanted
from services.customers.search import wire as search_wire

Request = pb.ExportCustomersRequest | pb.CreateExportRequest
_NOT_OF_EXPORTS = ("business_id", "page_size", "page_token", "read_mask")
# A stream that ended without a word: its process died. No stream lives longer.
STREAM_AT_MOST = timedelta(hours=6)

_JOB_STATES = {
    "queued": pb.EXPORT_STATE_QUEUED,
    "running": pb.EXPORT_STATE_RUNNING,
    "cancelled": pb.EXPORT_STATE_CANCELLED,
    "failed": pb.EXPORT_STATE_FAILED,
}


def search_of(stored: Mapping[str, Any]) -> SearchCustomersRequest:
    """The search of its JSON form."""
    return ParseDict(dict(stored), SearchCustomersRequest(), ignore_unknown_fields=True)


def kept(search: SearchCustomersRequest) -> SearchCustomersRequest:
    """The search without what does not count."""
    found = SearchCustomersRequest()
    found.CopyFrom(search)
    for name in _NOT_OF_EXPORTS:
        found.ClearField(name)  # type: ignore[arg-type]  # names of its own
    return found


def stored(search: SearchCustomersRequest) -> dict[str, Any]:
    """The JSON form of a search."""
    form: dict[str, Any] = MessageToDict(search)
    return form


def wanted(
    business: Row[Any],
    form: int,
    search: SearchCustomersRequest,
    names: Sequence[str],
    definitions: Mapping[str, AttributeDefinition],
    masks: frozenset[str],
) -> Wanted:
    """What an export of a business holds for somebody with these masks. Raises InvalidArgument."""
    faults, of_search = Faults(), Faults()
    order = walk.order_of(search_wire.columns(search, of_search))
    given = search_wire.filters(search, definitions, of_search)
    for fault in of_search.found:
        faults.add(f"search.{fault.field}", fault.description, fault.reason)
    chosen = columns.chosen(names, business.currency, definitions, faults)
    faults.refuse()
    masked = frozenset(column.name for column in chosen if column.masked(masks))
    shown = [column for column in chosen if column.name not in masked]
    return Wanted(
        business_id=business.business_id,
        country=business.country,
        form=form or pb.EXPORT_FORMAT_CSV,
        search=search,
        given=given,
        order=order,
        columns=tuple(map(_empty, chosen, (column.name in masked for column in chosen))),
        masked=masked,
        masks=masks,
        needs=frozenset(column.needs for column in shown),
        categories=frozenset(
            found for column in shown if column.needs in _SEALED for found in column.categories
        ),
    )


_SEALED = frozenset((Needs.PROFILE, Needs.STANDING, Needs.PLACE))


def _empty(column: Column, masked: bool) -> Column:
    """The column, without its values if it is masked."""
    if not masked:
        return column
    return Column(column.name, column.label, column.group, column.kind, Needs.ROW, lambda _: None)


def in_order(wanted: Wanted, names: frozenset[str]) -> list[str]:
    """Those of the names that are columns, in the columns' order."""
    return [column.name for column in wanted.columns if column.name in names]


def export(known: Known, now: datetime, link: str = "", link_expires_at: datetime | None = None) -> pb.Export:
    """The message of an export."""
    row, job = known.row, known.job
    under_way = job is not None and row.outcome is None
    message = pb.Export(
        id=str(row.export_id),
        business_id=str(row.business_id),
        state=_state(row, job, now),
        format=row.format,
        streamed=row.streamed,
        search=search_of(known.search),
        columns=row.columns,
        masked_columns=row.masked_columns,
        customers_done=max(row.customers, job.done) if under_way and job else row.customers,
        customers_total=row.customers if row.outcome == pb.EXPORT_STATE_COMPLETED else row.customers_total,
        size_bytes=row.size,
        created_by=row.created_by,
        created_at=stamp(row.created_at),
        finished_at=stamp(row.finished_at or (job.finished_at if job is not None else None)),
        expires_at=stamp(row.expires_at),
        download_link=f"/api/v1/customers/exports/{row.export_id}/file?signature={link}" if link else "",
        link_expires_at=stamp(link_expires_at),
        downloads=row.downloads,
        last_downloaded_at=stamp(row.last_downloaded_at),
    )
    if job is not None:
        message.job.CopyFrom(job_message(job))
    return message


def ready(known: Known, now: datetime) -> bool:
    """True if there is a file to download."""
    row = known.row
    return bool(row.outcome == pb.EXPORT_STATE_COMPLETED and not row.streamed and row.expires_at > now)


def _state(row: Row[Any], job: Row[Any] | None, now: datetime) -> pb.ExportState.ValueType:
    if row.outcome == pb.EXPORT_STATE_COMPLETED and row.expires_at is not None and row.expires_at <= now:
        return pb.EXPORT_STATE_EXPIRED
    if row.outcome is not None:
        found: pb.ExportState.ValueType = row.outcome
        return found
    if row.streamed:
        lives = row.created_at > now - STREAM_AT_MOST
        return pb.EXPORT_STATE_RUNNING if lives else pb.EXPORT_STATE_FAILED
    return _JOB_STATES.get(job.state, pb.EXPORT_STATE_RUNNING) if job is not None else pb.EXPORT_STATE_FAILED


def file_name(created_at: datetime, extension: str) -> str:
    """What an export's file is called."""
    return f"customers-{created_at:%Y-%m-%d}.{extension}"


def by_link(tenant_id: UUID, export_id: UUID, asked: Caller) -> Caller:
    """Who calls with a signed link: nobody known, for one export."""
    return Caller(
        tenant_id=tenant_id, subject=f"link/{export_id}", method=asked.method, request_id=asked.request_id
    )
