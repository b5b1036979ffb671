"""Questions from MedQuAD with the sentences of their document, and cloze questions from its sentences.

Ben Abacha and Demner-Fushman, "A Question-Entailment Approach to Question Answering" (2019), CC BY 4.0.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from retrieval.chunking.sentences import sentence_spans
from tools.scorer_training.synthetic_facts import AskedFact

_FORMS = {
    "information": ("What is {s}?", "What is (are) {s} ?", "{s}", "Describe {s}."),
    "symptoms": (
        "What are the symptoms of {s} ?",
        "How does {s} present?",
        "List the signs of {s}.",
        "What are the clinical features of {s}?",
    ),
    "treatment": (
        "What are the treatments for {s} ?",
        "How is {s} treated?",
        "Which drugs are used for {s}?",
        "What is the therapy of {s}?",
    ),
    "inheritance": (
        "Is {s} inherited ?",
        "How is {s} inherited?",
        "What is the mode of inheritance of {s}?",
        "Is {s} autosomal dominant?",
    ),
    "frequency": (
        "How many people are affected by {s} ?",
        "How common is {s}?",
        "What is the prevalence of {s}?",
        "What is the incidence of {s}?",
    ),
    "genetic changes": (
        "What are the genetic changes related to {s} ?",
        "Which gene is mutated in {s}?",
        "Mutations in which gene cause {s}?",
        "Which genes are associated with {s}?",
    ),
    "causes": ("What causes {s} ?", "What is the cause of {s}?", "Why does {s} happen?"),
    "exams and tests": (
        "How to diagnose {s} ?",
        "How is {s} diagnosed?",
        "Which test is used to detect {s}?",
    ),
    "outlook": (
        "What is the outlook for {s} ?",
        "What is the prognosis of {s}?",
        "What is the life expectancy with {s}?",
    ),
    "susceptibility": ("Who is at risk for {s}? ?", "What are the risk factors of {s}?", "Who gets {s}?"),
    "prevention": ("How to prevent {s} ?", "How can {s} be prevented?"),
    "complications": ("What are the complications of {s} ?", "What problems can {s} cause?"),
    "stages": ("What are the stages of {s} ?",),
    "research": ("what research (or clinical trials) is being done for {s} ?",),
}
_SHORT = {"inheritance", "frequency", "genetic changes", "causes", "treatment", "outlook"}
_BOILERPLATE = re.compile(
    r"These resources|Genetic Testing Registry|MedlinePlus|Human Phenotype Ontology|Key Points|Click here|"
    r"HPO|http|This section is currently|Frequency of|Signs and Symptoms|we have not found",
    re.I,
)
_LEAST_CHARS, _MOST_CHARS = 25, 400
_ANSWER_SENTENCES = 2
"""The sentences that begin an answer answer its question; those after it wander off."""


@dataclass(frozen=True)
class MedQuadDocument:
    """A document: its subject, and the sentences that answer each type of question."""

    subject: str
    sections: tuple[tuple[str, str, tuple[str, ...]], ...]
    """`(type of question, question, sentences of the answer)`."""


def read_medquad(folder: Path) -> list[MedQuadDocument]:
    """Returns the documents of an unpacked MedQuAD that have at least two answered questions, in order."""
    documents = []
    for path in sorted(folder.rglob("*.xml")):
        root = ElementTree.parse(path).getroot()  # noqa: S314 - a data set that the trainer names
        subject = " ".join((root.findtext("Focus") or "").split())
        sections = []
        for pair in root.iter("QAPair"):
            question = pair.find("Question")
            answer = pair.findtext("Answer") or ""
            if question is None or not question.text or not subject:
                continue
            kept = tuple(_sentences(answer))
            if kept:
                sections.append((question.get("qtype", ""), question.text.strip(), kept))
        if len(sections) > 1:
            documents.append(MedQuadDocument(subject, tuple(sections)))
    return documents


def _sentences(answer: str) -> Iterator[str]:
    for start, end in sentence_spans(answer):
        sentence = " ".join(answer[start:end].split())
        if _LEAST_CHARS <= len(sentence) <= _MOST_CHARS and not _BOILERPLATE.search(sentence):
            yield sentence


def ask_section(documents: Sequence[MedQuadDocument], rng: random.Random) -> AskedFact:
    """Returns a question of a document, with its answer's sentences and those of its neighbours."""
    document, stranger = rng.choice(documents), rng.choice(documents)
    kind, question, sentences = rng.choice(document.sections)
    if rng.random() < 0.6 and kind in _FORMS:
        question = rng.choice(_FORMS[kind]).format(s=document.subject)
    answering = sentences[: (4 if kind in _SHORT else _ANSWER_SENTENCES)]
    if kind == "genetic changes":
        answering = tuple(each for each in answering if re.search(r"\b[A-Z0-9]{3,}\b", each))
    if kind == "frequency":
        answering = tuple(each for each in answering if re.search(r"\d|unknown|rare|common", each))
    rest = [each for other, _, text in document.sections if other != kind for each in text[:6]]
    same = [each for other, _, text in stranger.sections if other == kind for each in text[:2]]
    answering = tuple(rng.sample(answering, min(2, len(answering))))
    if rng.random() < 0.25:
        answering = ()
    other = rng.sample(rest, min(4, len(rest))) + rng.sample(same, min(2, len(same)))
    return _prefixed(AskedFact(question, answering, tuple(other)), document.subject, rng)


