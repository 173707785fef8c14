"""Errors that a user caused or can fix.

Every error that a user may see derives from `UserError`. Its message is one sentence that names the offending value and
what to do. Commands print that sentence and nothing else.
"""

from __future__ import annotations


class UserError(Exception):
    """A command cannot continue; its exit status is 1."""


class StorageError(UserError, OSError):
    """A path could not be read or written; the message names the path and the remedy."""


class ExistsError(StorageError):
    """A file that must be new already exists; the message names it."""


class BusyError(StorageError):
    """Another job holds a lock; the message names the folder."""


class UsageError(UserError):
    """The arguments of a command are not valid; its exit status is 2."""


class RecordError(ValueError):
    """Bytes are not a valid record; the message names the defect."""
