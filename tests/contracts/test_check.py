"""`python -m protos.check` notices what would break those who built on the contracts."""

from collections.abc import Callable
from pathlib import Path

import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

from protos import buf, rules
from regulars.options.v1 import options_pb2

CUSTOMERS = "regulars/customers/v1/customers.proto"
EVENTS = "regulars/customers/v1/events.proto"


@pytest.fixture
def before() -> FileDescriptorSet:
    """The contracts as they are, to be changed into what was promised before."""
    return buf.current()


def message(contracts: FileDescriptorSet, path: str, name: str) -> DescriptorProto:
    file = next(file for file in contracts.file if file.name == path)
    return next(each for each in file.message_type if each.name == name)


def rpc(contracts: FileDescriptorSet, path: str, name: str) -> MethodDescriptorProto:
    file = next(file for file in contracts.file if file.name == path)
    return next(each for service in file.service for each in service.method if each.name == name)


def had_a_field(before: FileDescriptorSet) -> None:
    message(before, CUSTOMERS, "Customer").field.add(
        name="shoe_size", number=999, type="TYPE_INT32", label="LABEL_OPTIONAL", json_name="shoeSize"
    )


def had_another_type(before: FileDescriptorSet) -> None:
    fields = message(before, CUSTOMERS, "Customer").field
    next(field for field in fields if field.name == "email_verified").type = FieldDescriptorProto.TYPE_INT64


def had_another_name(before: FileDescriptorSet) -> None:
    field = next(f for f in message(before, CUSTOMERS, "Customer").field if f.name == "email")
    field.name = field.json_name = "mail"


def had_an_rpc(before: FileDescriptorSet) -> None:
    file = next(file for file in before.file if file.name == CUSTOMERS)
    file.service[0].method.add().CopyFrom(rpc(before, CUSTOMERS, "GetCustomer"))
    file.service[0].method[-1].name = "FetchCustomer"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (had_a_field, "shoe_size"),
        (had_another_type, "email_verified"),
        (had_another_name, '"mail"'),
        (had_an_rpc, "FetchCustomer"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_there_no_more_is_named(
    before: FileDescriptorSet, change: Callable[[FileDescriptorSet], None], said: str
) -> None:
    change(before)
    found = buf.breaking(before)
    assert found
    assert all(said in line for line in found)


def test_what_is_new_breaks_nobody(before: FileDescriptorSet) -> None:
    fields = message(before, CUSTOMERS, "Customer").field
    del fields[-1]
    assert [*buf.breaking(before), *rules.gone(before)] == []


def test_a_route_that_is_served_no_more_is_named(before: FileDescriptorSet) -> None:
    http = rpc(before, CUSTOMERS, "GetCustomer").options.Extensions[annotations_pb2.http]
    http.additional_bindings.add(get="/api/v1/people/{id}")
    assert rules.gone(before) == [
        "regulars.customers.v1.CustomersService.GetCustomer: GET /api/v1/people/{} is served no more"
    ]


def test_a_variable_may_be_called_otherwise(before: FileDescriptorSet) -> None:
    rpc(before, CUSTOMERS, "GetCustomer").options.Extensions[
        annotations_pb2.http
    ].get = "/api/v1/customers/{who}"
    assert rules.gone(before) == []


def test_an_event_on_another_subject_is_named(before: FileDescriptorSet) -> None:
    options = message(before, EVENTS, "CustomerErased").options
    options.Extensions[options_pb2.event].subject = "customers.customer.forgotten"
    assert rules.gone(before) == [
        "regulars.customers.v1.CustomerErased: went out on customers.customer.forgotten,"
        " now on customers.customer.erased"
    ]


def test_the_same_contracts_make_the_same_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / "one", tmp_path / "two"]
    for file in files:
        monkeypatch.setattr(buf, "BASELINE", file)
        buf.accept(buf.current())
        assert buf.baseline() == buf.without_comments(buf.current())
    assert files[0].read_bytes() == files[1].read_bytes()
