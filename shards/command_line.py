"""The command line of every command: parsing, `--version`, `--config`, suggestions for misspelt words, checks of paths.

Commands parse and check before they import what does the work, so nothing here imports more than tyro does.
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
_NEAR = 0.6
"""Least similarity of a suggestion, as difflib measures it."""


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
    """Parse `argv` with `cli`, a function of tyro, into the options that `target` describes.

    `command` is the module after `python -m`. `names` are its subcommands, one of which the first word must be, and
    `noun` is what they are called. `foreign` are flags of another parser that are accepted too: then the unknown words
    are returned beside the options, as tyro returns them. `--config FILE` sets the flags that the command line does
    not; `stored` are keys of a stored configuration that are no flags. Exits with status 0 after `--help` and
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
    """The flags that a command's help lists, read only when a flag is not recognised."""

    def __init__(self, cli: Callable[..., Any], target: Any, subcommand: list[str], settings: dict[str, Any]):
        self._cli, self._target, self._subcommand, self._settings = cli, target, subcommand, settings

    def require(self, words: Iterable[str], foreign: Collection[str]) -> None:
        """Raise `UsageError` for the first word that looks like a flag and is neither listed nor foreign."""
        flags = {word: word.partition("=")[0] for word in words if _FLAG.fullmatch(word.partition("=")[0])}
        unknown = {word: flag for word, flag in flags.items() if flag not in foreign}
        known = self._listed() if unknown else set()
        for word, flag in unknown.items():
            if flag.replace("_", "-") not in known:
                raise UsageError(f"unknown argument {word!r}{suggestion(flag, known | set(foreign)) or '; see --help'}")

    def _listed(self) -> set[str]:
        """Every flag in the help of the command, and of its subcommand if one is given."""
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


def suggestion(given: str, known: Iterable[str]) -> str:
    """`; did you mean 'X'?` with the known name that is most like the given one, or nothing if none is."""
    by_form = {name.replace("_", "-"): name for name in known}
    near = difflib.get_close_matches(given.replace("_", "-"), by_form, 1, _NEAR)
    return f"; did you mean {by_form[near[0]]!r}?" if near else ""


def require_name(kind: str, given: str, known: Iterable[str]) -> None:
    """Raise `UsageError` unless `given` is one of the known names, in which `-` and `_` are the same."""
    names = tuple(known)
    if given.replace("_", "-") not in {name.replace("_", "-") for name in names}:
        hint = suggestion(given, names)
        raise UsageError(f"{given!r} is not a {kind}{hint or '; give one of ' + ', '.join(names)}")


def is_local(path: str) -> bool:
    """Whether a path is on this machine: not an address, and not in a bucket."""
    return "://" not in path


def require_file(flag: str, path: str | None) -> None:
    """Raise `UsageError` if a path on this machine is given and is not a file; pipes and devices count as files."""
    if path is not None and is_local(path) and (not Path(path).exists() or Path(path).is_dir()):
        raise UsageError(f"there is no file {path!r}; {flag} needs one that exists")


def require_folder(flag: str, path: str | None) -> None:
    """Raise `UsageError` if a path on this machine is given and is not a folder."""
    if path is not None and is_local(path) and not Path(path).is_dir():
        raise UsageError(f"there is no folder {path!r}; {flag} needs one that exists")


def require_data(flag: str, path: str) -> None:
    """Raise `UsageError` if data on this machine is not there: folders or files, separated by commas.

    Patterns are not resolved.
    """
    for one in [path] if Path(path).exists() else path.split(","):
        if is_local(one) and not any(mark in one for mark in "*?[{") and not Path(one).exists():
            raise UsageError(f"there is no file or folder {one!r}; {flag} needs one that exists")


def require_not_negative(flag: str, number: int | None) -> None:
    """Raise `UsageError` for a number below 0."""
    if number is not None and number < 0:
        raise UsageError(f"{flag} {number} must not be negative")


def require_checkpoint(flag: str, given: str, names: Iterable[str]) -> None:
    """Raise `UsageError` unless a checkpoint is a published name, an address, or a path that exists."""
    names = tuple(names)
    if given not in names and is_local(given) and not Path(given).exists():
        hint = suggestion(given, names) or f"; published names are {', '.join(names)}"
        raise UsageError(f"{flag} {given!r} is neither a file or folder nor a published name{hint}")


def run_command(main: Callable[[], int]) -> int:
    """Run a command and return its exit status: 1 or 2 after printing a `UserError`, 130 if interrupted.

    A package that is not installed because it belongs to another role is a usage error, which names the extra.
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
        # The reader of the output is gone (`... | head`).
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        return 130


def _print_error(error: UserError, status: int) -> int:
    sys.stderr.write(f"error: {error}\n")
    return status
