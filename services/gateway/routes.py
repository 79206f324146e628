"""Which RPC answers a method and a path, by the descriptors; a literal segment beats a variable."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from google.api.http_pb2 import HttpRule

from libs.contracts import ContractError, Method
from services.gateway.templates import REST, Template, TemplateError

T = TypeVar("T")
_PATTERNS = ("get", "put", "post", "delete", "patch")


@dataclass(frozen=True, slots=True)
class Binding:
    """One REST form of an RPC. `body` and `response_body` are as in google.api.http."""

    method: Method
    verb: str
    template: Template
    body: str
    response_body: str


def bindings(methods: Iterable[Method]) -> Iterator[Binding]:
    """Every REST form of every RPC. Raises ContractError for a rule that is wrong in itself."""
    for method in methods:
        for rule in method.http:
            verb, path = _pattern(method, rule)
            try:
                template = Template.parse(path)
            except TemplateError as error:
                raise ContractError(f"{method.path}: {error}") from None
            yield Binding(method, verb, template, rule.body, rule.response_body)


def _pattern(method: Method, rule: HttpRule) -> tuple[str, str]:
    kind = rule.WhichOneof("pattern")
    if kind in _PATTERNS:
        return kind.upper(), str(getattr(rule, kind))
    if kind == "custom":
        return rule.custom.kind.upper(), rule.custom.path
    raise ContractError(f"{method.path}: a google.api.http rule without a path")


@dataclass(slots=True)
class Leaf(Generic[T]):
    """What a path leads to: a target for each HTTP method."""

    shape: str
    targets: dict[str, T] = field(default_factory=dict)

    def allow(self) -> str:
        """The methods that the path knows, as the Allow header wants them."""
        methods = set(self.targets) | {"OPTIONS"}
        if "GET" in methods:
            methods.add("HEAD")
        return ", ".join(sorted(methods))


@dataclass(slots=True)
class _Node(Generic[T]):
    literals: dict[str, "_Node[T]"] = field(default_factory=dict)
    any: "_Node[T] | None" = None
    rest: Leaf[T] | None = None
    leaf: Leaf[T] | None = None
    verbs: dict[str, Leaf[T]] = field(default_factory=dict)


class Router(Generic[T]):
    """Finds targets by path. A literal segment beats a variable, at each step from the left."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def add(self, verb: str, template: Template, target: T) -> None:
        """Binds one more target. Raises ContractError if its method and shape are taken."""
        node = self._root
        for step in template.steps:
            if step == REST:
                break
            if step == "*":
                node.any = node.any or _Node()
                node = node.any
            else:
                node = node.literals.setdefault(step, _Node())
        leaf = self._leaf(node, template)
        if verb in leaf.targets:
            raise ContractError(f"{verb} {template.text}: another RPC has {verb} {leaf.shape} already")
        leaf.targets[verb] = target

    def _leaf(self, node: _Node[T], template: Template) -> Leaf[T]:
        if template.steps[-1] == REST:
            if template.verb:
                raise ContractError(f"{template.text}: ** cannot be followed by a verb")
            node.rest = node.rest or Leaf(template.shape())
            return node.rest
        if template.verb:
            return node.verbs.setdefault(template.verb, Leaf(template.shape()))
        node.leaf = node.leaf or Leaf(template.shape())
        return node.leaf

    def find(self, segments: list[str]) -> Leaf[T] | None:
        """What the path's segments (not decoded) lead to, None if nowhere."""
        return _find(self._root, segments, 0)


def _find(node: _Node[T], segments: list[str], i: int) -> Leaf[T] | None:
    if i == len(segments):
        return node.leaf
    segment = segments[i]
    found: Leaf[T] | None = None
    child = node.literals.get(segment)
    if child is not None:
        found = _find(child, segments, i + 1)
    if found is None and ":" in segment and i + 1 == len(segments):
        found = _with_verb(node, segment)
    if found is None and node.any is not None and segment:
        found = _find(node.any, segments, i + 1)
    return found if found is not None or not segment else node.rest


def _with_verb(node: _Node[T], segment: str) -> Leaf[T] | None:
    name, _, verb = segment.rpartition(":")
    literal = node.literals.get(name)
    if literal is not None and verb in literal.verbs:
        return literal.verbs[verb]
    return node.any.verbs.get(verb) if node.any is not None and name else None
