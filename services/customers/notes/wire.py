"""Note rows to messages."""

from libs.instants import stamp
from libs.problems import InvalidArgument
from regulars.customers.v1 import notes_pb2 as pb
from regulars.type.v1.actor_pb2 import ActorRef
from services.customers.notes.queries import NoteView, Revision


def text_of(message: pb.Note) -> str:
    """The text of a note that is to be written. Raises InvalidArgument if it is blank."""
    if not message.text.strip():
        raise InvalidArgument.of("note.text", "must not be blank", "REQUIRED")
    return message.text


def note(view: NoteView) -> pb.Note:
    """The message of a note."""
    return pb.Note(
        id=str(view.note_id),
        kind=view.kind,  # type: ignore[arg-type]  # the number of the enum
        text=view.newest.text,
        author=_author(view.newest),
        created_at=stamp(view.created_at),
        updated_at=stamp(view.updated_at),
        revision=view.newest.number,
        etag=str(view.newest.number),
    )


def revision(found: Revision) -> pb.NoteRevision:
    """The message of one text that a note had."""
    return pb.NoteRevision(
        revision=found.number, text=found.text, author=_author(found), created_at=stamp(found.written_at)
    )


def _author(found: Revision) -> ActorRef:
    return ActorRef(subject=found.author, display_name=found.author_name)
