"""Saved views over gRPC and REST."""

import asyncio
from typing import Any

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy import func, select

from libs.caller import Caller, acting_as
from libs.crypto.tables import subject_keys
from regulars.customers.v1 import views_pb2 as pb
from regulars.customers.v1.customers_pb2 import CUSTOMER_STATUS_VIP
from regulars.customers.v1.search_pb2 import SearchCustomersRequest
from regulars.customers.v1.views_pb2_grpc import ViewsServiceStub
from services.customers.views.tables import saved_views
from tests.customers.shop import Shop, refused

DENIED, ABSENT = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND


def views(shop: Shop, *roles: str, subject: str = "tester") -> Any:
    return shop.calls(ViewsServiceStub, *roles, subject=subject)


async def save(
    shop: Shop, name: str = "VIPs", subject: str = "tester", *roles: str, **fields: Any
) -> pb.SavedView:
    search = fields.pop(
        "search", SearchCustomersRequest(status=[CUSTOMER_STATUS_VIP], order_by="total_spent desc")
    )
    view = pb.SavedView(name=name, search=search, **fields)
    made: pb.SavedView = await views(shop, *roles, subject=subject).CreateView(
        pb.CreateViewRequest(view=view)
    )
    return made


async def test_a_view_comes_back_and_runs(shop: Shop) -> None:
    await shop.create(first_name="Ann", status=CUSTOMER_STATUS_VIP)
    await shop.create(first_name="Bob")
    asked = SearchCustomersRequest(
        query="ann",
        status=[CUSTOMER_STATUS_VIP],
        tags_any=["x"],
        total_spent_min=0,
        business_id=shop.id,
        page_size=7,
    )
    made = await save(shop, "  Mine ", search=asked)
    assert (made.name, made.mine, made.shared, made.etag) == ("Mine", True, False, "1")
    assert (made.search.business_id, made.search.page_size, made.search.query) == ("", 0, "ann")
    assert made.search.HasField("total_spent_min")
    listed = await views(shop).ListViews(pb.ListViewsRequest())
    assert list(listed.views) == [made]
    again = await save(shop)
    found = await shop.search(**{f.name: v for f, v in again.search.ListFields()})
    assert [c.first_name for c in found.customers] == ["Ann"]


async def test_names_are_unique_per_owner(shop: Shop) -> None:
    first = await save(shop, "VIPs")
    problem = await refused(save(shop, "vips"))
    assert (problem.code, problem.reason) == (grpc.StatusCode.ALREADY_EXISTS, "VIEW_NAME_TAKEN")
    await save(shop, "VIPs", "somebody else")
    second = await save(shop, "Others")
    rename = pb.UpdateViewRequest(id=second.id, view=pb.SavedView(name="VIPS"))
    assert (await refused(views(shop).UpdateView(rename))).reason == "VIEW_NAME_TAKEN"
    same = pb.UpdateViewRequest(id=first.id, view=pb.SavedView(name="vIPs"))
    assert (await views(shop).UpdateView(same)).name == "vIPs"
    assert (await refused(save(shop, " "))).fields == {"view.name": "REQUIRED"}


