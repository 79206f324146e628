"""The refusals of the customers service, and which constraint means which."""

from collections.abc import Callable, Mapping

from libs.problems import Code, NotFound, Problem


class TenantNotFound(NotFound):
    """There is no such tenant."""

    reason = "TENANT_NOT_FOUND"
    message = "There is no such tenant."


class BusinessNotFound(NotFound):
    """The tenant has no such business, or it is none of the caller's."""

    reason = "BUSINESS_NOT_FOUND"
    message = "There is no such business."


class CustomerNotFound(NotFound):
    """There is no such customer, or none that this caller may see."""

    reason = "CUSTOMER_NOT_FOUND"
    message = "There is no such customer."


class AddressNotFound(NotFound):
    """The customer has no such address."""

    reason = "ADDRESS_NOT_FOUND"
    message = "There is no such address."


class NoteNotFound(NotFound):
    """The customer has no such note, or it is another business's."""

    reason = "NOTE_NOT_FOUND"
    message = "There is no such note."


class AttributeNotFound(NotFound):
    """The business declared no such attribute."""

    reason = "ATTRIBUTE_NOT_FOUND"
    message = "There is no such attribute."


class BusinessArchived(Problem):
    """An archived business can be read only."""

    code = Code.FAILED_PRECONDITION
    reason = "BUSINESS_ARCHIVED"
    message = "The business is archived."


class AttributeExists(Problem):
    """The business declared an attribute of this name before."""

    code = Code.ALREADY_EXISTS
    reason = "ATTRIBUTE_EXISTS"
    message = "The business has an attribute of this name."


class TooManyAttributes(Problem):
    """The business declared as many attributes as it may."""

    code = Code.FAILED_PRECONDITION
    reason = "TOO_MANY_ATTRIBUTES"
    message = "The business has as many attributes as it may."


class EmailTaken(Problem):
    """Another live customer of the tenant has this e-mail."""

    code = Code.ALREADY_EXISTS
    reason = "EMAIL_TAKEN"
    message = "Another customer has this e-mail."


class PhoneTaken(Problem):
    """Another live customer of the tenant has this phone."""

    code = Code.ALREADY_EXISTS
    reason = "PHONE_TAKEN"
    message = "Another customer has this phone."


class ExternalIdTaken(Problem):
    """Another live customer of the business has this id in the same source."""

    code = Code.ALREADY_EXISTS
    reason = "EXTERNAL_ID_TAKEN"
    message = "Another customer has this external id in this source."


class CustomerDeleted(Problem):
    """A deleted customer cannot be changed until it is restored."""

    code = Code.FAILED_PRECONDITION
    reason = "CUSTOMER_DELETED"
    message = "The customer is deleted; restore it first."


class ErasureBegun(Problem):
    """The customer's data is being destroyed; there is no way back."""

    code = Code.FAILED_PRECONDITION
    reason = "ERASURE_BEGUN"
    message = "The erasure of this customer has begun."


class LastMembership(Problem):
    """A customer belongs to at least one business."""

    code = Code.FAILED_PRECONDITION
    reason = "LAST_MEMBERSHIP"
    message = "This is the customer's last business; delete the customer instead."


class DefaultAddressNeeded(Problem):
    """A customer with addresses has one default address."""

    code = Code.FAILED_PRECONDITION
    reason = "DEFAULT_ADDRESS_NEEDED"
    message = "Make another address the default instead."


class TooManyAddresses(Problem):
    """A customer has at most 50 addresses."""

    code = Code.FAILED_PRECONDITION
    reason = "TOO_MANY_ADDRESSES"
    message = "The customer has as many addresses as they may."


class OrderNotFound(NotFound):
    """There is no such order, or it is none of the caller's."""

    reason = "ORDER_NOT_FOUND"
    message = "There is no such order."


class RevisionReused(Problem):
    """The order is known with this revision and other content: a change needs a higher revision."""

    code = Code.ALREADY_EXISTS
    reason = "REVISION_REUSED"
    message = "This revision of the order is known with other content."


class ActivityIdTaken(Problem):
    """The business recorded an activity of another customer under this id."""

    code = Code.ALREADY_EXISTS
    reason = "ACTIVITY_ID_TAKEN"
    message = "Another customer's activity has this id."


class ViewNotFound(NotFound):
    """There is no such view, or none that this caller may see."""

    reason = "VIEW_NOT_FOUND"
    message = "There is no such view."


class ViewNameTaken(Problem):
    """The owner has another view of this name at the business."""

    code = Code.ALREADY_EXISTS
    reason = "VIEW_NAME_TAKEN"
    message = "There is a view of this name."


class TooManyViews(Problem):
    """The owner saved as many views at the business as they may."""

    code = Code.FAILED_PRECONDITION
    reason = "TOO_MANY_VIEWS"
    message = "There are as many views as there may be."


class ImportNotFound(NotFound):
    """There is no such import, or it is none of the caller's."""

    reason = "IMPORT_NOT_FOUND"
    message = "There is no such import."


class ImportStarted(Problem):
    """How a file is read can be changed only before it is started."""

    code = Code.FAILED_PRECONDITION
    reason = "IMPORT_STARTED"
    message = "The import was started; how its file is read cannot be changed any more."


class ImportDone(Problem):
    """An import that is completed or was taken back is not started again; upload the file anew."""

    code = Code.FAILED_PRECONDITION
    reason = "IMPORT_DONE"
    message = "The import is over; upload the file again."


class NothingToUndo(Problem):
    """The import wrote nothing, is still at work, or was taken back already."""

    code = Code.FAILED_PRECONDITION
    reason = "NOTHING_TO_UNDO"
    message = "The import has nothing to undo now."


class UndoTooLate(Problem):
    """An import can be taken back for 7 days."""

    code = Code.FAILED_PRECONDITION
    reason = "UNDO_TOO_LATE"
    message = "The import can be undone no more."


class UploadBroken(Problem):
    """An upload begins with its settings, and they come once."""

    code = Code.INVALID_ARGUMENT
    reason = "UPLOAD_BROKEN"
    message = "An upload is its settings first and then chunks of the file."


PROBLEMS: Mapping[str, Callable[[], Problem]] = {
    "attribute_definitions_pkey": AttributeExists,
}
