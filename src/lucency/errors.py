"""The errors that a user can meet; each carries the exit code of the command line."""

from __future__ import annotations


class LucencyError(Exception):
    """Anything that Lucency says to its user: one sentence with what was expected, what came,
    where, and what to do."""

    exit_code = 2


class ConfigError(LucencyError):
    """A setting, a path or an argument that cannot be used."""


class DataError(LucencyError):
    """A data set that cannot be used as a whole (one bad file is a `Rejected`)."""


class ModelError(LucencyError):
    """A model, a card or weights that cannot be used."""


class CannotWrite(LucencyError):
    """An output that cannot be written: disk full, read-only, or the folder is in use."""

    exit_code = 4


class IntegrityError(LucencyError):
    """An artefact that does not match its manifest, or is torn."""

    exit_code = 5


class MissingExtra(LucencyError):
    """An optional dependency that is needed and absent."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs an optional package; install it with: pip install 'lucency[{extra}]'."
        )
