"""Writes shell completion: `python -m flak.cli.completion DIR` makes flak.bash, _flak (zsh) and flak.fish in it.

The files are made from the verbs and options (`reference`) once, by packages; completing then runs no FLAK, so it costs
nothing, is the same under every version of typer, and goes on with the words of a traced command. Not imported when
FLAK runs.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

from flak.cli.reference import commands, headline, is_option

__all__ = ["CHOICES", "scripts"]

CHOICES = {
    "--events": "read write open close stat meta mmap fault copy io_uring aio process",
    "--redact": "hash basename prefix:",
    "--timestamp": "rel wall unix boot",
    "--color": "auto always never",
    "--on-loss": "warn fail",
}
_KIND_OF = {"FILE": "files", "RUN.flak": "files", "GLOB": "files", "ID|PATH": "files", "PID": "pids", "USER": "users"}
_TRACERS = tuple(
    verb for verb, command in commands().items() if any("CMD" in (p.metavar or "") for p in command.params)
)


def scripts() -> dict[str, str]:
    """The files by their names."""
    return {"flak.bash": _bash(), "_flak": _zsh(), "flak.fish": _fish()}


def _verbs() -> dict[str, Any]:
    return {verb: command for verb, command in commands().items() if verb}


def _options(command: Any) -> list[Any]:
    return [parameter for parameter in command.params if is_option(parameter)]


def _kind(option: Any) -> str:
    """What its value is: "flag" (it has none), "choices", "files", "pids", "users" or "text"."""
    name = option.opts[-1]
    if not option.metavar:
        return "flag"
    return "choices" if name in CHOICES else "users" if name == "--user" else _KIND_OF.get(option.metavar, "text")


def _bash() -> str:
    names = {verb: " ".join(sorted(n for o in _options(c) for n in o.opts)) for verb, c in _verbs().items()}
    by_kind: dict[str, set[str]] = {}
    for command in _verbs().values():
        for option in _options(command):
            key = option.opts[-1] if option.opts[-1] in CHOICES else _kind(option)
            by_kind.setdefault(key, set()).update(option.opts)
    by_kind.pop("flag")
    having_value = "|".join(sorted(set().union(*by_kind.values())))
    sources = {key: f'-W "{words}"' for key, words in CHOICES.items()}
    sources |= {"pids": '-W "$(cd /proc && echo [0-9]*)"', "users": "-u"}
    cases = "".join(
        f"        {'|'.join(sorted(by_kind[key]))}) _flak_words {source}; return ;;\n"
        for key, source in sources.items()
    )
    return _BASH.format(
        verbs=" ".join(names),
        tracers="|".join(_TRACERS),
        options="".join(f"            {verb}) _flak_words -W '{text} -h --help' ;;\n" for verb, text in names.items()),
        having_value=having_value,
        files="|".join(sorted(by_kind["files"])),
        text="|".join(sorted(by_kind["text"])),
        cases=cases,
    )


_BASH = """\
# bash completion for flak; written by flak.cli.completion

_flak_words() {{ # of a list only what is behind the last comma is completed
    local before=""
    [[ $cur == *,* ]] && before=${{cur%,*}},
    mapfile -t COMPREPLY < <(compgen -P "$before" "$@" -- "${{cur##*,}}")
}}

_flak_files() {{
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$cur")
}}

_flak() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} verb=${{COMP_WORDS[1]}} at
    COMPREPLY=()
    if (( COMP_CWORD == 1 )); then
        _flak_words -W "{verbs} --version --help"
        return
    fi
    case $verb in {tracers})
        for (( at = 2; at <= COMP_CWORD; at++ )); do # where the traced command begins
            case ${{COMP_WORDS[at]}} in
                --) (( ++at <= COMP_CWORD )) && {{ _flak_command $at; return; }}; break ;;
                {having_value}) [[ ${{COMP_WORDS[at+1]}} == = ]] && (( at++ )); (( at++ )) ;;
                -*|"") ;;
                *) (( at < COMP_CWORD )) && {{ _flak_command $at; return; }} ;;
            esac
        done
    esac
    [[ $cur == = ]] && cur=""
    [[ $prev == = ]] && prev=${{COMP_WORDS[COMP_CWORD-2]}} # --color=auto comes as three words
    case $prev in
        {files}) _flak_files; return ;;
        {text}) return ;;
{cases}    esac
    if [[ $cur == -* ]]; then
        case $verb in
{options}        esac
    else
        case $verb in
            {tracers}) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -c -- "$cur") ;;
            *) _flak_files ;;
        esac
    fi
}}

