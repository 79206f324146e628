"""The contracts as the running code sees them: RPCs, permissions, data categories and event subjects."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

from regulars.options.v1 import options_pb2
from regulars.options.v1.options_pb2 import Access

GEN = Path(options_pb2.__file__).parents[3]


class ContractError(Exception):
    """The protos break a rule of the house; the service does not start."""


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC. `path` is its gRPC path ("/regulars.customers.v1.CustomersService/GetCustomer")."""

    path: str
    name: str
    service_name: str
    access: Access
    http: tuple[HttpRule, ...]
    descriptor: MethodDescriptor

    @property
    def input(self) -> Descriptor:
        """The request's descriptor."""
        return self.descriptor.input_type

    @property
    def output(self) -> Descriptor:
        """The answer's descriptor."""
        return self.descriptor.output_type

    @property
    def client_streaming(self) -> bool:
        """True if the caller sends many messages."""
        return bool(self.descriptor.client_streaming)

    @property
    def server_streaming(self) -> bool:
        """True if the answer is many messages."""
        return bool(self.descriptor.server_streaming)


@cache
def files() -> tuple[FileDescriptor, ...]:
    """Every generated file of our own, imported (and so registered in the default pool)."""
    modules = sorted(p.relative_to(GEN) for p in (GEN / "regulars").rglob("*_pb2.py"))
    return tuple(import_module(".".join(m.with_suffix("").parts)).DESCRIPTOR for m in modules)


@cache
def methods() -> Mapping[str, Method]:
    """All RPCs by gRPC path."""
    return {method.path: method for file in files() for method in methods_of(file)}


def methods_of(file: FileDescriptor) -> Iterator[Method]:
    """The RPCs of one file."""
    for service in file.services_by_name.values():
        for rpc in service.methods:
            yield _method(rpc)


def _method(rpc: MethodDescriptor) -> Method:
    options = rpc.GetOptions()
    rules: tuple[HttpRule, ...] = ()
    if options.HasExtension(annotations_pb2.http):
        first = options.Extensions[annotations_pb2.http]
        rules = (first, *first.additional_bindings)
    service = rpc.containing_service
    return Method(
        path=f"/{service.full_name}/{rpc.name}",
        name=rpc.name,
        service_name=service.file.package.split(".")[-2],
        access=options.Extensions[options_pb2.access],
        http=rules,
        descriptor=rpc,
    )


@cache
def category(field: FieldDescriptor) -> str:
    """The field's data category ("user.contact.email"), or "" if it declares none."""
    return str(field.GetOptions().Extensions[options_pb2.data].category)


@cache
def event_subject(message: Descriptor) -> str:
    """First three tokens of the message's subject. Raises ContractError if it is no event."""
    subject = str(message.GetOptions().Extensions[options_pb2.event].subject)
    if not subject:
        raise ContractError(f"{message.full_name} is not an event: it has no (regulars.options.v1.event).")
    return subject


def messages(file: FileDescriptor) -> Iterator[Descriptor]:
    """The messages of a file, nested ones too."""
    waiting = list(file.message_types_by_name.values())
    while waiting:
        message = waiting.pop()
        waiting.extend(message.nested_types)
        yield message


def faults(service_name: str | None = None) -> list[str]:
    """What the protos of one service (default: of all) lack: permissions, data categories, event subjects."""
    found: list[str] = []
    for file in files():
        owner = file.package.split(".")[-2]
        if owner == "options" or (service_name and owner not in {service_name, "type"}):
            continue
        for message in messages(file):
            for field in message.fields:
                if field.type not in {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}:
                    continue
                entry = message.GetOptions().map_entry
                if not category(field) and not entry:
                    found.append(f"{field.full_name}: text without (regulars.options.v1.data).category")
    for method in methods().values():
        if service_name and method.service_name != service_name:
            continue
        if not (method.access.permission or method.access.self_service or method.access.link):
            found.append(f"{method.path}: no (regulars.options.v1.access)")
    return found


def check(service_name: str | None = None) -> None:
    """Raises ContractError with everything that `faults` finds."""
    found = faults(service_name)
    if found:
        raise ContractError("The contracts are incomplete:\n  " + "\n  ".join(found))


@cache
def comments() -> Mapping[str, str]:
    """Leading comment of every element by full name ("regulars.customers.v1.Customer.email")."""
    described = FileDescriptorSet.FromString((GEN / "descriptors.binpb").read_bytes())
    found: dict[str, str] = {}
    for file in described.file:
        if not file.package.startswith("regulars."):
            continue
        names = dict(_names_by_path(file))
        for location in file.source_code_info.location:
            name = names.get(tuple(location.path))
            if name and location.leading_comments:
                lines = location.leading_comments.strip("\n").split("\n")
                found[name] = "\n".join(line.removeprefix(" ") for line in lines)
    return found


_Path = tuple[int, ...]


def _names_by_path(file: FileDescriptorProto) -> Iterator[tuple[_Path, str]]:
    """Full name of every element by its path in the descriptor (field numbers of descriptor.proto)."""
    for i, message in enumerate(file.message_type):
        yield from _message_names(message, (4, i), file.package)
    for i, enum in enumerate(file.enum_type):
        yield from _enum_names(enum, (5, i), file.package)
    for i, service in enumerate(file.service):
        yield (6, i), f"{file.package}.{service.name}"
        for j, rpc in enumerate(service.method):
            yield (6, i, 2, j), f"{file.package}.{service.name}.{rpc.name}"
    for i, extension in enumerate(file.extension):
        yield (7, i), f"{file.package}.{extension.name}"


def _message_names(message: DescriptorProto, path: _Path, prefix: str) -> Iterator[tuple[_Path, str]]:
    name = f"{prefix}.{message.name}"
    yield path, name
    for i, field in enumerate(message.field):
        yield (*path, 2, i), f"{name}.{field.name}"
    for i, oneof in enumerate(message.oneof_decl):
        yield (*path, 8, i), f"{name}.{oneof.name}"
    for i, nested in enumerate(message.nested_type):
        yield from _message_names(nested, (*path, 3, i), name)
    for i, enum in enumerate(message.enum_type):
        yield from _enum_names(enum, (*path, 4, i), name)


def _enum_names(enum: EnumDescriptorProto, path: _Path, prefix: str) -> Iterator[tuple[_Path, str]]:
    name = f"{prefix}.{enum.name}"
    yield path, name
    for i, value in enumerate(enum.value):
        yield (*path, 2, i), f"{name}.{value.name}"
