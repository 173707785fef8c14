"""Command-line parsing for every command: `--version`, `--config`, suggestions for misspelt flags, checks of paths.

Commands parse and check their arguments before they import heavy packages, so this module imports no more than tyro.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from shards import config_file
from shards.storage.errors import UsageError, UserError
from shards.storage.extras import missing_package

VERSION = "0.1.0"
"""The version of the distribution; a test compares it with pyproject.toml."""

PROGRAM: ContextVar[str | None] = ContextVar("program", default=None)
"""The words that usage messages begin with, such as `reservoir ask`; by default `python -m` and the module."""

_FLAG = re.compile(r"--[A-Za-z][\w.-]*")
_HELP_FLAG = re.compile(r"^\W*(?:-\w, )?(--[a-z][\w.-]*\w)", re.MULTILINE)
_ALTERNATIVE = re.compile(r"--no-[\w.-]+")
_MIN_SIMILARITY = 0.6
"""Minimum similarity ratio of a suggestion (`difflib`)."""


def parse(
    cli: Callable[..., Any],
    target: Any,
    command: str,
    argv: Sequence[str] | None,
    *,
    names: Iterable[str] = (),
    noun: str = "subcommand",
    foreign: Collection[str] = (),
    stored: Collection[str] = (),
    **settings: Any,
) -> Any:
    """Parse `argv` with `cli`, a function of tyro, into an instance of `target`.

    `command` is the module after `python -m`. If `names` lists subcommands, the first word must be one of them; `noun`
    describes them in error messages. `foreign` are flags of another parser that are accepted too: then the unparsed
    words are returned next to the options, as tyro returns them. `--config FILE` sets flags that are not on the command
    line; `stored` are keys of a stored configuration that are not flags. Exits with status 0 after `--help` and
    `--version`. Raises `UsageError` for an unknown flag or subcommand; for other mistakes tyro prints its message and
    exits with status 2.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if "--version" in words:
        sys.stdout.write(f"reservoir {VERSION}\n")
        raise SystemExit(0)
    names = tuple(names)
    words = _with_config(words, names, noun, stored)
    named = bool(names and words and not words[0].startswith("-"))
    if named:
        require_name(noun, words[0], names)
    settings |= {"prog": PROGRAM.get() or f"python -m {command}"}
    known = _KnownFlags(cli, target, words[:1] if named else [], settings)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            parsed = cli(target, args=words, **(settings | ({"return_unknown_args": True} if foreign else {})))
    except SystemExit as ended:
        if ended.code == 2:
            known.require(words, foreign)
        sys.stderr.write(printed.getvalue())
        raise
    sys.stderr.write(printed.getvalue())
    if foreign:
        known.require(parsed[1], foreign)
    return parsed


def _with_config(words: list[str], names: Sequence[str], noun: str, stored: Collection[str]) -> list[str]:
    """Replace `--config FILE` by the flags in the file, after the subcommand that the words or the file name."""
    path, rest = config_file.split(words)
    if path is None:
        return rest
    values: Mapping[str, Any] = config_file.read(path)
    if not names:
        return [*config_file.arguments(values, rest, stored), *rest]
    name = rest.pop(0) if rest and not rest[0].startswith("-") else values.get(noun)
    if not isinstance(name, str):
        raise UsageError(f"{path!r} names no {noun}; give one of {', '.join(names)} before the flags")
    return [name, *config_file.arguments(values, rest, {*stored, noun}), *rest]


class _KnownFlags:
    """The flags in a command's help, which is rendered only if a flag may be unknown."""

    def __init__(self, cli: Callable[..., Any], target: Any, subcommand: list[str], settings: dict[str, Any]):
        self._cli, self._target, self._subcommand, self._settings = cli, target, subcommand, settings

    def require(self, words: Iterable[str], foreign: Collection[str]) -> None:
        """Raise `UsageError` for the first word that looks like a flag and is neither in the help nor foreign."""
        flags = {word: word.partition("=")[0] for word in words if _FLAG.fullmatch(word.partition("=")[0])}
        unknown = {word: flag for word, flag in flags.items() if flag not in foreign}
        known = self._listed() if unknown else set()
        for word, flag in unknown.items():
            if flag.replace("_", "-") not in known:
                raise UsageError(f"unknown argument {word!r}{suggestion(flag, known | set(foreign)) or '; see --help'}")

    def _listed(self) -> set[str]:
        """Return every flag in the help of the command and of its subcommand, if any."""
        known = {"--help", "--version", config_file.FLAG}
        for words in ([], self._subcommand) if self._subcommand else ([],):
            text = io.StringIO()
            with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
                self._cli(self._target, args=[*words, "--help"], **self._settings)
            known |= flags_in(text.getvalue())
        return known


