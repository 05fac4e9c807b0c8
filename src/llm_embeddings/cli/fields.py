"""Options of the command line made from the fields of a dataclass, and read back into them."""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer

_SIMPLE = (str, int, float, bool, Path)
_WORDS = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    Path: "a path",
}


@dataclass(frozen=True, slots=True)
class FieldOption:
    """One option of the command line, made from a field of a dataclass.

    Attributes:
        field: Name of the field.
        inner: If the field's value is a dataclass, name of a field of that; None = it is not.
        kind: The type that typer reads.
        help: What the option does.
        default: The default that the help shows; None = none.
    """

    field: str
    inner: str | None
    kind: Any
    help: str
    default: Any

    @property
    def name(self) -> str:
        """Name of its parameter, with "no_" before what is on by default.

        The option without "no" is there, too: a preset may have switched it off.
        """
        name = f"{self.field}_{self.inner}" if self.inner else self.field
        return f"no_{name}" if self.default is True else name

    @property
    def keyword(self) -> str:
        """How messages name the field: its name, or "outer inner"."""
        return f"{self.field} {self.inner}" if self.inner else self.field

    @property
    def flag(self) -> str:
        """The option, with its dashes."""
        return f"--{self.name.replace('_', '-')}"

    def parameter(self, panel: str) -> inspect.Parameter:
        """The parameter of a typer command; its value is None if the option is not given."""
        dashed = self.flag.removeprefix("--")
        both = f"/--{dashed.removeprefix('no-')}" if self.default is True else ""
        option = typer.Option(
            *([f"-{dashed[0]}"] if dashed in ("model", "output", "data") else []),
            f"--{dashed}{both}",
            help=f"{self._help()}.",
            metavar=f"<{_entry(self.kind).__name__}>..." if _is_many(self.kind) else None,
            show_default=False,
            rich_help_panel=panel,
        )
        kind: Any = self.kind
        if _is_many(kind):
            kind = types.GenericAlias(list, (_entry(kind),))
        annotation = Annotated[kind | None, option]
        keyword = inspect.Parameter.KEYWORD_ONLY
        return inspect.Parameter(self.name, keyword, default=None, annotation=annotation)

    def _help(self) -> str:
        if self.default is True:
            return f"Switch off: {self.help}"
        value = (
            " ".join(map(str, self.default)) if isinstance(self.default, tuple) else self.default
        )
        shown = "" if value in (None, "") or self.kind is bool else f"; default {value}"
        return f"{self.help[:1].upper()}{self.help[1:]}{shown}"


def options_of(kind: type) -> Iterator[FieldOption]:
    """The options of a dataclass; a field that holds another one is a switch with options.

    Raises:
        TypeError: a field whose type no command line can express.
    """
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        found, about = hints[field.name], field.metadata.get("help", "")
        inner, default = _inner(found), _default(field)
        if inner is None:
            yield FieldOption(field.name, None, _kind(found, field.name), about, default)
            continue
        yield FieldOption(field.name, None, bool, about, default is not None)
        inner_hints = get_type_hints(inner)
        for part in dataclasses.fields(inner):
            value = getattr(default, part.name) if default is not None else _default(part)
            accepted = _kind(inner_hints[part.name], part.name)
            yield FieldOption(field.name, part.name, accepted, part.metadata["help"], value)


