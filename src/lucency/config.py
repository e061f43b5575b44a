"""Read a TOML file into a `Record`, and say in one sentence a line what is wrong with it.

Values are taken strictly: ``true`` is no number and ``"0.1"`` no fraction.

Paths. A plain `Path` field keeps what the file says, so it is relative to the working folder. Write
`ConfigPath` instead and `load_toml` resolves it against the folder of the TOML file::

    class Source(Record):
        images: ConfigPath

Outside `load_toml` a `ConfigPath` is an ordinary path. Anyone who validates by hand passes
``context={"base": folder}``.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, ValidationError, ValidationInfo

from lucency.config_faults import sentences, shown
from lucency.errors import ConfigError
from lucency.records import Record

LIMIT_BYTES = 1 << 20
LIMIT_DOTS = 100
"""Dots in one key; `tomllib` takes time by their square, so a hostile megabyte would take hours."""

RecordType = TypeVar("RecordType", bound=Record)


def _against_base(path: Path, info: ValidationInfo) -> Path:
    base = (info.context or {}).get("base")
    return path if base is None else Path(base) / path


ConfigPath = Annotated[Path, AfterValidator(_against_base)]
"""A path that a config file names relative to its own folder."""


def load_toml(path: Path, kind: type[RecordType]) -> RecordType:
    """Read and validate a TOML file of at most 1 MiB.

    Every failure is a `ConfigError` with a sentence for each fault, up to five, one a line.
    """
    # By way of JSON, because pydantic's strict mode for Python objects refuses text for a Path, and
    # a list for a tuple.
    text = _as_json(path, _read(path))
    try:
        return kind.model_validate_json(text, strict=True, context={"base": path.absolute().parent})
    except ValidationError as error:
        faults = error.errors(include_url=False)
        if faults[0]["type"] == "json_invalid":
            raise _too_deep(path) from error
        raise ConfigError(sentences(faults, kind, shown(str(path)))) from error


def _date(value: datetime.date | datetime.time) -> str:
    return value.isoformat()


# --- the file -------------------------------------------------------------------------------------


def _read(path: Path) -> str:
    try:
        data = _read_regular(path)
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist; check the name and the folder.") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path} must be a TOML file, got a folder; name the file.") from error
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{shown(str(path))} cannot be read: {cause}; check its name and permissions."
        ) from error
    if len(data) > LIMIT_BYTES:
        raise ConfigError(f"{path} must be at most 1 MiB, got more; is it a TOML config at all?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path} must be UTF-8 text, got byte 0x{data[error.start]:02x} in line {line}; "
            "save it as UTF-8."
        ) from error


def _read_regular(path: Path) -> bytes:
    """At most one byte more than the limit; a pipe is refused, not waited for."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError
        if not stat.S_ISREG(mode):
            raise OSError(0, "it is a pipe or a device, not a file")
        with os.fdopen(fd, "rb", closefd=False) as file:
            return file.read(LIMIT_BYTES + 1)
    finally:
        os.close(fd)


def _as_json(path: Path, text: str) -> str:
    if any(part.count(".") > LIMIT_DOTS for part in re.split(r"[\n,={}\[\]]", text)):
        raise _too_deep(path)
    try:
        return json.dumps(tomllib.loads(text), default=_date)
    except RecursionError as error:
        raise _too_deep(path) from error
    except ValueError as error:
        cause = shown(str(error).rstrip("."))
        raise ConfigError(f"{path} is not valid TOML: {cause}; correct that line.") from error


def _too_deep(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} nests too deeply; use fewer levels, and fewer than {LIMIT_DOTS} dots in a key."
    )