_flak_command() {{
    if declare -F _command_offset >/dev/null; then
        _command_offset "$1"
    elif (( COMP_CWORD == $1 )); then
        mapfile -t COMPREPLY < <(compgen -c -- "$cur")
    else
        _flak_files
    fi
}}

complete -F _flak flak
"""


def _zsh() -> str:
    sources = {"files": "_files", "pids": "_pids", "users": "_users", "text": " "}
    cases = []
    for verb, command in _verbs().items():
        specs = ["'(- *)'{-h,--help}'[show a summary]'"]
        for option in _options(command):
            kind, name = _kind(option), option.opts[-1]
            words = _zsh_text(CHOICES.get(name, ""))
            source = sources.get(kind, f"_values -s , word {words}" if option.multiple else f"({words})")
            value = "" if kind == "flag" else f":{_zsh_text(option.metavar)}:{source}"
            spelled = [n + ("" if not value else "=" if n.startswith("--") else "+") for n in option.opts]
            names = f"{{{','.join(spelled)}}}" if len(spelled) > 1 else spelled[0]
            lead = "\\*" if option.multiple else f"'({' '.join(option.opts)})'"
            specs.append(f"{lead}{names}{shlex.quote(f'[{_zsh_text(option.help)}]{value}')}")
        if verb in _TRACERS:
            specs += ["'(-)1: :_command_names -e'", "'*:: :_normal'"]
        elif any(not is_option(parameter) for parameter in command.params):
            specs.append("'1:recording:_files'")
        cases.append(f"        {verb})\n            _arguments -s -S -A '-*' \\\n                ")
        cases.append(" \\\n                ".join(specs) + " ;;\n")
    verbs = " ".join(shlex.quote(f"{verb}:{headline(command)}") for verb, command in _verbs().items())
    return _ZSH.format(verbs=verbs, cases="".join(cases))


def _zsh_text(text: str) -> str:
    return re.sub(r"([\[\]:\\])", r"\\\1", text)


_ZSH = """\
#compdef flak
# zsh completion for flak; written by flak.cli.completion

_flak() {{
    local curcontext="$curcontext" state line
    local -a verbs=({verbs})
    _arguments -C '(- *)'{{-h,--help}}'[show a summary]' '(- *)--version[show the version]' \\
        '1:verb:->verb' '*::argument:->argument'
    case $state in
        verb) _describe verb verbs; return ;;
        argument) ;;
        *) return ;;
    esac
    case $words[1] in
{cases}    esac
}}

_flak "$@"
"""


def _fish() -> str:
    lines = ["# fish completion for flak; written by flak.cli.completion", "complete -c flak -f"]
    lines.append("complete -c flak -n __fish_use_subcommand -l version -d 'show the version'")
    sources = {"pids": "-x -a '(__fish_complete_pids)'", "users": "-x -a '(__fish_complete_users)'"}
    sources |= {"flag": "", "files": "-r -F", "text": "-x"}
    for verb, command in _verbs().items():
        lines.append(f"complete -c flak -n __fish_use_subcommand -a {verb} -d {_fish_text(headline(command))}")
        seen = f"complete -c flak -n '__fish_seen_subcommand_from {verb}'"
        for option in _options(command):
            source = sources.get(_kind(option), f"-x -a '{CHOICES.get(option.opts[-1], '')}'")
            names = " ".join(f"-{'s' if len(name) == 2 else 'l'} {name.lstrip('-')}" for name in option.opts)
            lines.append(f"{seen} {names} {source} -d {_fish_text(option.help)}".replace("  ", " "))
        if verb in _TRACERS:
            lines.append(f"{seen} -a '(__fish_complete_subcommand --fcs-skip=2)'")
        elif any(not is_option(parameter) for parameter in command.params):
            lines.append(f"{seen} -F")
    return "\n".join([*lines, ""])


def _fish_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def main(folder: str) -> None:
    """Write every file into the folder, which is made if need be."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, text in scripts().items():
        Path(folder, name).write_text(text)


if __name__ == "__main__":
    main(sys.argv[1])
