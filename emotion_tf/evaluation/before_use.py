"""What users must know before they use a model: the text of reports, model cards and docs/before_you_use.md."""

from __future__ import annotations

TITLE = "Before you use this"
BEFORE_USE = (
    (
        "What the labels mean",
        "A label is the emotion that annotators perceived in a recording, not what the person felt. MELD shows actors "
        "of one comedy series, who act to be understood, and its three annotators often disagreed (Fleiss' kappa "
        "0.43, Poria 2019). A probability estimates how likely such annotators choose a label. It does not measure "
        "what a person feels.",
    ),
    (
        "Who is missing",
        "Six white American adults speak 83 % of MELD's training utterances. It has hardly any children, old people, "
        "other accents, languages or skin tones, or people whose faces move differently. The reported numbers do not "
        "hold for people who are not in the data.",
    ),
    (
        "What the law forbids",
        "Since 2 February 2025 the EU forbids systems that infer the emotions of people at work or in education from "
        "faces or other biometric data, except for medical or safety reasons (AI Act, Regulation (EU) 2024/1689, "
        "Article 5 (1) (f)). For other purposes such a system is high-risk (Annex III, 1 (c)), and the people "
        "concerned must be informed (Article 50 (3)). Other countries have other laws. This is not legal advice.",
    ),
    (
        "What it is not for",
        "Do not use it for decisions about a person, such as whom to hire, grade, insure, watch or believe.",
    ),
)


def markdown() -> str:
    """Returns the text as a Markdown list, without its title."""
    return "\n".join(f"- **{title}.** {text}" for title, text in BEFORE_USE)
