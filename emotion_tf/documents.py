"""Reads JSON documents into typed values: the dataclass, or the TypedDict, that the code uses.

pydantic checks types and bounds, which the annotations of the fields state. It was chosen because it reads dataclasses,
named tuples and TypedDicts as they are, bounds the nesting, names the field of each fault, and is installed anyway.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import json
import os
import re
import reprlib
import typing
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from emotion_tf import files
from emotion_tf.errors import UserError, nearest
from emotion_tf.labels import MAX_LABEL, is_label

T = TypeVar("T")
MAX_BYTES = 64 << 20
MAX_NAME, MAX_TEXT = 1000, 100_000
MAX_LENGTH = 10_000
RULES = {
    "string_type": "a text",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dataclass_type": "an object",
    "dict_type": "an object",
    "mapping_type": "an object",
    "finite_number": "a finite number",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "too_short": "{min_length} or more items",
    "too_long": "at most {max_length} items",
    "string_too_short": "a text that is not empty",
    "string_too_long": "at most {max_length} characters",
    "literal_error": "{expected}",
    "value_error": "{error}",
}
"""Kind of a fault in pydantic -> what is expected."""
_short = reprlib.Repr()
_short.maxstring = _short.maxlong = _short.maxother = 60


def _check_distinct(values: Sequence[Any]) -> Sequence[Any]:
    if len(set(values)) < len(values):
        raise ValueError("different values")
    return values


def _file_name(name: str) -> str:
    if Path(name).name != name or name in ("", "..") or "\0" in name:
        raise ValueError("the name of a file in this folder")
    return name


def _label(label: str) -> str:
    if not is_label(label):
        raise ValueError(f"a printable label of 1 to {MAX_LABEL} characters, without spaces around it")
    return label


Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
Pathname = Annotated[str, Field(min_length=1, max_length=4096)]
"""A path (`config.rules.check_path`), or what stands in place of one."""
Text = Annotated[str, Field(max_length=MAX_TEXT)]
Command = Annotated[str, Field(max_length=8 << 20)]
"""A command line with its quotes. Linux takes 2 MB."""
FileName = Annotated[str, Field(max_length=MAX_NAME), AfterValidator(_file_name)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Label = Annotated[str, AfterValidator(_label)]
Labels = Annotated[tuple[Label, ...], Field(min_length=2, max_length=10_000), AfterValidator(_check_distinct)]
Side = Annotated[int, Field(ge=1, le=1024)]
"""Side of a face crop in pixels. Readers allocate what a document says."""
Length = Annotated[int, Field(ge=0, le=MAX_LENGTH)]
"""Length of a list in memory."""
Count = Annotated[int, Field(ge=0, le=10**15)]
"""A number of things, which is not allocated: utterances, bytes, parameters."""
Amount = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]
"""A sum of weights, or a duration."""
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Score = Annotated[float, Field(ge=-1e-6, le=1 + 1e-6)]
"""A share that was computed, with rounding errors."""
Finite = Annotated[float, Field(allow_inf_nan=False)]


def exactly(value: Any) -> AfterValidator:
    """Returns the rule of a field that has one valid value, such as the version of a format."""

    def check(received: Any) -> Any:
        if received != value:
            raise ValueError(str(value))
        return received

    return AfterValidator(check)


def to_json(document: Any) -> str:
    """Returns a dataclass as the text of a document. Raises UserError as `check` does."""
    text = json.dumps(dataclasses.asdict(document), indent=2) + "\n"
    check(text, type(document))
    return text


def check(text: str, kind: type[Any]) -> None:
    """Raises UserError if `read` would refuse a document that is about to be written."""
    content = text.encode(errors="surrogateescape")  # a file name that is not UTF-8
    if len(content) > MAX_BYTES:
        raise UserError(f"Cannot write a document of {len(content):,} bytes. Expected at most {MAX_BYTES:,}.")
    parse(content, kind, "Cannot write a document that could not be read", "Change this value.")


def read(
    path: Path,
    kind: type[T],
    fix: str,
    missing: str = "",
    extra: Literal["forbid", "allow"] = "forbid",
    defaults: bool = False,
) -> T:
    """Reads a document.

    Args:
        path: the file.
        kind: the type of the document.
        fix: sentence that says how to repair it.
        missing: message if the file does not exist.
        extra: whether there may be other keys than those of the type.
        defaults: whether fields with a default may be missing. A program writes all of them, so one that is missing was
            lost; a person may leave some out.

    Raises:
        UserError: the file is missing, no regular file or too large, or as `parse`.
    """
    if missing and is_missing(path):
        raise UserError(missing)
    try:
        content = files.read_regular(path, MAX_BYTES, "file", "a JSON document")
    except UserError as error:
        raise UserError(f"{error} {fix}") from None
    return parse(content, kind, str(path), fix, extra, defaults)


def is_missing(path: Path) -> bool:
    """Whether there is no file, rather than one that cannot be read, for which `read` has a message."""
    try:
        os.stat(path)
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ENOTDIR)
    except ValueError:
        return False
    return False


def parse(
    content: bytes | str,
    kind: type[T],
    source: str,
    fix: str,
    extra: Literal["forbid", "allow"] = "forbid",
    defaults: bool = False,
) -> T:
    """Returns the value of a document; `source` says where it comes from, the other arguments are those of `read`.

    Raises:
        UserError: it is no JSON in UTF-8, is nested deeply, has a key twice, or breaks the rule of a field.
    """
    if isinstance(content, str):
        content = content.encode(errors="surrogatepass")  # an array of NumPy holds any code points
    document = _validate(content, kind, source, fix, extra)
    try:
        values = json.loads(content, object_pairs_hook=_unique_keys)
        if not defaults:
            _check_complete(values, document)
    except UserError as error:
        raise UserError(f"{source}: {error} {fix}") from None
    return document


def parse_answer(content: bytes, kind: type[T], source: str) -> T:
    """Returns the value of a server's answer.

    An answer may have other keys than those of the type, and a key twice, as for any client of an API. `parse` would
    read a long one twice.

    Raises:
        UserError: it is no JSON in UTF-8, is nested deeply, or breaks the rule of a field.
    """
    return _validate(content, kind, source, "", "allow")


def _validate(content: bytes, kind: type[T], source: str, fix: str, extra: Literal["forbid", "allow"]) -> T:
    try:
        return _adapter(kind).validate_json(content, strict=True, extra=extra)  # type: ignore[no-any-return,arg-type]
    except ValidationError as error:
        raise UserError(f"{source}: {_describe(error, kind)} {fix}".rstrip()) from None
    except UserError as error:  # of a rule of several fields
        raise UserError(f"{source}: {error} {fix}".rstrip()) from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for name, number in Counter(name for name, _ in pairs).items():
        if number > 1:
            raise UserError(f"Invalid `{name[:100]}`. Expected one value. Received: {number}.")
    return dict(pairs)


def _check_complete(values: Any, document: Any, where: str = "") -> None:
    """Raises UserError if a dataclass, or a named tuple, in a document was read from an object that lacks a field."""
    names: Sequence[str] = getattr(document, "_fields", ())
    if dataclasses.is_dataclass(document):
        names = [field.name for field in dataclasses.fields(document)]
    if names:
        for name in names:
            if not isinstance(values, dict) or name not in values:
                raise UserError(f"No `{where}{name}`. Expected this field.")
            _check_complete(values[name], getattr(document, name), f"{where}{name}.")
    elif isinstance(document, dict):
        for name, value in document.items():
            _check_complete(values[name], value, f"{where}{name}.")
    elif isinstance(document, (list, tuple)):
        for i, value in enumerate(document):
            _check_complete(values[i], value, f"{where.removesuffix('.')}[{i}].")


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _describe(error: ValidationError, kind: Any) -> str:
    """Returns field, rule and value of the first fault, in one line."""
    fault = error.errors(include_url=False)[0]
    field = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in fault["loc"]).lstrip(".")[:100]
    context: dict[str, Any] = fault.get("ctx", {})
    if fault["type"] == "json_invalid":
        return f"Expected JSON in UTF-8. Received: {context['error']}."
    if fault["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        names = _names(kind, fault["loc"][:-1])
        return f"Unknown key `{field}`.{nearest(str(fault['loc'][-1]), names) or ' Expected no such key.'}"
    if fault["type"] == "missing":
        return f"No `{field}`. Expected this field."
    template = RULES.get(fault["type"])
    rule = template.format(**context) if template else re.sub("^Input should (be )?", "", fault["msg"])
    invalid = f"Invalid `{field}`. " if field else ""
    return f"{invalid}Expected {rule}. Received: {_short.repr(fault['input'])}."


def _names(kind: Any, location: tuple[int | str, ...]) -> list[str]:
    """Returns the keys of the dataclass at a place of a document; none for another type."""
    for key in location:
        kind = typing.get_type_hints(kind).get(str(key)) if dataclasses.is_dataclass(kind) else None
    return [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []
