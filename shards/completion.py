"""Completion scripts for shells, made of a command's subcommands and their flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SHELLS = ("bash", "zsh", "fish")


def script(shell: str, program: str, words: Mapping[str, Sequence[str]]) -> str:
    """Return the script that completes `program` in one of `SHELLS`; `words` are those of each subcommand."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](program, words)


def _bash(program: str, words: Mapping[str, Sequence[str]]) -> str:
    cases = "\n".join(f'    {name}) words="{" ".join(flags)}" ;;' for name, flags in words.items())
    return f"""\
# eval "$({program} completion bash)"
_{program}() {{
  local words word="${{COMP_WORDS[COMP_CWORD]}}"
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$word"))
    return
  fi
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _{program} {program}
"""


def _zsh(program: str, words: Mapping[str, Sequence[str]]) -> str:
    return f"autoload -U +X bashcompinit && bashcompinit\n{_bash(program, words)}"


def _fish(program: str, words: Mapping[str, Sequence[str]]) -> str:
    lines = [f"complete -c {program} -n __fish_use_subcommand -f -a '{' '.join(words)}'"]
    for name, flags in words.items():
        condition = f"'__fish_seen_subcommand_from {name}'"
        lines.append(f"complete -c {program} -n {condition} -a '{' '.join(flags)}'")
    return "\n".join(lines) + "\n"
