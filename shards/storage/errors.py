"""Errors that a user caused or can fix.

Every error that a user may meet derives from `UserError` and says in one sentence what was wrong, with the offending
value, and what to do. Commands print that sentence and nothing else.
"""

from __future__ import annotations


class UserError(Exception):
    """A job cannot go on; ends a command with exit status 1."""


class StorageError(UserError, OSError):
    """A path could not be read or written; the message names it and says what to do."""


class ExistsError(StorageError):
    """A file that must be new is there already; the message names it."""


class BusyError(StorageError):
    """Another job holds a lock; the message names the place."""


class UsageError(UserError):
    """A command was called the wrong way; ends it with exit status 2."""


class RecordError(ValueError):
    """Bytes are not the record that they should be; the message says what is wrong with them."""
