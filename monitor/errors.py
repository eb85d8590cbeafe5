"""Everything that Bellwether raises on purpose, as one tree, each with the exit code of the command that meets it.

    BellwetherError                 1   something failed; the message says what
    ├── ConfigurationError          2   a file, a variable or an option is wrong; every problem is listed with its path
    ├── StoreError                  3   the database cannot be used
    │   ├── SchemaMismatch          3   it was written by another version of Bellwether
    │   ├── StoreUnavailable        3   it does not answer at present
    │   ├── Fenced                  3   another instance has taken the partition over: the write was refused as a whole
    │   └── Deposed                 3   another instance leads: the write was refused as a whole
    ├── SourceError                 4   the log cannot be read
    │   ├── SourceUnavailable       4   it does not answer at present
    │   └── MissingCodec            4   a compression library is not installed
    ├── ModelError                  5   the checkpoint is missing, unreadable or not what its manifest says
    │   └── DeviceLost              5   the accelerator is gone; the process must be restarted
    ├── DeliveryError               6   a message cannot be rendered or a receiver cannot be used
    └── PipelineError               7   data, a recipe or a run of training cannot be used; or a model missed what it must reach

Outcomes that are part of normal life (a rejected record, a refused delivery, a zombie's write) are values, not exceptions, where
the caller can act on them.
"""

from __future__ import annotations

from typing import ClassVar


class BellwetherError(Exception):
    """Base of all errors here. `exit_code` is what the command line ends with."""

    exit_code: ClassVar[int] = 1


class ConfigurationError(BellwetherError):
    """The configuration cannot be used. `problems` lists every fault as "path.to.field: what is wrong"."""

    exit_code = 2

    def __init__(self, origin: str, problems: list[str]) -> None:
        self.origin = origin
        self.problems = problems
        lines = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(f"{origin} cannot be used:{lines}")


class StoreError(BellwetherError):
    """The database refused or failed."""

    exit_code = 3


class SchemaMismatch(StoreError):
    """The database was made by another version: use that version, or migrate as the message says."""


class StoreUnavailable(StoreError):
    """The database does not answer: wait, look what it holds, and try again. A commit whose answer was lost may have been made."""


class Fenced(StoreError):
    """This writer no longer owns the partition: nothing was saved; forget the claim and read on from a new one."""


class Deposed(StoreError):
    """This instance no longer leads: nothing was saved; forget what a leader remembers."""


class SourceError(BellwetherError):
    """The log cannot be read."""

    exit_code = 4


class SourceUnavailable(SourceError):
    """The log does not answer: close the source, wait, open it again."""


class MissingCodec(SourceError):
    """A compression library is missing: install it before reading; a batch in that codec would block the log."""


class ModelError(BellwetherError):
    """The checkpoint cannot be used."""

    exit_code = 5


class DeviceLost(ModelError):
    """The accelerator failed for good: end the process, save nothing of the batch."""


class DeliveryError(BellwetherError):
    """A message or a receiver cannot be used."""

    exit_code = 6


class EvidenceMissing(BellwetherError):
    """An incident keeps nothing that its decision could be made again from."""

    exit_code = 6


class PipelineError(BellwetherError):
    """Labelled data, a recipe or a run cannot be used, or a model does not reach what was asked of it."""

    exit_code = 7
