"""One REST request to one request message: path, query, body and the headers that are fields of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

from libs import validation
from libs.contracts import ContractError
from libs.problems import InvalidArgument
from services.gateway.codec.decode import Decoder, setter_of
from services.gateway.codec.faults import Faults
from services.gateway.codec.masks import mask_reader, order_reader, present, resource_of
from services.gateway.codec.names import is_list, is_map, json_path, message_of, type_name
from services.gateway.codec.scalars import Reader
from services.gateway.codec.text import parse
from services.gateway.codec.wellknown import FIELD_MASK
from services.gateway.preconditions import required_etag
from services.gateway.problems import MalformedHeader
from services.gateway.query import Parameter, QueryReader, parameters
from services.gateway.routes import Binding

HTTP_BODY = "google.api.HttpBody"
UPDATE_MASK = "update_mask"
LONGEST_KEY = 100

Headers = Mapping[bytes, bytes]
Test = Callable[[FieldDescriptor], bool]


@dataclass(frozen=True, slots=True)
class Raw:
    """A request as HTTP gave it. `segments` are the path's, not decoded; `body` is None without one."""

    segments: list[str]
    query: bytes
    headers: Headers
    body: bytes | None


class RequestReader:
    """Reads the requests of one binding. `output_only` tells fields that a client cannot set."""

    def __init__(self, binding: Binding, output_only: Test) -> None:
        self.binding = binding
        message = binding.method.input
        self._input = message
        self._make = GetMessageClass(message)
        self._output_only = output_only
        self._resource = _resource_field(binding)
        readers = self._readers()
        path = {variable.field for variable in binding.template.variables}
        bound = _parameters_of_path(binding, readers)
        self._path = [bound[variable.field] for variable in binding.template.variables]
        self._body_field = self._named_body()
        self.takes_body = bool(binding.body)
        self.takes_file = self._body_field is not None and type_name(self._body_field) == HTTP_BODY
        self._decoder = Decoder()
        if binding.body == "*":
            self._decoder.compile(message, readers)
        json = self._body_field if not self.takes_file else None
        self._set_body = None if json is None else setter_of(json)
        self.parameters = (
            {}
            if binding.body == "*"
            else parameters(message, readers, lambda p: p in path or p == binding.body)
        )
        self._query = QueryReader(self.parameters)
        self._etag = "etag" in message.fields_by_name
        self.has_request_id = "request_id" in message.fields_by_name
        self._mask = UPDATE_MASK in message.fields_by_name
        self._read_mask = "read_mask" in message.fields_by_name
        self._validate_only = "validate_only" in message.fields_by_name

    @property
    def path_parameters(self) -> list[Parameter]:
        """What the path binds, in its order."""
        return self._path

    def is_sparse(self, request: Any) -> bool:
        """True if the client chose the fields of the answer."""
        return self._read_mask and request.HasField("read_mask")

    def is_preview(self, request: Any) -> bool:
        """True if the client only looks (`validate_only`)."""
        return self._validate_only and bool(request.validate_only)

    def read(self, raw: Raw) -> Any:
        """The request message.

        Raises InvalidArgument with every violation: those of the text, and those of the proto's rules for the
        fields that could be read.
        """
        request = self._make()
        faults = Faults(nulls_clear=self.binding.verb == "PATCH")
        body = self._read_body(request, raw, faults)
        self._bind_path(request, raw, faults)
        if raw.query:
            self._query.read(raw.query, request, faults)
        self._bind_headers(request, raw.headers, faults)
        if self._mask and not faults:
            self._bind_mask(request, body, faults)
        if faults:
            raise self._refusal(request, faults)
        return request

    def _read_body(self, request: Any, raw: Raw, faults: Faults) -> Any:
        """Fills the request from the body; gives its JSON value."""
        if not raw.body:
            return None
        field = self._body_field
        if self.takes_file and field is not None:
            content = getattr(request, field.name)
            content.content_type = raw.headers.get(b"content-type", b"").decode("latin-1")
            content.data = raw.body
            return None
        value = parse(raw.body)
        if self._set_body is None or field is None:
            self._decoder.fill(request, value, "", faults)
        else:
            self._set_body(request, value, field.json_name, faults, 0)
        return value

    def _bind_path(self, request: Any, raw: Raw, faults: Faults) -> None:
        for parameter, text in zip(self._path, self.binding.template.values(raw.segments), strict=True):
            before = parameter.get(request) if raw.body else None
            parameter.set(request, text, faults)
            if before and before != parameter.get(request):
                faults.add(parameter.name, "Differs from the value in the path.", "PATH_MISMATCH")

    def _bind_headers(self, request: Any, headers: Headers, faults: Faults) -> None:
        if self.binding.verb == "GET":
            return
        if b"if-none-match" in headers:
            faults.add("If-None-Match", "Only GET knows this precondition.", "PRECONDITION_NOT_SUPPORTED")
        etag = required_etag(headers, accepted=self._etag, faults=faults)
        if etag is not None:
            if request.etag and request.etag != etag:
                faults.add("etag", "Differs from the header If-Match.", "ETAG_DIFFERS")
            request.etag = etag
        key = headers.get(b"idempotency-key")
        if key is not None and self.has_request_id:
            text = idempotency_key(key)
            if request.request_id and request.request_id != text:
                faults.add("requestId", "Differs from the header Idempotency-Key.", "REQUEST_ID_DIFFERS")
            request.request_id = text

    def _bind_mask(self, request: Any, body: Any, faults: Faults) -> None:
        """An update's mask: all for PUT; what the body names where the client gave none (AIP-134)."""
        paths = list(request.update_mask.paths)
        if self.binding.verb == "PUT":
            if paths not in ([], ["*"]):
                faults.add("updateMask", "PUT replaces everything; use PATCH for a mask.", "MASK_WITH_PUT")
            request.update_mask.paths[:] = ["*"]
        resource = self._resource
        if resource is None or not isinstance(body, dict):
            return
        if self.binding.body == "*":
            body = body.get(resource.json_name, body.get(resource.name))
        if not isinstance(body, dict):
            return
        inside = getattr(request, resource.name)
        if self._etag and not request.etag and "etag" in message_of(resource).fields_by_name:
            # Whoever sends back what they read means the version that they read (AIP-154).
            request.etag = inside.etag
        named = present(body, inside, self._output_only)
        if not paths and self.binding.verb != "PUT":
            request.update_mask.paths.extend(named)

    def _refusal(self, request: Any, faults: Faults) -> InvalidArgument:
        """All faults of the text, and of the rules what these do not explain already."""
        known = [violation.field for violation in faults.violations]
        try:
            validation.check(request)
        except InvalidArgument as refused:
            for violation in refused.violations:
                path = json_path(self._input, violation.field)
                if not any(_same_place(path, other) for other in known):
                    faults.add(path, violation.description, violation.reason)
        return faults.problem()

    def _readers(self) -> dict[str, Reader]:
        """Readers of the fields whose text names other fields."""
        target = resource_of(self.binding.method.output)
        written = None if self._resource is None else message_of(self._resource)
        found: dict[str, Reader] = {}
        for field in self._input.fields:
            if type_name(field) == FIELD_MASK and not is_list(field):
                found[field.name] = mask_reader(written if field.name == UPDATE_MASK else target)
        if "order_by" in self._input.fields_by_name:
            found["order_by"] = order_reader(target)
        return found

    def _named_body(self) -> FieldDescriptor | None:
        name = self.binding.body
        if name in {"", "*"}:
            return None
        field = self._input.fields_by_name.get(name)
        if field is None:
            raise ContractError(f"{self.binding.method.path}: body names no field of the request: {name}")
        return field