def flags_in(text: str) -> set[str]:
    """Return the flags that a help text of tyro lists."""
    return set(_HELP_FLAG.findall(text)) | set(_ALTERNATIVE.findall(text))


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'X'?` with the known name most similar to `name`, or an empty string if none is."""
    by_form = {other.replace("_", "-"): other for other in known}
    matches = difflib.get_close_matches(name.replace("_", "-"), by_form, 1, _MIN_SIMILARITY)
    return f"; did you mean {by_form[matches[0]]!r}?" if matches else ""


def require_name(kind: str, name: str, known: Iterable[str]) -> None:
    """Raise `UsageError` unless `name` is one of the known names; `-` and `_` are equivalent."""
    names = tuple(known)
    if name.replace("_", "-") not in {other.replace("_", "-") for other in names}:
        hint = suggestion(name, names)
        raise UsageError(f"{name!r} is not a {kind}{hint or '; give one of ' + ', '.join(names)}")


def is_local(path: str) -> bool:
    """Return whether a path is on this machine: neither a URL nor in a bucket."""
    return "://" not in path


def require_file(flag: str, path: str | None) -> None:
    """Raise `UsageError` if a local path is not an existing file; pipes and devices count as files."""
    if path is not None and is_local(path) and (not Path(path).exists() or Path(path).is_dir()):
        raise UsageError(f"there is no file {path!r}; {flag} needs one that exists")


def require_folder(flag: str, path: str | None) -> None:
    """Raise `UsageError` if a local path is not an existing folder."""
    if path is not None and is_local(path) and not Path(path).is_dir():
        raise UsageError(f"there is no folder {path!r}; {flag} needs one that exists")


def require_data(flag: str, path: str) -> None:
    """Raise `UsageError` if local data (files or folders, separated by commas) does not exist.

    Patterns are not expanded.
    """
    for one in [path] if Path(path).exists() else path.split(","):
        if is_local(one) and not any(mark in one for mark in "*?[{") and not Path(one).exists():
            raise UsageError(f"there is no file or folder {one!r}; {flag} needs one that exists")


def require_not_negative(flag: str, number: int | None) -> None:
    """Raise `UsageError` for a negative number."""
    if number is not None and number < 0:
        raise UsageError(f"{flag} {number} must not be negative")


def require_checkpoint(flag: str, checkpoint: str, names: Iterable[str]) -> None:
    """Raise `UsageError` unless a checkpoint is a published name, a URL, or an existing path."""
    names = tuple(names)
    if checkpoint not in names and is_local(checkpoint) and not Path(checkpoint).exists():
        hint = suggestion(checkpoint, names) or f"; published names are {', '.join(names)}"
        raise UsageError(f"{flag} {checkpoint!r} is neither a file or folder nor a published name{hint}")


def run_command(main: Callable[[], int]) -> int:
    """Run a command and return its exit status: 1 or 2 after printing a `UserError`, 130 if interrupted.

    A package of a role that is not installed is a usage error; the message names the extra.
    """
    try:
        return main()
    except ModuleNotFoundError as error:
        if (missing := missing_package(error)) is None:
            raise
        return _print_error(missing, 2)
    except UsageError as error:
        return _print_error(error, 2)
    except UserError as error:
        return _print_error(error, 1)
    except BrokenPipeError:
        # The reader of the output has closed the pipe (`... | head`).
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        return 130


def _print_error(error: UserError, status: int) -> int:
    sys.stderr.write(f"error: {error}\n")
    return status