_NUMBER = re.compile(
    r"\b(?:about |nearly |approximately )?\d[\d,.]*(?: in \d[\d,]*| percent|%| million| billion)?\b(?! ?[-–])"
)
_YEAR = re.compile(r"\b(?:in |since |by )?(?:1[6-9]|20)\d\d\b")
_NAMES = re.compile(r"(?<=[a-z,] )(?:[A-Z][\w-]+)(?: (?:of |de |the )?[A-Z][\w-]+){0,4}")
_VERBS = (
    "is are was were has have can may cause causes provide provides help helps affect affects occur occurs "
    "contain contains include includes use uses return returns support supports"
).replace(" ", "|")
_SUBJECT = re.compile(rf"^((?:The |A |An )?[\w-]+(?: [\w-]+){{0,3}}?) ({_VERBS})\b (.+)$")


def ask_cloze(sentences: Sequence[str], rng: random.Random, tries: int = 8) -> AskedFact | None:
    """Returns a question for a phrase of a sentence of a document, or None if no sentence has one to ask for.

    The phrase gives way to a question word, as in Lewis et al., "Unsupervised Question Answering by Cloze
    Translation" (2019). The other sentences of the document do not answer; neither does the sentence without
    the phrase.
    """
    for _ in range(tries):
        place = rng.randrange(len(sentences))
        sentence = sentences[place]
        asked = _cloze(sentence, rng)
        if asked is None:
            continue
        question, phrase = asked
        near = [each for each in sentences if each != sentence and phrase not in each]
        other = rng.sample(near, min(4, len(near)))
        without = " ".join(sentence.replace(phrase, " ").split())
        if len(without) >= _LEAST_CHARS:
            other.append(without)
        return AskedFact(question, (sentence,) if rng.random() < 0.75 else (), tuple(other))
    return None


def _cloze(sentence: str, rng: random.Random) -> tuple[str, str] | None:
    found = [
        (match, words)
        for pattern, words in (
            (_YEAR, ("when", "in which year", "what year")),
            (_NUMBER, ("how many", "how much", "what number")),
            (_NAMES, ("who", "what", "which", "where", "which name")),
        )
        for match in pattern.finditer(sentence)
    ]
    if found and rng.random() < 0.8:
        match, words = rng.choice(found)
        before, after = sentence[: match.start()].split(), sentence[match.end() :].rstrip(". ").split()
        kept = _shortened(before[-rng.randint(3, 10) :], after[: rng.randint(2, 10)], rng)
        return f"{rng.choice(words).capitalize()} {kept}?", match[0]
    stated = _SUBJECT.match(sentence)
    if stated is None:
        return None
    rest = stated[3].rstrip(". ").split()
    return (
        f"{rng.choice(['What', 'Which', 'What'])} {stated[2]} {' '.join(rest[: rng.randint(4, 14)])}?",
        stated[1],
    )


def _shortened(before: list[str], after: list[str], rng: random.Random) -> str:
    """The words around the phrase as a question has them: some are left out, and their order is not kept."""
    parts = [" ".join(before), " ".join(after)]
    if rng.random() < 0.5:
        parts.reverse()
    words = " ".join(part for part in parts if part).split()
    return " ".join(word for word in words if rng.random() > 0.15)


def _prefixed(asked: AskedFact, subject: str, rng: random.Random) -> AskedFact:
    """Sentences with their document's subject before them, as an engine that knows titles reads them."""
    if rng.random() < 0.5:
        return asked
    return AskedFact(
        asked.question,
        tuple(f"{subject}: {each}" for each in asked.answering),
        tuple(f"{subject}: {each}" for each in asked.other),
    )