async def test_of_two_at_once_one_gets_the_name(shop: Shop) -> None:
    done = await asyncio.gather(*(save(shop, "Same") for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(each, pb.SavedView) for each in done) == 1


async def test_a_view_is_its_owners_until_it_is_shared(shop: Shop, other_shop: Shop) -> None:
    made = await save(shop)
    stranger = views(shop, subject="other")
    assert not (await stranger.ListViews(pb.ListViewsRequest())).views
    for call in (
        stranger.UpdateView(pb.UpdateViewRequest(id=made.id, view=pb.SavedView(name="x"))),
        stranger.DeleteView(pb.DeleteViewRequest(id=made.id)),
    ):
        assert (await refused(call)).code is ABSENT
    await views(shop).UpdateView(pb.UpdateViewRequest(id=made.id, view=pb.SavedView(shared=True)))
    seen = (await stranger.ListViews(pb.ListViewsRequest())).views
    assert [(view.id, view.mine, view.shared) for view in seen] == [(made.id, False, True)]
    marketer = views(shop, "marketer", subject="third")
    problem = await refused(marketer.DeleteView(pb.DeleteViewRequest(id=made.id)))
    assert problem.code is DENIED
    assert not (await views(other_shop).ListViews(pb.ListViewsRequest())).views
    assert (await refused(views(other_shop).DeleteView(pb.DeleteViewRequest(id=made.id)))).code is ABSENT
    await views(shop, "admin", subject="boss").DeleteView(pb.DeleteViewRequest(id=made.id))
    assert not (await views(shop).ListViews(pb.ListViewsRequest())).views


async def test_an_analyst_saves_filters_and_no_names(shop: Shop) -> None:
    analyst = views(shop, "analyst", subject="analyst")
    named = pb.SavedView(name="n", search=SearchCustomersRequest(query="ann"))
    problem = await refused(analyst.CreateView(pb.CreateViewRequest(view=named)))
    assert (problem.code, problem.reason) == (DENIED, "FIELDS_MASKED")
    assert (await refused(save(shop, "s", "analyst", "analyst", shared=True))).code is DENIED
    await save(shop, "filters", "analyst", "analyst")
    await save(shop, "names", search=SearchCustomersRequest(query="ann"), shared=True)
    seen = {view.name: view for view in (await analyst.ListViews(pb.ListViewsRequest())).views}
    assert set(seen) == {"filters", "names"}
    assert not seen["names"].search.query
    assert "search.query" in seen["names"].masked_fields


async def test_changes_keep_to_the_mask_and_the_etag(shop: Shop) -> None:
    made = await save(shop)
    mask = FieldMask(paths=["search"])
    changed = await views(shop).UpdateView(
        pb.UpdateViewRequest(
            id=made.id,
            view=pb.SavedView(name="ignored", search=SearchCustomersRequest(query="q")),
            update_mask=mask,
            etag="1",
        )
    )
    assert (changed.name, changed.search.query, len(changed.search.status), changed.etag) == (
        "VIPs",
        "q",
        0,
        "2",
    )
    stale = pb.UpdateViewRequest(id=made.id, view=pb.SavedView(name="x"), etag="1")
    assert (await refused(views(shop).UpdateView(stale))).reason == "ETAG_MISMATCH"
    wrong = pb.UpdateViewRequest(id=made.id, view=pb.SavedView(), update_mask=FieldMask(paths=["owner"]))
    assert (await refused(views(shop).UpdateView(wrong))).fields == {"update_mask": "INVALID"}


async def test_text_is_sealed_and_goes_with_its_key(shop: Shop) -> None:
    made = await save(shop, "Unguessable9f3", search=SearchCustomersRequest(query="Unguessable7c1"))
    db = shop.tenant.stack.runtimes["customers"].db
    with acting_as(Caller(tenant_id=shop.tenant.id, subject="test")):
        async with db.read() as tx:
            sealed = await tx.scalar(select(saved_views.c.sealed))
            before = await tx.scalar(select(func.count()).select_from(subject_keys))
        assert b"Unguessable" not in sealed
        await views(shop).DeleteView(pb.DeleteViewRequest(id=made.id))
        async with db.read() as tx:
            assert await tx.scalar(select(func.count()).select_from(subject_keys)) == before - 1


async def test_pages_of_views(shop: Shop) -> None:
    made = [await save(shop, f"v{i}") for i in range(5)]
    seen, token = [], ""
    while True:
        page = await views(shop).ListViews(pb.ListViewsRequest(page_size=2, page_token=token))
        seen += [view.id for view in page.views]
        token = page.next_page_token
        if not token:
            break
    assert seen == [view.id for view in reversed(made)]


async def test_views_and_searches_over_rest(shop: Shop) -> None:
    await shop.create(first_name="Zoë", last_name="Ångström", tags=["vip"])
    async with shop.tenant.rest(businesses=[shop.id]) as rest:
        made = await rest.post(
            "/api/v1/views", json={"name": "Zoë", "search": {"query": "zoe", "tagsAny": ["vip"]}}
        )
        assert made.status_code in {200, 201}, made.text
        view = made.json()
        changed = await rest.patch(f"/api/v1/views/{view['id']}", json={"name": "Other"})
        assert view["search"] == changed.json()["search"]
        assert (view["search"]["query"], view["search"]["tagsAny"]) == ("zoe", ["vip"])
        assert [each["name"] for each in (await rest.get("/api/v1/views")).json()["views"]] == ["Other"]
        found = await rest.post(
            "/api/v1/customers/search", json=view["search"] | {"readMask": "lastName,tags"}
        )
        assert found.status_code == 200, found.text
        assert found.json()["customers"][0]["lastName"] == "Ångström"
        got = await rest.get(
            "/api/v1/customers/search", params={"query": "angstrm", "tagsAny": "vip", "pageSize": 5}
        )
        assert [each["firstName"] for each in got.json()["customers"]] == ["Zoë"]
        wrong = await rest.post("/api/v1/customers/search", json={"orderBy": "name"})
        assert wrong.json()["error"]["violations"][0]["field"] == "orderBy"
        gone = await rest.delete(f"/api/v1/views/{view['id']}")
        assert gone.status_code in {200, 204}
