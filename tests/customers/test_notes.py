"""Notes over gRPC."""

from typing import Any

import grpc

from regulars.customers.v1 import customers_pb2
from regulars.customers.v1 import notes_pb2 as pb
from regulars.customers.v1.customers_pb2_grpc import CustomersServiceStub
from regulars.customers.v1.notes_pb2_grpc import NotesServiceStub
from tests.customers.shop import Shop, refused


async def write(shop: Shop, customer_id: str, text: str, **claims: Any) -> pb.Note:
    found: pb.Note = await shop.calls(NotesServiceStub, **claims).CreateNote(
        pb.CreateNoteRequest(customer_id=customer_id, note=pb.Note(text=text))
    )
    return found


async def test_a_note_tells_who_wrote_it_and_what_it_was(shop: Shop) -> None:
    customer = await shop.create()
    made = await write(shop, customer.id, "likes tea", subject="u-1", name="Uma")
    assert (made.kind, made.author.subject, made.author.display_name) == (pb.NOTE_KIND_INTERNAL, "u-1", "Uma")
    changed = await shop.calls(NotesServiceStub, subject="u-2", name="Ugo").UpdateNote(
        pb.UpdateNoteRequest(customer_id=customer.id, id=made.id, note=pb.Note(text="likes coffee"), etag="1")
    )
    assert (changed.text, changed.revision, changed.author.subject) == ("likes coffee", 2, "u-2")
    history = await shop.notes.ListNoteRevisions(
        pb.ListNoteRevisionsRequest(customer_id=customer.id, id=made.id)
    )
    assert [(r.revision, r.text, r.author.display_name) for r in history.revisions] == [
        (2, "likes coffee", "Ugo"),
        (1, "likes tea", "Uma"),
    ]


async def test_a_stale_etag_and_blank_text_are_refused(shop: Shop) -> None:
    customer = await shop.create()
    made = await write(shop, customer.id, "one")
    stale = pb.UpdateNoteRequest(customer_id=customer.id, id=made.id, note=pb.Note(text="two"), etag="9")
    assert (await refused(shop.notes.UpdateNote(stale))).reason == "ETAG_MISMATCH"
    blank = pb.CreateNoteRequest(customer_id=customer.id, note=pb.Note(text="  "))
    assert (await refused(shop.notes.CreateNote(blank))).fields == {"note.text": "REQUIRED"}


async def test_notes_are_paged_newest_first(shop: Shop) -> None:
    customer = await shop.create()
    made = [(await write(shop, customer.id, f"n{i}")).id for i in range(5)]
    first = await shop.notes.ListNotes(pb.ListNotesRequest(customer_id=customer.id, page_size=2))
    rest = await shop.notes.ListNotes(
        pb.ListNotesRequest(customer_id=customer.id, page_token=first.next_page_token)
    )
    assert [n.id for n in [*first.notes, *rest.notes]] == made[::-1]


async def test_staff_of_another_business_never_read_a_note(shop: Shop, other_shop: Shop) -> None:
    customer = await shop.create()
    made = await write(shop, customer.id, "ours alone")
    both = shop.tenant.calls(CustomersServiceStub)
    await both.JoinBusiness(customers_pb2.JoinBusinessRequest(id=customer.id, business_id=other_shop.id))
    get = pb.GetNoteRequest(customer_id=customer.id, id=made.id)
    problem = await refused(other_shop.notes.GetNote(get))
    assert (problem.code, problem.reason) == (grpc.StatusCode.NOT_FOUND, "NOTE_NOT_FOUND")
    theirs = await other_shop.notes.ListNotes(pb.ListNotesRequest(customer_id=customer.id))
    assert not theirs.notes


async def test_a_deleted_note_is_gone_with_its_history(shop: Shop) -> None:
    customer = await shop.create()
    made = await write(shop, customer.id, "oops")
    gone = pb.DeleteNoteRequest(customer_id=customer.id, id=made.id)
    await shop.notes.DeleteNote(gone)
    assert (await refused(shop.notes.DeleteNote(gone))).reason == "NOTE_NOT_FOUND"
