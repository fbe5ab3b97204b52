"""Selection of the options to search: the names of --search and --fix, and the domains of --search NAME=VALUES."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from emotion_tf.config import Config
from emotion_tf.errors import UserError, nearest
from tuning.space import DatasetFacts, Domain, Parameter, Range, apply, choices, label, value_of


def select(
    parameters: Sequence[Parameter], search: Sequence[str], fix: Sequence[str], base: Config, facts: DatasetFacts
) -> list[Parameter]:
    """Returns the parameters that --search and --fix leave to be searched; the others keep the values of `base`.

    A name is an option (`train.learning_rate`), its last word (`dropout`: of every section) or a section (`fusion`:
    all of its options). `NAME=LOW:HIGH` and `NAME=A,B,C` replace the domain of one option.

    Raises:
        UserError: a name matches no parameter, a value is invalid for its option, or nothing is left to search.
    """
    changed: dict[str, Parameter] = {}
    options_of_word: dict[str, list[str]] = {}
    for word in search:
        name, _, values = word.partition("=")
        matches = _match(parameters, name, "--search")
        options_of_word[word] = [parameter.option for parameter in matches]
        if values and len(matches) > 1:
            raise UserError(
                f"Invalid `--search`. Expected one option before the '='. Received: {word!r}, which names "
                f"{', '.join(options_of_word[word])}."
            )
        for parameter in matches:
            changed[parameter.option] = _narrow(parameter, values, base, parameters, facts) if values else parameter
    fixed = {parameter.option for word in fix for parameter in _match(parameters, word, "--fix")}
    candidates = [
        changed.get(parameter.option, parameter)
        for parameter in parameters
        if parameter.option not in fixed and (not changed or parameter.option in changed)
    ]
    selected = [parameter for parameter in candidates if _has_effect(parameter, candidates, base)]
    names = {parameter.option for parameter in selected}
    for word, options in options_of_word.items():
        if not names & set(options):
            raise UserError(
                f"Invalid `--search`. Expected options with an effect beside the fixed ones. Received: {word!r}."
            )
    if not selected:
        raise UserError("Nothing to search. Expected an option that --fix does not name.")
    return selected


def _match(parameters: Sequence[Parameter], name: str, flag: str) -> list[Parameter]:
    plain = name.removeprefix("--").replace("-", "_")
    matches = [parameter for parameter in parameters if plain in (parameter.option, *parameter.option.split("."))]
    if not matches:
        valid = [parameter.option for parameter in parameters]
        words = [*valid, *(word for option in valid for word in option.split("."))]
        raise UserError(
            f"Invalid `{flag}`. Expected options with an effect in this configuration: {', '.join(valid)}. "
            f"Received: {name!r}.{nearest(plain, words)}"
        )
    return matches


def _has_effect(parameter: Parameter, candidates: Sequence[Parameter], base: Config) -> bool:
    """Whether its condition holds for some searched value of the option it depends on, or for the value of `base`."""
    if parameter.condition is None:
        return True
    option, holds = parameter.condition
    parent = next((other for other in candidates if other.option == option), None)
    return any(map(holds, choices(parent) if parent else (value_of(base, option),)))


def _narrow(
    parameter: Parameter, text: str, base: Config, parameters: Sequence[Parameter], facts: DatasetFacts
) -> Parameter:
    """Returns the parameter with the domain that `text` gives."""
    example = value_of(base, parameter.option)
    is_range = isinstance(parameter.domain, Range) and ":" in text
    values = tuple(
        dict.fromkeys(_parse(parameter.option, part, example, text) for part in text.split(":" if is_range else ","))
    )
    domain: Domain = values
    if isinstance(parameter.domain, Range) and is_range:
        lower_limit = 0.0 if parameter.domain.log else float("-inf")
        if len(values) != 2 or not lower_limit < values[0] < values[1]:
            rule = " and above 0, since the option is sampled on a logarithmic scale" if parameter.domain.log else ""
            raise UserError(
                f"Invalid `--search {parameter.option}`. Expected LOW:HIGH, the lower first{rule}. Received: {text!r}."
            )
        domain = Range(*values, parameter.domain.log)
    for value in values:
        _check_value(parameter, value, base, parameters, facts)
    return dataclasses.replace(parameter, domain=domain)


def _check_value(
    parameter: Parameter, value: Any, base: Config, parameters: Sequence[Parameter], facts: DatasetFacts
) -> None:
    """Raises UserError for a value with which no configuration is valid, whatever the other options are."""
    settings: list[dict[str, Any]] = [{}]
    if parameter.condition is not None:
        option, holds = parameter.condition
        parent = next((other for other in parameters if other.option == option), None)
        if parent is not None:
            settings = [{option: choice} for choice in choices(parent) if holds(choice)]
    for others in settings:
        config = apply(base, {parameter.option: value, **others})
        if (config.uses_bert, config.face.networks) != (base.uses_bert, base.face.networks):
            raise UserError(
                f"Invalid `--search {parameter.option}`. Expected the pretrained branches of the configuration "
                f"(now {label(value_of(base, parameter.option))}) in each value. Received: {label(value)!r}."
            )
        if config.text.context > facts.context:
            raise UserError(
                f"Invalid `--search {parameter.option}`. Expected at most {facts.context}, which the data set stores. "
                f"Received: {value}."
            )


def _parse(option: str, text: str, example: Any, whole: str) -> Any:
    """Returns a value of the type of `example`, the inverse of `label`."""
    try:
        if isinstance(example, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(example, tuple):
            if text == "none":
                return ()
            return tuple(text.split("+")) if option.endswith("branches") else tuple(map(int, text.split("-")))
        return ("" if text == "none" else text) if isinstance(example, str) else type(example)(text)
    except (ValueError, KeyError):
        raise UserError(
            f"Invalid `--search {option}`. Expected values such as {label(example)}, as LOW:HIGH or A,B,C. "
            f"Received: {whole!r}."
        ) from None
