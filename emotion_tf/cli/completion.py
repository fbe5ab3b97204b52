"""`completion`: prints the completion of verbs, options, values and runs for a shell."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from typing import Annotated

from tyro.conf import Positional

from emotion_tf import command_line, folders, streams
from emotion_tf.config import rules

COMMAND = "emotion-tf"
SHELLS = ("bash", "zsh", "fish")
ZSH = "autoload -Uz compinit && compinit\nautoload -Uz bashcompinit && bashcompinit\n"
FISH = """\
function __emotion_tf
    set -l words (commandline -opc) (commandline -ct)
    bash -c {script} bash $words
end
complete -c {command} -a "(__emotion_tf)"
"""
# after the script of bash: completes the words of a command line, the last one unfinished
COMPLETE = 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _emotion_tf; printf "%s\\n" "${COMPREPLY[@]}"\n'
SCRIPT = """\
# Completion of {command}, written by `{command} completion`.
# Only names that a run may have: compgen would run the command in a folder's name such as $(...).
_emotion_tf_runs() {{ (cd {runs} 2>/dev/null && ls -d */ 2>/dev/null | tr -d / | grep -v '[^[:alnum:]_.-]'); }}

_emotion_tf_options() {{
    case "$1" in
{options}
    esac
}}

_emotion_tf_values() {{
    case "$1" in
{values}
    esac
}}

_emotion_tf() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" verb="${{COMP_WORDS[1]}}" first=2 option="" words="" i
    COMPREPLY=()
    case "$verb" in {groups}) verb="$verb ${{COMP_WORDS[2]}}"; first=3 ;; esac
    if (( COMP_CWORD == 1 )); then
        words="{verbs}"
    elif (( COMP_CWORD < first )); then
        case "${{COMP_WORDS[1]}}" in
{second_words}
        esac
    elif [[ "$current" == -* ]]; then
        words="$(_emotion_tf_options "$verb")"
    else
        for (( i = first; i < COMP_CWORD; i++ )); do
            [[ "${{COMP_WORDS[i]}}" == --* ]] && option="${{COMP_WORDS[i]}}"
        done
        words="$(_emotion_tf_values "$verb $option")"
    fi
    COMPREPLY=( $(compgen -W "$words" -- "$current") )
}}

complete -o default -F _emotion_tf {command}
"""


def completion(shell: Annotated[Positional[str], rules.names(SHELLS)]) -> None:
    """Print the completion for a shell: verbs, options, their values, and the runs in saved_models/.

    Args:
        shell: The shell, whose start file or completion folder the output belongs into (docs/quick_start.md).
    """
    rules.one_of("shell", shell, SHELLS)
    streams.print_report(fish() if shell == "fish" else (ZSH if shell == "zsh" else "") + script())


def fish() -> str:
    """Returns the completion for fish, which asks bash: its own needs a rule for each option."""
    text = (script() + COMPLETE).replace("\\", "\\\\").replace("'", "\\'")
    return FISH.format(command=COMMAND, script=f"'{text}'")


def script() -> str:
    """Returns the completion for bash, which zsh reads as well."""
    from emotion_tf.cli import VERBS

    names = [verb.name for verb in VERBS]
    groups: dict[str, list[str]] = {}
    for first, second in (name.split() for name in names if " " in name):
        groups.setdefault(first, []).append(second)
    options, values = [], []
    for name in names:
        entries = dict(_entries(name))
        flags = [option for option in entries if option.startswith("-")]
        options.append(_case(name, " ".join(flags), " " * 8))
        for option, taken in entries.items():
            if words := _words(taken):
                values.append(_case(f"{name} {option if option in flags else ''}", words, " " * 8))
    return SCRIPT.format(
        command=COMMAND,
        runs=folders.RUNS,
        options="\n".join(options),
        values="\n".join(values),
        groups=" | ".join(groups),
        verbs=" ".join(dict.fromkeys(name.split()[0] for name in names)),
        second_words="\n".join(f'            {first}) words="{" ".join(words)}" ;;' for first, words in groups.items()),
    )


def _case(pattern: str, words: str, indent: str) -> str:
    command = words if words == "_emotion_tf_runs" else f'echo "{words}"'
    return f'{indent}"{pattern}") {command} ;;'


def _words(values: str) -> str:
    """Returns what completes the values of an option: a list of names, the function of the runs, or nothing."""
    if names := re.match(r"\{(.*?)\}", values):
        return names[1].replace(",", " ")
    return "_emotion_tf_runs" if values.startswith("RUN") else ""


def _entries(verb: str) -> Iterator[tuple[str, str]]:
    """Yields each option of a verb, and its first argument, with what it takes, from its help."""
    from emotion_tf import cli

    output = io.StringIO()
    with command_line.columns(10_000), contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        cli.dispatch([*verb.split(), "--help"])
    arguments = re.search(r"^Arguments:\n  (\S+)", output.getvalue(), re.MULTILINE)
    if arguments:
        yield "", arguments[1]
    for line in re.findall(r"^  (?:-h, )?(--.*)", output.getvalue(), re.MULTILINE):
        option, _, values = line.split("  ")[0].partition(" ")
        if "[no-]" in option:
            yield option.replace("[no-]", ""), ""
            option = option.replace("[no-]", "no-")
        yield option, values
