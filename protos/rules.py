"""The house's own rules for contracts, as far as a machine can tell: comments, bounds, pages, routes, events."""

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from buf.validate import validate_pb2
from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorSet, MethodOptions

from libs import contracts
from regulars.options.v1 import options_pb2

_TEXTS = {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}
_REALS = {FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT}
# Any one of these keeps a text from growing without end.
_BOUNDS = {"max_len", "max_bytes", "len", "len_bytes", "uuid", "in", "const", "pattern"}
_PERMISSION = re.compile(r"[a-z_]+\.[a-z_]+")
_SUBJECT = re.compile(r"customers\.[a-z_]+\.[a-z_]+")
_VARIABLE = re.compile(r"\{([a-z_.]+)(=[^}]*)?\}")
# Ids that others gave, in whatever form they have there.
_FOREIGN_IDS = {"request_id", "external_id", "telegram_chat_id"}
# What an event may say about a person. Everything under `system.` says nothing about one.
_TOLD = {"user.unique_id", "user.unique_id.pseudonymous"}
_LONGEST_ID = 100
_LONGEST_TOKEN = 2000
_LARGEST_PAGE = 1000


def faults() -> list[str]:
    """Everything that breaks a rule of the house, as "full.name: what"."""
    checks: tuple[Callable[[], Iterator[str]], ...] = (_inputs, _methods, _routes, _pages, _events)
    return [*contracts.faults(), *(fault for check in checks for fault in check())]


def uncommented() -> list[str]:
    """Names of services, methods, messages, fields, enums and their values without a comment (AIP-192)."""
    said = contracts.comments()
    return [name for name in _elements() if not re.search(r"\w", said.get(name, ""))]


def gone(before: FileDescriptorSet) -> list[str]:
    """Promises of `before` that buf does not know of and that hold no more: routes and event subjects."""
    routes = {f"{verb} {path}" for rule in _rules_now() for verb, path in [_route(rule)]}
    subjects = {
        message.full_name: _subject(message)
        for file in contracts.files()
        for message in contracts.messages(file)
    }
    found: list[str] = []
    for file in before.file:
        for service in file.service:
            for rpc in service.method:
                for rule in _rules_of(rpc.options):
                    verb, path = _route(rule)
                    if f"{verb} {path}" not in routes:
                        found.append(
                            f"{file.package}.{service.name}.{rpc.name}: {verb} {path} is served no more"
                        )
        for name, subject in _subjects_of(file.package, list(file.message_type)):
            if subject and subjects.get(name, subject) != subject:
                found.append(f"{name}: went out on {subject}, now on {subjects[name] or 'none'}")
    return found


def _subjects_of(prefix: str, messages: list[DescriptorProto]) -> Iterator[tuple[str, str]]:
    for message in messages:
        name = f"{prefix}.{message.name}"
        yield name, str(message.options.Extensions[options_pb2.event].subject)
        yield from _subjects_of(name, list(message.nested_type))


def _elements() -> Iterator[str]:
    for file in contracts.files():
        for service in file.services_by_name.values():
            yield service.full_name
            yield from (rpc.full_name for rpc in service.methods)
        for message in contracts.messages(file):
            if message.GetOptions().map_entry:
                continue
            yield message.full_name
            yield from (field.full_name for field in message.fields)
            for enum in message.enum_types:
                yield from _values(enum)
        for enum in file.enum_types_by_name.values():
            yield from _values(enum)
        yield from (extension.full_name for extension in file.extensions_by_name.values())


def _values(enum: EnumDescriptor) -> Iterator[str]:
    yield enum.full_name
    yield from (f"{enum.full_name}.{value.name}" for value in enum.values)


def _inputs() -> Iterator[str]:
    """Whatever a caller may send is bounded, and its ids are ids."""
    for field in inputs():
        rule = _rule(field)
        each = rule.repeated.items if field.is_repeated else rule
        name = field.full_name
        if field.is_repeated and not _is_map(field) and not rule.repeated.max_items:
            yield f"{name}: a list without max_items"
        if field.type in _TEXTS:
            text = each.bytes if field.type == FieldDescriptor.TYPE_BYTES else each.string
            given = {option.name for option, _ in text.ListFields()}
            if not given & _BOUNDS:
                yield f"{name}: text without a bound ({', '.join(sorted(_BOUNDS))})"
            is_id = re.search(r"(^|_)ids?$", field.name) and field.name not in _FOREIGN_IDS
            if is_id and field.type == FieldDescriptor.TYPE_STRING and not text.uuid:
                yield f"{name}: an id without string.uuid"
            if field.name in {"etag", "request_id"} and not 0 < text.max_len <= _LONGEST_ID:
                yield f"{name}: needs string.max_len of at most {_LONGEST_ID}"
        if field.type == FieldDescriptor.TYPE_ENUM and not each.enum.defined_only:
            yield f"{name}: an enum without defined_only"
        if field.type in _REALS and not (each.double.finite or each.double.HasField("lte")):
            yield f"{name}: a number that may be infinite"


