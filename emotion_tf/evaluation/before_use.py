"""What users must know before they use a model: the text of reports, model cards and docs/before_you_use.md."""

from __future__ import annotations

from emotion_tf.run_info import Corpus

TITLE = "Before you use this"
LABELS: dict[Corpus, str] = {
    "meld": (
        "A label is the emotion that annotators perceived in a recording, not what the person felt. MELD shows actors "
        "of one comedy series, who act to be understood, and its three annotators often disagreed (Fleiss' kappa "
        "0.43, Poria 2019). A probability estimates how likely such annotators choose a label. It does not measure "
        "what a person feels."
    ),
    "demo": (
        "The demo data set is drawn by this program: a label is the emotion that its generator drew. High scores say "
        "that the program works, not how it does on people."
    ),
    "": (
        "A label is the emotion that annotators perceived, not what the person felt. A probability estimates how "
        "likely such annotators choose a label. It does not measure what a person feels."
    ),
}
"""Corpus -> what its labels mean."""
MISSING: dict[Corpus, str] = {
    "meld": (
        "Six white American adults speak 83 % of MELD's training utterances. It has hardly any children, old people, "
        "other accents, languages or skin tones, or people whose faces move differently. The reported numbers do not "
        "hold for people who are not in the data."
    ),
    "demo": (
        "Everybody: the faces are drawings, and the utterances come from a small grammar. The reported numbers hold "
        "for no person."
    ),
    "": (
        "The reported numbers do not hold for people who are not in the data, such as those of other ages, accents, "
        "languages or skin tones, or whose faces move differently."
    ),
}
"""Corpus -> whom its numbers leave out."""
LAW = (
    "Since 2 February 2025 the EU forbids systems that infer the emotions of people at work or in education from "
    "faces or other biometric data, except for medical or safety reasons (AI Act, Regulation (EU) 2024/1689, "
    "Article 5 (1) (f)). For other purposes such a system is high-risk (Annex III, 1 (c)), and the people "
    "concerned must be informed (Article 50 (3)). Other countries have other laws. This is not legal advice."
)
DECISIONS = "Do not use it for decisions about a person, such as whom to hire, grade, insure, watch or believe."


def before_use(corpus: Corpus) -> tuple[tuple[str, str], ...]:
    """Returns titles and paragraphs for a model that was trained on a corpus."""
    return (
        ("What the labels mean", LABELS[corpus]),
        ("Who is missing", MISSING[corpus]),
        ("What the law forbids", LAW),
        ("What it is not for", DECISIONS),
    )


def markdown(corpus: Corpus) -> str:
    """Returns the text as a Markdown list, without its title."""
    return "\n".join(f"- **{title}.** {text}" for title, text in before_use(corpus))
