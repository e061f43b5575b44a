"""Say what is wrong with a config: pydantic's faults as sentences about the keys of a TOML file."""

from __future__ import annotations

import difflib
import math
import re
import types
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from lucency.records import Record

SHOWN_FAULTS = 5
NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"

# --- where a fault is -----------------------------------------------------------------------------


class _Place(NamedTuple):
    """A position in the file, and what the model expects there.

    steps: keys and array indices from the top of the file.
    owner: the model whose field the last key is, if known.
    field: that field, if known.
    here: the model expected at the position itself, if it is one.
    """

    steps: tuple[str | int, ...]
    owner: type[Record] | None
    field: FieldInfo | None
    here: type[Record] | None


def _locate(kind: type[Record], location: Sequence[str | int]) -> _Place:
    """Follow pydantic's location, which also names the chosen members of unions."""
    steps: list[str | int] = []
    expected: Any = kind
    owner: type[Record] | None = None
    field: FieldInfo | None = None
    for part in location:
        expected = _bare(expected)
        members = _members(expected)
        if members:
            expected = _chosen(members, part)
            continue
        if part == "[key]":
            continue
        steps.append(part)
        model = _as_model(expected)
        if model is not None:
            owner, field = model, _fields(model).get(str(part))
            expected = field.annotation if field else None
        else:
            if isinstance(part, str):
                owner = field = None
            expected = _item(expected, part)
    return _Place(tuple(steps), owner, field, _as_model(_bare(expected)))