@cache
def inputs() -> tuple[FieldDescriptor, ...]:
    """Every field that a caller may write, in any request; not those whose comment says "Output only"."""
    seen: dict[str, list[FieldDescriptor]] = {}

    def walk(message: Descriptor) -> None:
        if message.full_name in seen or not message.full_name.startswith("regulars."):
            return
        seen[message.full_name] = mine = [f for f in message.fields if not _output_only(f)]
        for field in mine:
            if field.message_type is not None:
                walk(field.message_type)

    for method in contracts.methods().values():
        walk(method.input)
    return tuple(field for fields in seen.values() for field in fields)


def _output_only(field: FieldDescriptor) -> bool:
    return bool(re.search(r"Output\s+only\b", contracts.comments().get(field.full_name, "")))


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _rule(field: FieldDescriptor) -> Any:
    return field.GetOptions().Extensions[validate_pb2.field]


def _methods() -> Iterator[str]:
    """Permissions have their form, and peers exist."""
    services = {method.service_name for method in contracts.methods().values()}
    for path, method in contracts.methods().items():
        permission, peers = method.access.permission, set(method.access.peers)
        if permission and not _PERMISSION.fullmatch(permission):
            yield f"{path}: permission {permission} is not noun.verb"
        if unknown := sorted(peers - services):
            yield f"{path}: there is no service {', '.join(unknown)}"
        if method.service_name in peers:
            yield f"{path}: a service does not call itself"
        if method.access.link and (
            permission or peers or method.access.self_service or method.access.platform
        ):
            yield f"{path}: a link is all that is asked for, or not asked for"
        if method.access.link and any(rule.WhichOneof("pattern") != "get" for rule in method.http):
            yield f"{path}: a link is followed by GET"
        if method.access.platform and method.http:
            yield f"{path}: what needs no tenant is not served over REST"


def _routes() -> Iterator[str]:
    """No two RPCs share a route, and each finds its variables and its body in the request."""
    taken: dict[tuple[str, str], str] = {}
    for path, method in contracts.methods().items():
        for rule in method.http:
            route = _route(rule)
            if route in taken:
                yield f"{path}: {' '.join(route)} is also that of {taken[route]}"
            taken[route] = path
            if not route[1].startswith("/api/v1/"):
                yield f"{path}: {route[1]} is not under /api/v1/"
            for variable in _VARIABLE.findall(_template(rule)[1]):
                if variable[0] not in method.input.fields_by_name:
                    yield f"{path}: the request has no field {variable[0]}"
            if rule.body not in {"", "*"} and rule.body not in method.input.fields_by_name:
                yield f"{path}: the request has no field {rule.body}"


def _template(rule: HttpRule) -> tuple[str, str]:
    verb = str(rule.WhichOneof("pattern"))
    if verb == "custom":
        return rule.custom.kind.upper(), rule.custom.path
    return verb.upper(), str(getattr(rule, verb))


def _route(rule: HttpRule) -> tuple[str, str]:
    """Verb and path, whatever the variables are called."""
    verb, path = _template(rule)
    return verb, _VARIABLE.sub(lambda m: f"{{{m[2] or ''}}}", path)


def _rules_of(options: MethodOptions) -> tuple[HttpRule, ...]:
    if not options.HasExtension(annotations_pb2.http):
        return ()
    first = options.Extensions[annotations_pb2.http]
    return (first, *first.additional_bindings)


def _rules_now() -> Iterator[HttpRule]:
    return (rule for method in contracts.methods().values() for rule in method.http)


def _pages() -> Iterator[str]:
    """Pages have the three fields of AIP-158, with our limits."""
    for path, method in contracts.methods().items():
        asked, answered = method.input.fields_by_name, method.output.fields_by_name
        paging = {"page_size", "page_token"} & set(asked)
        if not paging:
            continue
        if len(paging) < 2 or "next_page_token" not in answered:
            yield f"{path}: pages need page_size, page_token and next_page_token"
            continue
        size, token = _rule(asked["page_size"]).int32, _rule(asked["page_token"]).string
        if not (size.HasField("gte") and size.gte == 0 and 0 < size.lte <= _LARGEST_PAGE):
            yield f"{path}: page_size needs int32 gte 0 and lte {_LARGEST_PAGE} or less"
        if not 0 < token.max_len <= _LONGEST_TOKEN:
            yield f"{path}: page_token needs string.max_len of at most {_LONGEST_TOKEN}"


def _subject(message: Descriptor) -> str:
    return str(message.GetOptions().Extensions[options_pb2.event].subject)


def _events() -> Iterator[str]:
    """Events have a subject of their own, and say nothing about a person but ids."""
    taken: dict[str, str] = {}
    for message in (m for file in contracts.files() for m in contracts.messages(file) if _subject(m)):
        subject = _subject(message)
        if not _SUBJECT.fullmatch(subject):
            yield f"{message.full_name}: subject {subject} is not customers.noun.verb"
        if subject in taken:
            yield f"{message.full_name}: subject {subject} is also that of {taken[subject]}"
        taken[subject] = message.full_name
        yield from _telling(message, frozenset())


def _telling(message: Descriptor, above: frozenset[str]) -> Iterator[str]:
    for field in message.fields:
        category = contracts.category(field)
        if category and not category.startswith("system.") and category not in _TOLD:
            yield f"{field.full_name}: an event must not carry {category}"
        inner = field.message_type
        if inner is not None and inner.full_name not in above:
            yield from _telling(inner, above | {message.full_name})
