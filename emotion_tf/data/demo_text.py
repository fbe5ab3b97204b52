"""The grammar of the demo data set: templates with slots, one list of templates for each kind of text.

The name of a kind lists the emotions that it is compatible with, joined by `|`: `joy` determines joy, `anger|disgust`
leaves two emotions. `echo` is an answer ("Yes, my feeling too, Tavo.") with the emotion of the previous speaker. Within
a kind, the text does not depend on the emotion, so the kind is the only information in a text.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

ECHO = "echo"
SPLITS = ("train", "dev", "test")
SPLIT_SHARES = (0.7, 0.1, 0.2)
_SPLIT_ENDS = tuple(itertools.accumulate(SPLIT_SHARES))[:-1]


def _words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


SPEAKERS = _words(
    "Adro, Belis, Corin, Delva, Elvan, Farin, Gisa, Hobin, Ilka, Jorin, Kessa, Lunet, "
    "Mirel, Nevio, Oskan, Pirra, Quill, Rovan, Selka, Tavo, Ulma, Vesna, Wendo, Yorik"
)


# `name` is a person outside the dialogue, `addressee` the previous speaker; both are bound when a text is drawn.
SLOTS: dict[str, tuple[str, ...]] = {
    "name": SPEAKERS,
    "addressee": SPEAKERS,
    "degree": _words("so, really, very, truly, quite"),
    "thing": _words(
        "the party, the letter, the new job, the exam, the trip, the wedding, the phone call, the house, "
        "the game, the concert, the meeting, the photo, the dinner, the story, the answer, the show"
    ),
    "place": _words(
        "the station, the office, the library, the market, the school, the harbour, the museum, "
        "the bakery, the bridge, the park, the bank, the clinic"
    ),
    "when": _words("tonight, tomorrow, on Monday, on Friday, after lunch, at noon, at six, next week"),
    "joy_adj": _words("happy, glad, delighted, thrilled, cheerful, overjoyed, grateful, excited, proud"),
    "joy_eval": _words("wonderful, lovely, fantastic, perfect, marvellous, splendid"),
    "joy_cry": _words("hooray, yay, yippee, hurrah, lucky us"),
    "joy_verb": _words("love, adore, enjoy, cherish"),
    "surprise_adj": _words("surprised, astonished, amazed, stunned, startled, speechless, astounded, baffled"),
    "surprise_eval": _words("unexpected, unbelievable, incredible, astonishing, amazing, sudden"),
    "surprise_cry": _words("wow, whoa, my goodness, no way, good heavens"),
    "surprise_verb": _words("guessed, imagined, foreseen"),
    "anger_adj": _words("angry, furious, mad, annoyed, outraged, irritated, livid, enraged"),
    "anger_eval": _words("unfair, outrageous, infuriating, annoying, insulting, rude"),
    "anger_cry": _words("damn it, enough, how dare you, shut up, stop it"),
    "anger_verb": _words("ruined, wrecked, spoiled, sabotaged"),
    "sadness_adj": _words("sad, unhappy, heartbroken, miserable, lonely, depressed, gloomy, tearful"),
    "sadness_eval": _words("heartbreaking, tragic, depressing, painful, hopeless, a terrible loss"),
    "sadness_cry": _words("alas, oh dear, poor me, what a pity, sadly"),
    "sadness_verb": _words("miss, mourn, cry over"),
    "disgust_adj": _words("disgusted, sickened, revolted, nauseated, grossed out, queasy"),
    "disgust_eval": _words("disgusting, gross, revolting, nasty, filthy, rotten"),
    "disgust_cry": _words("yuck, ew, ugh, bleh"),
    "food": _words("soup, cheese, fish, milk, sauce, meat"),
    "fear_adj": _words("afraid, scared, terrified, frightened, worried, nervous"),
    "fear_eval": _words("terrifying, scary, frightening, dangerous, creepy"),
    "fear_cry": _words("help, oh no, run, watch out"),
    "fear_verb": _words("dread, fear"),
    "plan": _words("meet, call, visit, pick up, wait for, write to"),
    "errand": _words("the tickets, the keys, the forms, the boxes, the bread, the papers, the chairs, the stamps"),
    "hour": _words("seven, eight, nine, ten, eleven, twelve"),
    "deed": _words("say, do, plan, choose, sign, write"),
    "gesture": _words("a gift, a speech, a visit, a song, an apology, a cheque, a kiss, a proposal"),
    "room": _words("kitchen, bathroom, sofa, fridge, garden"),
    "mess": _words("socks, dishes, towels, leftovers, boots, crumbs"),
    "relative": _words("grandpa, my aunt, your father, her brother, my cousin, the baby, your uncle, my sister"),
    "caller": _words("doctor, lawyer, nurse, surgeon, teacher, measure_contribution, landlord, officer"),
    "motion": _words("moving, breathing, glowing, crawling, dripping, twitching, hissing, wriggling"),
    "cover": _words("bed, table, blanket, stairs, sink, floor, cupboard, lamp"),
    "city": _words("Lisbon, Oslo, Dublin, Prague, Vienna, Athens, Madrid, Cairo"),
    "last": _words("day, evening, lesson, walk, summer, rehearsal, breakfast, dance"),
    "yes": _words("yes, right, true, sure, yeah, indeed, of course, exactly, agreed, absolutely"),
    "agree": _words(
        "my feeling too, same here, me too, I feel the same, that is my view, I am with you, you speak for me, "
        "so do I, likewise, you took my words, I think so too, so it is with me"
    ),
    "tail": _words("as you say, like you, no less, word for word, all the way, every bit, as ever, believe me"),
}

_EMOTION_TEMPLATES = (
    "I am {degree} {E_adj} about {thing}.",
    "{thing} makes me {degree} {E_adj}.",
    "{E_cry}, {thing} at {place} is {E_eval}!",
    "{name} said {thing} was {degree} {E_eval}, and I am {E_adj}.",
)


def _with_emotion(emotion: str, *own: str) -> tuple[str, ...]:
    return tuple(template.replace("{E_", "{" + emotion + "_") for template in (*_EMOTION_TEMPLATES, *own))


TEMPLATES: dict[str, tuple[str, ...]] = {
    "neutral": (
        "I will {plan} {name} at {place} {when}.",
        "The bus to {place} leaves at {hour}.",
        "{name} put {errand} on the desk at {place}.",
        "Could you take {errand} to {place} {when}?",
        "{thing} starts at {hour}, and {name} brings {errand}.",
        "The shop near {place} opens at {hour}.",
        "Please hand {errand} to {name} at {hour}.",
    ),
    "joy": _with_emotion("joy", "I {joy_verb} {thing}, it is {joy_eval}!", "{joy_cry}, {name} got {thing}!"),
    "surprise": _with_emotion(
        "surprise", "{surprise_cry}, is that {name} at {place}?", "I never would have {surprise_verb} {thing}!"
    ),
    "anger": _with_emotion(
        "anger", "{anger_cry}, {name} {anger_verb} {thing}!", "You {anger_verb} {thing}, I am {anger_adj}!"
    ),
    "sadness": _with_emotion(
        "sadness",
        "{sadness_cry}, I {sadness_verb} {name} every day.",
        "I {sadness_verb} {thing}, it is {sadness_eval}.",
    ),
    "disgust": _with_emotion(
        "disgust",
        "{disgust_cry}, the {food} at {place} is {disgust_eval}.",
        "This {food} smells {degree} {disgust_eval}.",
    ),
    "fear": _with_emotion(
        "fear", "{fear_cry}, {name} is in danger at {place}!", "I {fear_verb} {thing}, it is {fear_eval}."
    ),
    "joy|surprise|anger": (
        "I did not expect {gesture} from {name} {when}.",
        "So {name} gave you {gesture} at {place}.",
        "Nobody told me what {name} would {deed} {when}.",
        "You let {name} {deed} it without me?",
        "After all these years, {gesture} from {name}.",
    ),
    "anger|disgust": (
        "{name} left {mess} in the {room} again.",
        "Look at the {mess} on your {room}.",
        "Who put {mess} and {food} in the {room}?",
        "{name} never cleans the {mess} out of the {room}.",
        "There are {mess} in my {food}, {name} did that.",
    ),
    "neutral|sadness|fear": (
        "The {caller} called about {relative} from {place}.",
        "{relative} has not come back from {place}.",
        "We must wait for the {caller} until {hour}.",
        "{name} took {relative} to the {caller} at {hour}.",
        "The {caller} wants to talk about {relative} {when}.",
    ),
    "surprise|disgust|fear": (
        "Something is {motion} under the {cover}.",
        "What is that {motion} behind the {cover} at {place}?",
        "{name} found something {motion} near the {cover}.",
        "Do you hear it {motion} below the {cover}, near {place}?",
    ),
    "neutral|joy|sadness": (
        "{name} is moving to {city} {when}.",
        "This was our last {last} in {city}.",
        "{relative} goes home to {city} {when}.",
        "One more {last} with {name}, then {city}.",
    ),
    ECHO: (
        "{yes}, {agree}, {addressee}.",
        "{yes}, {addressee}, {agree}, {tail}.",
        "{agree}, {addressee}, {tail}.",
        "{yes}, I agree with {addressee}, {tail}.",
    ),
}

_SLOT = re.compile(r"{(\w+)}")


def combinations(kind: str, people: int = 20) -> int:
    """Returns the number of texts of a `kind`, given the number of free names."""
    free = {"name": people, "addressee": people}
    sizes = ([free.get(slot, len(SLOTS[slot])) for slot in _SLOT.findall(template)] for template in TEMPLATES[kind])
    return sum(math.prod(size) for size in sizes)


def render(template: str, words: Sequence[str]) -> str:
    """Fills the slots of a template from left to right and capitalises the first letter."""
    rest = iter(words)
    text = _SLOT.sub(lambda _: next(rest), template)
    return text[0].upper() + text[1:]


def split_of(text: str) -> str:
    """Returns the split of a text, a function of the text alone, so that no two splits share a text."""
    digest = hashlib.blake2b(text.lower().encode(), digest_size=8).digest()
    return SPLITS[bisect.bisect_right(_SPLIT_ENDS, int.from_bytes(digest, "big") / 2**64)]


@dataclass
class TextSource:
    """Draws the texts of a split without repetition."""

    split: str
    rng: np.random.Generator
    used: set[str] = field(default_factory=set)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def draw(self, kind: str, cast: Sequence[str], addressee: str) -> tuple[str, str, tuple[str, ...]] | None:
        """Draws a new text.

        Args:
            kind: a key of `TEMPLATES`.
            cast: the speakers of the dialogue, who are not used for the slot `name`.
            addressee: the previous speaker.

        Returns:
            The text, its template and the words in its slots; None if the grammar is nearly exhausted.
        """
        bound = {"name": [name for name in SPEAKERS if name not in cast], "addressee": [addressee]}
        for _ in range(5000):
            template = TEMPLATES[kind][int(self.rng.integers(len(TEMPLATES[kind])))]
            slots = _SLOT.findall(template)
            words = tuple(self._pick(slot, bound.get(slot) or SLOTS[slot]) for slot in slots)
            text = render(template, words)
            if text not in self.used and split_of(text) == self.split:
                self.used.add(text)
                self.counts.update(zip(slots, words, strict=True))
                return text, template, words
        return None

    def _pick(self, slot: str, words: Sequence[str]) -> str:
        """Draws two words and returns the less frequent one, which equalises the frequencies of a slot's words."""
        first, second = (words[int(number)] for number in self.rng.integers(len(words), size=2))
        return min(first, second, key=lambda word: self.counts[slot, word])