def idempotency_key(value: bytes) -> str:
    """The key of an Idempotency-Key header, which may be quoted. Raises MalformedHeader."""
    text = value.decode("latin-1").strip().strip('"')
    if not (text.isascii() and text.isprintable() and 0 < len(text) <= LONGEST_KEY):
        raise MalformedHeader(
            f"Idempotency-Key must be 1 to {LONGEST_KEY} printable characters of ASCII.",
            header="Idempotency-Key",
        )
    return text


def _same_place(path: str, other: str) -> bool:
    """True if one of the paths is the other or lies within it."""
    short, long = sorted((path, other), key=len)
    return not short or long == short or (long.startswith(short) and long[len(short)] in ".[")


def _resource_field(binding: Binding) -> FieldDescriptor | None:
    """The field that holds what is written: the body, or the one message of our own in it."""
    message = binding.method.input
    if binding.body not in {"", "*"}:
        field = message.fields_by_name.get(binding.body)
        return field if field is not None and field.message_type is not None else None
    own = [
        field
        for field in message.fields
        if field.message_type is not None
        and not is_list(field)
        and not is_map(field)
        and not type_name(field).startswith("google.")
    ]
    return own[0] if len(own) == 1 else None


def _parameters_of_path(binding: Binding, readers: Mapping[str, Reader]) -> dict[str, Parameter]:
    """The variables of the path by their proto path. Raises ContractError for one that is no scalar field."""
    wanted = [variable.field for variable in binding.template.variables]
    found = {
        ".".join(field.name for field in parameter.chain): parameter
        for parameter in parameters(binding.method.input, readers, lambda _: False).values()
        if not is_list(parameter.field)
    }
    missing = [name for name in wanted if name not in found]
    if missing or len(set(wanted)) != len(wanted):
        raise ContractError(f"{binding.method.path}: {binding.template.text} binds {missing or wanted}")
    return found
