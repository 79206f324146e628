"""Puts the OpenAPI document together."""

from collections import Counter
from collections.abc import Iterable, Mapping

from google.protobuf.descriptor import FieldDescriptor

from libs.contracts import Method
from services.gateway.openapi.keywords import Schema
from services.gateway.openapi.operations import operation, tag
from services.gateway.openapi.schemas import Schemas
from services.gateway.requests import RequestReader
from services.gateway.routes import Binding, bindings
from services.gateway.uploads import UploadReader

_ABOUT = """Customers, loyalty, segments, privacy and notifications of a business.

- JSON is proto3 JSON: names in lowerCamelCase, 64-bit integers as text, instants in RFC 3339. Enum values are
  short ("ACTIVE"). Lists, numbers and booleans are always there; empty text and unset fields are left out.
- Fields and query parameters that do not exist are refused, and a refusal names all that is wrong at once.
- PATCH changes the fields that the body has, and null clears one; PUT replaces all of them.
- Send an `Idempotency-Key` with what must not happen twice, and `If-Match` with what must not overwrite
  another change.
- Lists are paged: send `nextPageToken` back as `pageToken`.
"""
_TEXTS = {
    "400": "The request is wrong; `violations` names every wrong field.",
    "401": "No token, or one that does not hold.",
    "403": "The token's roles do not allow this.",
    "404": "There is no such thing, or none that the caller may see.",
    "409": "There is one already, or the change met another one.",
    "412": "The resource has changed since it was read.",
    "429": "A rate limit is reached; `Retry-After` says when to come again.",
    "503": "Something that this needs is away; `Retry-After` says when to come again.",
}


def describe(methods: Iterable[Method], comments: Mapping[str, str]) -> Schema:
    """The OpenAPI 3.1 document of every RPC with a REST form."""
    schemas = Schemas(comments)
    schemas.components["Error"] = _error()
    paths: dict[str, Schema] = {}
    texts: dict[str, str] = {}
    services: dict[str, dict[str, str]] = {}
    seen: set[str] = set()
    methods = list(methods)
    times = Counter(method.name for method in methods)
    for binding in bindings(methods):
        method = binding.method
        kind = UploadReader if method.client_streaming else RequestReader
        reader = kind(binding, lambda field: _is_output_only(field, schemas))
        text = texts.setdefault(binding.template.shape(), _path(reader))
        name = method.name if times[method.name] == 1 else f"{method.service_name}_{method.name}"
        name += "" if method.path not in seen else f"_{binding.verb.lower()}"
        described = operation(reader, schemas, name)
        _rename(described, text)
        paths.setdefault(text, {})[binding.verb.lower()] = described
        seen.add(method.path)
        services.setdefault(tag(method), {})[method.service_name] = schemas.comment(
            method.descriptor.containing_service.full_name
        )
    return {
        "openapi": "3.1.0",
        "info": {"title": "Regulars", "version": "v1", "description": _ABOUT},
        "servers": [{"url": "/"}],
        "tags": [
            {"name": name, "description": "\n\n".join(services[name].values())} for name in sorted(services)
        ],
        "security": [{"bearer": []}],
        "paths": {path: paths[path] for path in sorted(paths)},
        "components": {
            "schemas": {name: schemas.components[name] for name in sorted(schemas.components)},
            "securitySchemes": {"bearer": _bearer()},
            "responses": _error_responses(),
            "parameters": _headers_in(),
            "headers": _headers_out(),
        },
    }


def _is_output_only(field: FieldDescriptor, schemas: Schemas) -> bool:
    return schemas.is_output_only(field)


def _path(reader: RequestReader) -> str:
    """The path with its variables in JSON names, as OpenAPI writes them."""
    binding: Binding = reader.binding
    steps = list(binding.template.steps)
    found = list(zip(binding.template.variables, reader.path_parameters, strict=True))
    for variable, parameter in reversed(found):
        steps[variable.start : variable.end] = ["{" + parameter.name + "}"]
    verb = f":{binding.template.verb}" if binding.template.verb else ""
    return "/" + "/".join(steps) + verb


def _rename(described: Schema, path: str) -> None:
    """Names path parameters as the path does: two RPCs may call the same place differently."""
    names = [step[1:].partition("}")[0] for step in path.split("/") if step.startswith("{")]
    bound = [parameter for parameter in described["parameters"] if parameter.get("in") == "path"]
    for parameter, name in zip(bound, names, strict=True):
        parameter["name"] = name


def _error() -> Schema:
    text: Schema = {"type": "string"}
    violation: Schema = {
        "type": "object",
        "required": ["field", "reason", "description"],
        "properties": {
            "field": {**text, "description": "Path of the field (`customer.addresses[0].postalCode`)."},
            "reason": {**text, "description": "Stable, for programs (UPPER_SNAKE)."},
            "description": {**text, "description": "For people; may change."},
        },
    }
    properties: Schema = {
        "code": {"type": "integer", "description": "The HTTP status."},
        "status": {**text, "description": "The canonical code (`INVALID_ARGUMENT`)."},
        "reason": {**text, "description": "Stable, for programs (`ETAG_MISMATCH`)."},
        "message": {**text, "description": "For people; may change."},
        "metadata": {"type": "object", "additionalProperties": text, "description": "Facts of the refusal."},
        "violations": {"type": "array", "items": violation, "description": "The first 50 wrong fields."},
        "requestId": {**text, "description": "Names this request in the logs."},
    }
    inner = {"type": "object", "required": list(properties), "properties": properties}
    return {
        "type": "object",
        "description": "Every refusal.",
        "required": ["error"],
        "properties": {"error": inner},
    }


def _error_responses() -> Schema:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    found = {f"Error{status}": {"description": text, "content": content} for status, text in _TEXTS.items()}
    for status in ("429", "503"):
        found[f"Error{status}"]["headers"] = {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}}
    return {"Error": {"description": "Any other refusal.", "content": content}, **found}


def _bearer() -> Schema:
    return {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A token of the account's issuer: RS256, ES256 or EdDSA.",
    }


def _headers_in() -> Schema:
    def header(name: str, text: str, example: str) -> Schema:
        schema = {"type": "string"}
        return {"name": name, "in": "header", "description": text, "schema": schema, "example": example}

    return {
        "RequestTimeout": header("X-Request-Timeout", "Seconds that the call may take (default 10).", "2.5"),
        "RequestId": header(
            "X-Request-Id",
            "Names the request in logs and answers: 8 to 64 of A-Z a-z 0-9 _ -.",
            "checkout-000017",
        ),
        "IdempotencyKey": header(
            "Idempotency-Key", "Makes a repeated call return the first result, for 24 hours.", "order-4711"
        ),
        "IfMatch": header("If-Match", "Refuses with 412 unless the resource has this etag.", '"7f3a9c"'),
        "IfNoneMatch": header("If-None-Match", "Answers 304 if the resource has this etag.", '"7f3a9c"'),
    }


def _headers_out() -> Schema:
    text = {"schema": {"type": "string"}}
    return {
        "Location": {**text, "description": "Path of what was created."},
        "ContentDisposition": {**text, "description": "The file's name, if it has one."},
        "ETag": {**text, "description": "Version of the resource, for If-Match and If-None-Match."},
        "RetryAfter": {"schema": {"type": "integer"}, "description": "Seconds to wait."},
    }
