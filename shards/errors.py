"""Errors that a person caused or can cure, and how a command ends with them.

Every error that a user may meet derives from `UserError` and says in one sentence what was wrong, with the offending
value, and what to do. Commands print that sentence and nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable


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


def run_command(main: Callable[[], int]) -> int:
    """The exit status of `main`, or 1 or 2 after printing the sentence of a `UserError`; 130 when interrupted.

    A package that is not installed because it belongs to another role is a usage error, which names the extra.
    """
    try:
        return main()
    except ModuleNotFoundError as error:
        # Every command imports this module; what it needs of the table is read only here.
        from shards.extras import missing_package

        if (missing := missing_package(error)) is None:
            raise
        return _say(missing, 2)
    except UsageError as error:
        return _say(error, 2)
    except UserError as error:
        return _say(error, 1)
    except BrokenPipeError:
        # The reader of our output went away (`... | head`); there is nobody left to tell.
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        return 130


def _say(error: UserError, status: int) -> int:
    sys.stderr.write(f"error: {error}\n")
    return status