def merged(kind: type, base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a dataclass's fields, from `base` and the options that were given.

    Args:
        kind: The dataclass.
        base: Values by field, which options replace.
        given: Values by parameter, None or [] where an option is not given.

    Raises:
        ValueError: options for an inner dataclass that is switched off.
    """
    values = dict(base)
    parts: dict[str, dict[str, Any]] = {}
    for option in options_of(kind):
        value = given.get(option.name)
        if value is None or value == []:
            continue
        if option.inner:
            parts.setdefault(option.field, {})[option.inner] = _tuple(value)
        elif inner := _inner(get_type_hints(kind)[option.field]):
            on = value is not (option.default is True)
            values[option.field] = (values.get(option.field) or inner()) if on else None
        else:
            values[option.field] = not value if option.default is True else _tuple(value)
    for field, changes in parts.items():
        defaults = {known.name: _default(known) for known in dataclasses.fields(kind)}
        before = values.get(field, defaults[field])
        if before is None and given.get(f"no_{field}"):
            listed = ", ".join(f"--{field}-{name}" for name in changes)
            raise ValueError(f"--no-{field} and {listed} contradict each other: drop one")
        inner = _inner(get_type_hints(kind)[field])
        assert inner is not None
        values[field] = dataclasses.replace(before or inner(), **changes)
    return values


def from_json(kind: type, values: Any, place: str) -> dict[str, Any]:
    """Values of a dataclass's fields from a JSON object, with their types checked.

    Args:
        kind: The dataclass.
        values: The object.
        place: Where it comes from, for errors.

    Raises:
        ValueError: not an object, an unknown field, or a value of another type.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{place} is not a JSON object of options")
    hints = get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind)]
    if unknown := [name for name in values if name not in known]:
        raise ValueError(f"{place}: unknown {', '.join(unknown)}; known are {', '.join(known)}")
    return {
        name: _checked(value, hints[name], f"{place}: {name}") for name, value in values.items()
    }


def _checked(value: Any, hint: Any, place: str) -> Any:
    """A JSON value as a value of a field's type."""
    if value is None and types.NoneType in _members(hint):
        return None
    if isinstance(value, dict) and (build := _builder(hint, place)):
        try:
            return build(value)
        except (TypeError, ValueError) as error:  # a field is missing, or of another kind
            if str(error).startswith(place):
                raise
            raise ValueError(f"{place}: {error}") from error
    found = _kind(hint, place)
    if _is_many(found):
        if not isinstance(value, list):
            raise ValueError(f"{place} is {value!r:.60}, not a list")
        return tuple(_checked(entry, _entry(found), place) for entry in value)
    return _checked_simple(value, found, place)


def _builder(hint: Any, place: str) -> Callable[[dict[str, Any]], Any] | None:
    """What makes a field's value from a JSON object; None = nothing does."""
    if inner := _inner(hint):
        return lambda value: inner(**from_json(inner, value, place))
    builders = [member.from_dict for member in _members(hint) if hasattr(member, "from_dict")]
    return builders[0] if builders else None


def _checked_simple(value: Any, kind: Any, place: str) -> Any:
    if get_origin(kind) is Literal:
        if value in get_args(kind):
            return value
        raise ValueError(f"{place} is {value!r}, not one of {', '.join(map(str, get_args(kind)))}")
    basic = str if kind is Path else kind
    fits = isinstance(value, int | float) if basic is float else isinstance(value, basic)
    if fits and (basic is bool or not isinstance(value, bool)):
        return value
    raise ValueError(f"{place} is {value!r:.60}, not {_WORDS[kind]}")


def _kind(hint: Any, name: str) -> Any:
    """The simple type, `Literal` or tuple among the types that a field accepts."""
    for member in _members(hint):
        if member in _SIMPLE or get_origin(member) is Literal or _is_many(member):
            return member
    raise TypeError(f"{name}: no option can be made of {hint}")


def _inner(hint: Any) -> type | None:
    """The dataclass that a field holds, if it holds one or None; else None."""
    members = [member for member in _members(hint) if member is not types.NoneType]
    if len(members) == 1 and isinstance(members[0], type) and dataclasses.is_dataclass(members[0]):
        return members[0]
    return None


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _is_many(hint: Any) -> bool:
    return get_origin(hint) is tuple


def _entry(hint: Any) -> type:
    """The type of a tuple's entries; a string if it is not a simple one."""
    entry = get_args(hint)[0]
    return entry if entry in _SIMPLE else str


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _default(field: dataclasses.Field[Any]) -> Any:
    """A field's default; None if it has none."""
    if field.default is not dataclasses.MISSING:
        return field.default
    return None if field.default_factory is dataclasses.MISSING else field.default_factory()
