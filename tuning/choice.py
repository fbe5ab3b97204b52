"""Which options are searched: what --search and --fix name, and where --search NAME=VALUES narrows them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from emotion_tf.config import Config
from emotion_tf.errors import UserError, nearest
from tuning.space import Domain, Facts, Parameter, Range, apply, label, listed, value_of


def choose(
    found: Sequence[Parameter], search: Sequence[str], fix: Sequence[str], base: Config, facts: Facts
) -> list[Parameter]:
    """The parameters that --search and --fix name; those left fixed have the value of the configuration.

    A name is an option (`train.learning_rate`), its last word (`dropout`: of each part) or a part (`fusion`: all of
    it). `NAME=LOW:HIGH` and `NAME=A,B,C` search one option elsewhere than by default.

    Raises:
        UserError: a name of nothing that is searched, values that the option does not take, or nothing to search.
    """
    wanted: dict[str, Parameter] = {}
    words: dict[str, list[str]] = {}
    for word in search:
        name, _, values = word.partition("=")
        ones = _named(found, name, "--search")
        if values and len(ones) > 1:
            raise UserError(
                f"Invalid `--search`. Expected one option before the '='. Received: {word!r}, which names "
                f"{', '.join(one.option for one in ones)}."
            )
        words[word] = [one.option for one in ones]
        wanted |= {one.option: _narrowed(one, values, base, found, facts) if values else one for one in ones}
    fixed = {one.option for word in fix for one in _named(found, word, "--fix")}
    asked = [wanted.get(one.option, one) for one in found if not wanted or one.option in wanted]
    asked = [one for one in asked if one.option not in fixed]
    chosen = [one for one in asked if _acts_in(one, asked, base)]
    names = {one.option for one in chosen}
    for word, options in words.items():
        if not names & set(options):
            raise UserError(f"Invalid `--search`. Expected options that act beside the fixed ones. Received: {word!r}.")
    if not chosen:
        raise UserError("Nothing to search. Expected an option that --fix does not name.")
    return chosen


def _named(found: Sequence[Parameter], name: str, option: str) -> list[Parameter]:
    plain = name.removeprefix("--").replace("-", "_")
    ones = [one for one in found if plain == one.option or plain in one.option.split(".")]
    if not ones:
        valid = [one.option for one in found]
        words = [*valid, *(word for one in valid for word in one.split("."))]
        raise UserError(
            f"Invalid `{option}`. Expected options that act in this configuration: {', '.join(valid)}. "
            f"Received: {name!r}.{nearest(plain, words)}"
        )
    return ones


def _acts_in(one: Parameter, chosen: Sequence[Parameter], base: Config) -> bool:
    """Whether it acts beside the configuration's value of the option it depends on, or beside one that is searched."""
    if one.under is None:
        return True
    parent = next((other for other in chosen if other.option == one.under[0]), None)
    return any(one.under[1](v) for v in (listed(parent) if parent else (value_of(base, one.under[0]),)))


def _narrowed(one: Parameter, text: str, base: Config, found: Sequence[Parameter], facts: Facts) -> Parameter:
    like = value_of(base, one.option)
    parts = text.split(":" if isinstance(one.domain, Range) and ":" in text else ",")
    values = tuple(dict.fromkeys(_parse(one.option, part, like, text) for part in parts))
    domain: Domain = values
    if isinstance(one.domain, Range) and ":" in text:
        low = 0.0 if one.domain.log else float("-inf")
        if len(values) != 2 or not low < values[0] < values[1]:
            rule = " and above 0, for it is drawn evenly in its logarithm" if one.domain.log else ""
            raise UserError(
                f"Invalid `--search {one.option}`. Expected LOW:HIGH, the lower first{rule}. Received: {text!r}."
            )
        domain = Range(*values, one.domain.log)
    for value in values:
        _check(one, value, base, found, facts)
    return dataclasses.replace(one, domain=domain)


def _check(one: Parameter, value: Any, base: Config, found: Sequence[Parameter], facts: Facts) -> None:
    """Refuses a value that no run could have, whatever is drawn beside it. Raises UserError."""
    beside: list[dict[str, Any]] = [{}]
    parent = next((other for other in found if one.under and other.option == one.under[0]), None)
    if parent is not None and one.under is not None:
        beside = [{parent.option: v} for v in listed(parent) if one.under[1](v)]
    for others in beside:
        tried = apply(base, {one.option: value, **others})
        if (tried.uses_bert, tried.face.networks) != (base.uses_bert, base.face.networks):
            raise UserError(
                f"Invalid `--search {one.option}`. Expected branches beside the configuration's own pretrained ones "
                f"(now {label(value_of(base, one.option))}). Received: {label(value)!r}."
            )
        if tried.text.context > facts.context:
            raise UserError(
                f"Invalid `--search {one.option}`. Expected at most {facts.context}, which the data set keeps. "
                f"Received: {value}."
            )


def _parse(option: str, text: str, like: Any, whole: str) -> Any:
    """A value of the same kind as `like`, the inverse of `label`."""
    try:
        if isinstance(like, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(like, tuple):
            if text == "none":
                return ()
            return tuple(text.split("+")) if option.endswith("branches") else tuple(map(int, text.split("-")))
        return ("" if text == "none" else text) if isinstance(like, str) else type(like)(text)
    except (ValueError, KeyError):
        raise UserError(
            f"Invalid `--search {option}`. Expected values such as {label(like)}, as LOW:HIGH or A,B,C. "
            f"Received: {whole!r}."
        ) from None