def _fields(model: type[Record]) -> dict[str, FieldInfo]:
    """The fields by the name they have in the file."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _as_model(expected: Any) -> type[Record] | None:
    is_model = isinstance(expected, type) and issubclass(expected, Record)
    return expected if is_model else None


def _bare(expected: Any) -> Any:
    """Strip `Annotated` and ``| None``."""
    while True:
        if get_origin(expected) is Annotated:
            expected = get_args(expected)[0]
        elif _is_union(expected) and len(_without_none(expected)) == 1:
            expected = _without_none(expected)[0]
        else:
            return expected


def _is_union(expected: Any) -> bool:
    return get_origin(expected) in (Union, types.UnionType)


def _without_none(union: Any) -> list[Any]:
    return [member for member in get_args(union) if member is not type(None)]


def _members(expected: Any) -> list[Any]:
    return [_bare(m) for m in _without_none(expected)] if _is_union(expected) else []


def _chosen(members: list[Any], label: str | int) -> Any:
    """The member of a union that pydantic calls `label`: by its tag, or else by its name."""
    for member in members:
        model = _as_model(member)
        if model and any(label in _tags(field) for field in model.model_fields.values()):
            return model
    for member in members:
        if getattr(member, "__name__", None) == label:
            return member
    return None


def _tags(field: FieldInfo) -> tuple[Any, ...]:
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else ()


def _item(expected: Any, part: str | int) -> Any:
    """What an array or a table of free keys holds at `part`."""
    arguments = get_args(expected)
    if not arguments:
        return None
    if isinstance(part, str):
        return arguments[-1]
    is_row = get_origin(expected) is tuple and arguments[-1] is not Ellipsis
    return arguments[part] if is_row and part < len(arguments) else arguments[0]


# --- what to say about it -------------------------------------------------------------------------


def sentences(faults: Iterable[ErrorDetails], kind: type[Record], file: str) -> str:
    """One sentence a line for each place; a key missing only because it is misspelt is left out."""
    by_place: dict[tuple[str | int, ...], list[tuple[ErrorDetails, _Place]]] = {}
    excused: set[tuple[str | int, ...]] = set()
    for fault in faults:
        place = _locate(kind, fault["loc"])
        by_place.setdefault(place.steps, []).append((fault, place))
        if fault["type"] == "extra_forbidden" and (meant := _meant(place)):
            excused.add((*place.steps[:-1], meant))
    lines = [
        _sentence([fault for fault, _ in found], found[0][1], file)
        for steps, found in by_place.items()
        if steps not in excused or found[0][0]["type"] != "missing"
    ]
    more = len(lines) - SHOWN_FAULTS
    rest = [f"(and {more} more in {file})"] if more > 0 else []
    return "\n".join(lines[:SHOWN_FAULTS] + rest)


def _sentence(faults: Sequence[ErrorDetails], place: _Place, file: str) -> str:
    """Several faults in one place are what each member of a union says."""
    fault = faults[0]
    code = fault["type"]
    if code == "extra_forbidden":
        return _unknown_key(place, file)
    if code == "missing":
        return _missing(place, file)
    if code in ("union_tag_invalid", "union_tag_not_found"):
        return _tag(fault, place, file)
    key, where = _split(place)[1], _where(place, file)
    if code in ("value_error", "assertion_error"):
        message = shown(str(fault.get("ctx", {}).get("error", fault["msg"])).strip().rstrip("."))
        named = message if key in message or key == "the file" else f"{key}: {message}"
        return f"{named} ({where})."
    wanted = [_expectation(fault, place) for fault in faults]
    expected = " or ".join(dict.fromkeys(words for words, _ in wanted))
    advice = wanted[0][1] if len(wanted) == 1 else ""
    return _ended(f"{key} must be {expected}, got {_value(fault['input'])} ({where}){advice}")


def _expectation(fault: ErrorDetails, place: _Place) -> tuple[str, str]:
    """What was expected, to follow "must be", and what to do, to end the sentence."""
    code, context, value = fault["type"], fault.get("ctx", {}), fault["input"]
    if code == "literal_error" and place.field is not None:
        allowed = [str(tag) for tag in _tags(place.field)] or _quoted(context["expected"])
        return _one_of(allowed), _did_you_mean(value, allowed)
    if code in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        return _bounds(context, place), _fraction_advice(value, place)
    if code == "finite_number":
        return "a finite number", "; give a number other than nan and inf"
    if code in _WORDS:
        return _WORDS[code]
    message = re.sub(r"^Input should (be|have) ", "", fault["msg"])
    return (message if message != fault["msg"] else f"valid: {message}"), "; correct the value"


_WORDS = {
    "int_type": ("a whole number", "; give digits only"),
    "int_from_float": ("a whole number", "; give digits only"),
    "float_type": ("a number", "; write it without quotes"),
    "bool_type": ("true or false", "; write it without quotes"),
    "string_type": ("text", "; put it in quotes"),
    "list_type": ("an array", "; put the values in [brackets]"),
    "tuple_type": ("an array", "; put the values in [brackets]"),
    "dict_type": ("a table", "; give its keys under a [heading]"),
    "model_type": ("a table", "; give its keys under a [heading]"),
    "model_attributes_type": ("a table", "; give its keys under a [heading]"),
}


def _unknown_key(place: _Place, file: str) -> str:
    table, _ = _split(place)
    known = sorted(_fields(place.owner)) if place.owner else []
    meant = _meant(place)
    advice = f"did you mean {meant!r}?" if meant else f"known keys: {', '.join(known) or 'none'}."
    inside = f"{_heading(table)} of {file}" if table else file
    return f"unknown key {shown(str(place.steps[-1]))!r} in {inside}; {advice}"


def _meant(place: _Place) -> str | None:
    """The known key most like the unknown one."""
    known = sorted(_fields(place.owner)) if place.owner else []
    return next(iter(difflib.get_close_matches(str(place.steps[-1])[:100], known, 1)), None)


def _missing(place: _Place, file: str) -> str:
    table, key = _split(place)
    if place.here is not None or (place.field and _holds_tables(place.field.annotation)):
        heading = ".".join(_toml_key(step) for step in place.steps if isinstance(step, str))
        return f"the table [{heading}] is missing ({file}); add it."
    if isinstance(place.steps[-1], int):
        return f"{key} is missing ({_where(place, file)}); give all values of the array."
    inside = f"{_heading(table)} of {file}" if table else file
    return f"the key {key!r} is missing in {inside}; add it."


def _holds_tables(annotation: Any) -> bool:
    return any(_as_model(member) for member in _members(_bare(annotation)))


def _tag(fault: ErrorDetails, place: _Place, file: str) -> str:
    context = fault.get("ctx", {})
    key = str(context.get("discriminator", "kind")).strip("'")
    inside = _heading(place.steps)
    if fault["type"] == "union_tag_not_found":
        allowed = _allowed_tags(place, key)
        choice = f" = {_one_of(allowed)}" if allowed else ""
        return f"the key {key!r} is missing in {inside} of {file}; add {key}{choice}."
    allowed = _quoted(context.get("expected_tags", ""))
    value = str(context.get("tag", ""))
    advice = _did_you_mean(value, allowed)
    return _ended(
        f"{key} must be {_one_of(allowed)}, got {_value(value)} ({file}, {inside}){advice}"
    )


def _allowed_tags(place: _Place, key: str) -> list[str]:
    expected = _bare(place.field.annotation) if place.field else None
    if expected is not None and not _is_union(expected):
        expected = _bare(_item(expected, 0))
    models = [model for member in _members(expected) if (model := _as_model(member))]
    return [
        str(tag) for model in models if key in _fields(model) for tag in _tags(_fields(model)[key])
    ]


def _one_of(allowed: Sequence[str]) -> str:
    names = ", ".join(repr(name) for name in allowed)
    return names if len(allowed) == 1 else f"one of {names}"


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)


def _did_you_mean(value: Any, allowed: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(value)[:100], allowed, 1)
    return f"; did you mean {near[0]!r}?" if near else "; choose one of these"


def _limits(place: _Place) -> dict[str, Any]:
    """The bounds of a field: keys among ge, gt, le, lt."""
    if place.field is None or isinstance(place.steps[-1], int):
        return {}
    inner = [part for part in get_args(place.field.annotation) if get_origin(part) is Annotated]
    metadata = [*place.field.metadata, *(m for part in inner for m in part.__metadata__)]
    return {
        name: limit
        for outer in metadata
        for constraint in (outer.metadata if isinstance(outer, FieldInfo) else [outer])
        for name in ("ge", "gt", "le", "lt")
        if (limit := getattr(constraint, name, None)) is not None
    }


def _bounds(context: dict[str, Any], place: _Place) -> str:
    limits = _limits(place) or context
    low, high = limits.get("ge", limits.get("gt")), limits.get("le", limits.get("lt"))
    if low is not None and high is not None:
        left, right = "[" if "ge" in limits else "(", "]" if "le" in limits else ")"
        return f"in {left}{_number(low)}, {_number(high)}{right}"
    if low is not None:
        return f"at least {_number(low)}" if "ge" in limits else f"greater than {_number(low)}"
    return f"at most {_number(high)}" if "le" in limits else f"less than {_number(high)}"


def _fraction_advice(value: Any, place: _Place) -> str:
    limits = _limits(place)
    is_fraction = (
        limits.get("le", limits.get("lt")) == 1 and limits.get("ge", limits.get("gt")) == 0
    )
    if is_fraction and isinstance(value, int | float) and 1 <= value <= 100:
        return "; give a fraction, not a percentage"
    return "; give a value within these bounds"


def _number(value: Any) -> str:
    is_whole = isinstance(value, float) and math.isfinite(value) and value == int(value)
    return str(int(value)) if is_whole else str(value)


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith("?") else f"{sentence}."


def _split(place: _Place) -> tuple[tuple[str | int, ...], str]:
    """The table that holds the key, and the key as it is written there ("sizes[2]")."""
    steps = list(place.steps)
    indices = ""
    while steps and isinstance(steps[-1], int):
        indices = f"[{steps.pop()}]" + indices
    if not steps:
        return (), "the file"
    return tuple(steps[:-1]), _toml_key(steps[-1]) + indices


def _where(place: _Place, file: str) -> str:
    table, _ = _split(place)
    return f"{file}, {_heading(table)}" if table else file


def _heading(steps: Sequence[str | int]) -> str:
    """`[attack.trigger]`, or `entry 2 of [[attacks]]`; counted from 1, as people do."""
    names = ".".join(_toml_key(step) for step in steps if isinstance(step, str))
    numbers = [step + 1 for step in steps if isinstance(step, int)]
    if not numbers:
        return f"[{names}]"
    return f"entry {'.'.join(map(str, numbers))} of [[{names}]]"


def _toml_key(step: str | int) -> str:
    text = str(step)
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else shown(repr(text))


def _value(value: Any) -> str:
    """A value as the file has it, cut to a readable length."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    return shown(repr(value) if isinstance(value, str) else str(value), 80)


def shown(text: str, limit: int = 300) -> str:
    """Text for one line of a terminal: no control characters, no endless names."""
    clean = "".join(
        c if c.isprintable() or c == NO_BREAK_SPACE else c.encode("unicode_escape").decode()
        for c in text
    )
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
