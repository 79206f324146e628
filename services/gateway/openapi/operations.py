"""One operation for each REST form of an RPC."""

import re
from typing import Any

from libs.contracts import Method
from services.gateway.calls import CREATING, EMPTY
from services.gateway.codec.names import is_list
from services.gateway.forms import MULTIPART
from services.gateway.headers import JSON, MERGE_PATCH, NDJSON, SSE
from services.gateway.openapi.examples import example_of
from services.gateway.openapi.keywords import Schema, is_required
from services.gateway.openapi.schemas import Schemas
from services.gateway.query import Parameter
from services.gateway.requests import HTTP_BODY, RequestReader
from services.gateway.uploads import UploadReader

_ERRORS = ("400", "401", "403", "404", "409", "412", "429", "503")
_BINARY: Schema = {"type": "string", "format": "binary"}
_FILE: Schema = {"application/octet-stream": {"schema": _BINARY}}
_FILES = (
    "application/octet-stream",
    "text/csv",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "application/x-ndjson",
)


def operation(reader: RequestReader, schemas: Schemas, name: str) -> Schema:
    """The operation of a binding, under a name of its own."""
    binding = reader.binding
    method = binding.method
    comment = schemas.comment(f"{method.descriptor.containing_service.full_name}.{method.name}")
    described = [comment, f"Permission: `{permission(method)}`."]
    found: Schema = {
        "operationId": name,
        "tags": [tag(method)],
        "summary": re.split(r"(?<=\.)\s", comment, maxsplit=1)[0].rstrip("."),
        "description": "\n\n".join(filter(None, described)),
        "x-permission": permission(method),
        "x-rpc": method.path,
        "security": [] if method.access.link else [{"bearer": []}],
        "parameters": _parameters(reader, schemas),
    }
    if reader.takes_body:
        found["requestBody"] = _body(reader, schemas)
    found["responses"] = _responses(reader, schemas)
    return found


def permission(method: Method) -> str:
    """The permission that an RPC asks for; without one, "self" (the customer) or "link" (a signed link)."""
    return method.access.permission or ("link" if method.access.link else "self")


def tag(method: Method) -> str:
    """The group of an operation: its service's name without "Service"."""
    return str(method.descriptor.containing_service.name).removesuffix("Service")


def _parameters(reader: RequestReader, schemas: Schemas) -> list[Schema]:
    method, verb = reader.binding.method, reader.binding.verb
    found = [_parameter(parameter, schemas, "path") for parameter in reader.path_parameters]
    found += [_parameter(parameter, schemas, "query") for parameter in reader.parameters.values()]
    names = ["RequestTimeout", "RequestId"]
    if reader.has_request_id:
        names.append("IdempotencyKey")
    if verb != "GET" and "etag" in method.input.fields_by_name:
        names.append("IfMatch")
    if verb == "GET" and "etag" in method.output.fields_by_name:
        names.append("IfNoneMatch")
    return [*found, *({"$ref": f"#/components/parameters/{name}"} for name in names)]


def _parameter(parameter: Parameter, schemas: Schemas, place: str) -> Schema:
    field = parameter.field
    schema = schemas.of_field(field)
    schema.pop("readOnly", None)
    described = schema.pop("description", "")
    found: Schema = {"name": parameter.name, "in": place, "schema": schema}
    if described:
        found["description"] = described
    if place == "path" or (is_required(field) and len(parameter.chain) == 1):
        found["required"] = True
    if place == "query" and is_list(field):
        found |= {"style": "form", "explode": True}
    return found


def _body(reader: RequestReader, schemas: Schemas) -> Schema:
    binding = reader.binding
    message = binding.method.input
    if isinstance(reader, UploadReader):
        return {"required": True, "content": _upload(reader, schemas)}
    if reader.takes_file:
        return {"required": True, "content": _FILE}
    if binding.body == "*":
        bound = {variable.field for variable in binding.template.variables}
        schema, required = schemas.without(message, bound), False
        required = bool(schema.get("required"))
    else:
        field = message.fields_by_name[binding.body]
        schema, required = schemas.of_field(field), is_required(field)
    example = example_of(schema, schemas.components, writing=True)
    media: Schema = {"schema": schema} | ({} if example is None else {"example": example})
    kinds = (JSON, MERGE_PATCH) if binding.verb == "PATCH" else (JSON,)
    return {"required": required, "content": dict.fromkeys(kinds, media)}


def _upload(reader: UploadReader, schemas: Schemas) -> Schema:
    """A file as it is, of any type, or as the last part of a form whose other parts are the parameters."""
    properties = {name: schemas.of_field(parameter.field) for name, parameter in reader.parameters.items()}
    form = {"type": "object", "required": ["file"], "properties": {**properties, "file": _BINARY}}
    described = "The fields are the query parameters, and come before the file."
    return {kind: {"schema": _BINARY} for kind in _FILES} | {
        MULTIPART: {"schema": {"description": described, **form}}
    }


def _responses(reader: RequestReader, schemas: Schemas) -> Schema:
    binding = reader.binding
    method, output = binding.method, binding.method.output
    found: dict[str, Any] = {}
    if output.full_name == EMPTY:
        found["204"] = {"description": "Done."}
    elif method.server_streaming:
        found["200"] = _stream(reader, schemas)
    elif output.full_name == HTTP_BODY:
        found["200"] = {"description": "The file.", "content": _FILE}
    else:
        created = binding.verb == "POST" and method.name.startswith(CREATING)
        found["201" if created else "200"] = _answer(reader, schemas, created=created)
        if binding.verb == "GET" and "etag" in output.fields_by_name:
            found["304"] = {"description": "The client has this version already."}
    return (
        found
        | {status: {"$ref": f"#/components/responses/Error{status}"} for status in _ERRORS}
        | {"default": {"$ref": "#/components/responses/Error"}}
    )


def _answer(reader: RequestReader, schemas: Schemas, *, created: bool) -> Schema:
    binding = reader.binding
    output = binding.method.output
    schema = (
        schemas.of_field(output.fields_by_name[binding.response_body])
        if binding.response_body
        else schemas.of_message(output)
    )
    example = example_of(schema, schemas.components)
    media: Schema = {"schema": schema} | ({} if example is None else {"example": example})
    headers: Schema = {}
    if created:
        headers["Location"] = {"$ref": "#/components/headers/Location"}
    if "etag" in output.fields_by_name and not binding.response_body:
        headers["ETag"] = {"$ref": "#/components/headers/ETag"}
    found: Schema = {"description": "Created." if created else "Done.", "content": {JSON: media}}
    return found | ({"headers": headers} if headers else {})


def _stream(reader: RequestReader, schemas: Schemas) -> Schema:
    output = reader.binding.method.output
    if output.full_name == HTTP_BODY:
        headers = {"Content-Disposition": {"$ref": "#/components/headers/ContentDisposition"}}
        content = {kind: {"schema": _BINARY} for kind in _FILES}
        return {"description": "The file.", "content": content, "headers": headers}
    content = {kind: {"schema": schemas.of_message(output)} for kind in (NDJSON, SSE)}
    return {"description": "The stream.", "content": content}
