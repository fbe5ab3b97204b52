"""What users must know before they use a model: the text of reports, model cards and docs/before_you_use.md."""

from __future__ import annotations

TITLE = "Before you use this"
BEFORE_USE = (
    (
        "What the labels are",
        "A label is the emotion that annotators perceived in a recording, not what the person felt. MELD's are of "
        "actors in one comedy show, who play so as to be understood, and its three annotators often disagreed (Fleiss' "
        "kappa 0.43, Poria 2019). A probability says how likely such annotators would choose a label; it does not say "
        "how sure one can be of a feeling.",
    ),
    (
        "Who is missing",
        "Six white American adults speak 83 % of MELD's training utterances. There are hardly any children, old "
        "people, other accents, languages or skin tones, or faces that move otherwise. For people of whom a data set "
        "has no examples its numbers say nothing.",
    ),
    (
        "Where the law limits it",
        "In the EU it is forbidden to infer the emotions of people at work or in education from their faces or other "
        "biometric data, but for medical or safety reasons (AI Act, Regulation (EU) 2024/1689, Article 5 (1) (f), "
        "since 2 February 2025). For other purposes such a system is high-risk (Annex III, 1 (c)), and people must be "
        "told of it (Article 50 (3)). Other places have laws of their own; this is no legal advice.",
    ),
    (
        "What it is not for",
        "Decide nothing about a person by it: not who is hired, graded, insured, watched or believed.",
    ),
)


def markdown() -> str:
    """The text as a list, without its title."""
    return "\n".join(f"- **{title}.** {text}" for title, text in BEFORE_USE)
