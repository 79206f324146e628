"""Messages of saved views to values and back."""

from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict, ParseDict

from libs import formats
from libs.formats import Wrong
from libs.instants import stamp
from libs.problems import Faults
from regulars.customers.v1 import views_pb2 as pb
from regulars.customers.v1.search_pb2 import SearchCustomersRequest
from services.customers.views.queries import ViewOfList

WRITABLE = frozenset(("name", "shared", "search"))
_NOT_KEPT = ("business_id", "page_size", "page_token")


def paths_of(message: pb.SavedView, mask: FieldMask) -> frozenset[str]:
    """The paths that a mask names: the present ones if it is empty, all for "*". Raises InvalidArgument."""
    if list(mask.paths) == ["*"]:
        return WRITABLE
    if not mask.paths:
        return frozenset(field.name for field, _ in message.ListFields() if field.name in WRITABLE)
    faults = Faults()
    for path in set(mask.paths) - WRITABLE:
        faults.add("update_mask", f"{path} is no field that can be written")
    faults.refuse()
    return frozenset(mask.paths)


def touched(message: pb.SavedView, paths: frozenset[str]) -> list[str]:
    """The paths with those of the search's own fields that are given."""
    inner = [f"search.{field.name}" for field, _ in message.search.ListFields()] if "search" in paths else []
    return [*(paths - {"search"}), *inner]


def name_of(message: pb.SavedView) -> str:
    """The name that is to be written. Raises InvalidArgument if it is blank."""
    faults = Faults()
    name = ""
    try:
        name = formats.line(message.name)
        if not name:
            faults.add("view.name", "must not be blank", "REQUIRED")
    except Wrong as wrong:
        faults.add("view.name", str(wrong))
    faults.refuse()
    return name


def search_of(message: pb.SavedView) -> dict[str, Any]:
    """The JSON form of the search, without what is not kept."""
    kept = SearchCustomersRequest()
    kept.CopyFrom(message.search)
    for name in _NOT_KEPT:
        kept.ClearField(name)  # type: ignore[arg-type]  # names of its own
    found: dict[str, Any] = MessageToDict(kept)
    return found


def saved_view(view: ViewOfList, principal: str) -> pb.SavedView:
    """The message of a view, as `principal` sees it."""
    message = pb.SavedView(
        id=str(view.view_id),
        business_id=str(view.business_id),
        name=view.name,
        shared=view.shared,
        mine=view.owner == principal,
        created_at=stamp(view.created_at),
        updated_at=stamp(view.updated_at),
        etag=str(view.version),
    )
    ParseDict(view.search, message.search, ignore_unknown_fields=True)
    return message
