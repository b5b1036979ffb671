"""Answers questions by quoting what the passages say in answer, word for word."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

from inference.engines.digest import engine_digest
from inference.engines.protocol import EnginePrompt, EngineReply, answer_each
from inference.engines.word_evidence import compare_by_words
from inference.prompting.prompt_assembly import distinct_passages
from inference.prompting.types import Draft, Passage, Quote
from inference.scoring.answer_reader import AnswerReader, ReadCandidates
from inference.scoring.answer_units import LINED, AnswerUnit, answer_units
from inference.scoring.missing_names import (
    MissingName,
    absent_name,
    describe_missing,
    missing_names,
    names_held,
    title_names,
)
from retrieval.language.identification import NO_LANGUAGE, UNDETERMINED, detect_language, in_language_of
from retrieval.language.words import count_words
from retrieval.support.statement import content_words


class ExtractiveEncoder(Protocol):
    """An object that turns texts into unit vectors, such as `retrieval.embedding.embedder.Embedder`."""

    @property
    def digest(self) -> str:
        """What identifies the vectors."""
        ...

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the unit vectors of documents' texts: float32 of shape (texts, dimension)."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the unit vectors of questions: float32 of shape (texts, dimension)."""
        ...

    def has_words_of(self, text: str) -> bool:
        """Returns whether the model's vocabulary has the words of a text; else its vectors say little."""
        ...


class ExtractiveConfig(BaseModel):
    """The settings of the extractive engine: how sentences are chosen."""

    sentences: int = Field(default=5, ge=1)
    """The most units an answer quotes: sentences, lists, code blocks, rows of a table."""
    min_cosine: float = Field(default=0.45, ge=-1.0, le=1.0)
    """The least cosine of the question and the best sentence; below it the question is refused.

    Of the packaged model, measured on 276 questions over three texts of the chunking_evaluation set, eight
    passages each: 97.5% of questions whose text was there are answered, 3.6% of those asked of the others
    (at 0.40: 100% and 12.3%; at 0.50: 91.3% and 0.7%). It tells whether the subject is there.
    It does not tell whether a sentence on the right subject holds the answer: with the right sentences taken
    out, 89% were still answered from their neighbours. On the demo's corpus 93% of its 83 questions are
    answered and 2 of its 12 questions on other subjects."""
    min_word_share: float = Field(default=0.33, ge=0.0, le=1.0)
    """The least share of the question's words that the best sentence must hold, rare words counting more,
    where the embedder's vocabulary lacks the question's script (docs/languages.md)."""
    margin: float = Field(default=0.1, ge=0.0)
    """How far the cosine of the other sentences, or their share of words, may be below the best one's."""
    words: int = Field(default=70, ge=1)
    """The most words of all units together; the first is quoted whatever its length."""
    scorer: Path | None = None
    """Weights of a scorer of your own, by `python -m tools.scorer_training.train`; the packaged ones
    unless set."""
    min_answerability: float = -2.8
    """The least log-odds, by the scorer, that a unit holds an answer, as the mean of the three best; below it
    the question is refused. Of the packaged scorer, measured on 139 questions that the demo's lake and one of
    manuals answer and 94 about a fact that they do not have: 2% and 43% are refused. Where fewer than twelve
    units were found, `min_cosine` decides instead; of more, 0.40 is the least cosine."""
    word_price: float = Field(default=1.75, ge=0.0)
    """How much a unit's score falls with the logarithm of its words: a short one leaves room for more."""
    score_margin: float = Field(default=3.0, ge=0.0)
    """How far the score of the other units may be below the best one's."""
    passages: int = Field(default=8, ge=1)
    """How many passages are read, best first, without those that repeat a better one. Each costs the time to
    embed its sentences."""


@dataclass(frozen=True)
class _Judged:
    """What decides which units are quoted.

    Attributes:
        scores: How well each unit answers, (units,) float32; higher is better.
        vectors: Unit vectors of the units, by which repetitions are told.
        least: The least score with which a unit is quoted.
        margin: How far the score of a unit may be below the best one's.
        refused: Whether no unit answers the question.
    """

    scores: npt.NDArray[np.float32]
    vectors: npt.NDArray[np.float32]
    least: float
    margin: float
    refused: bool


class ExtractiveEngine:
    """An engine that quotes what answers the question best, word for word.

    A scorer that reads question and unit together decides. Where it was not made for the language, the
    embedder's vectors do, or words where its vocabulary was not made for the question's script. Where the
    passages are in several languages, units in the question's language come first.
    """

    name = "extractive"

    def __init__(
        self,
        encoder: ExtractiveEncoder,
        config: ExtractiveConfig | None = None,
        reader: AnswerReader | None = None,
    ) -> None:
        """Makes an engine; without a reader, the embedder's vectors decide for every question."""
        self._encoder = encoder
        self._config = config or ExtractiveConfig()
        self._reader = reader

    def rank(self, question: str, sentences: Sequence[str]) -> npt.NDArray[np.float32]:
        """Returns how well each sentence answers the question: (sentences,) float32, higher is better."""
        if self._reader and self._reader.reads(question, sentences):
            return self._reader.read(question, sentences).scores
        scores: npt.NDArray[np.float32] = (
            self._encoder.encode(sentences) @ self._encoder.encode_queries([question])[0]
        )
        return scores

    @cached_property
    def digest(self) -> str:
        """A digest of the settings, the encoder and the scorer with the model that it reads."""
        return engine_digest(self.name, self.settings_digest, self._encoder.digest)

    @cached_property
    def settings_digest(self) -> str:
        """The digest less the encoder."""
        # The weights of a scorer decide, and not where they are.
        settings = self._config.model_copy(update={"scorer": None})
        return engine_digest(self.name, settings, self._reader.digest if self._reader else "")

    def answer_many(self, prompts: Sequence[EnginePrompt]) -> Iterator[EngineReply]:
        """Yields a reply to each prompt, in order."""
        return answer_each(self, prompts)

    def answer(self, question: str, passages: Sequence[Passage]) -> Draft:
        """Quotes up to `sentences` units, or refuses when none answers the question."""
        units = [
            (index, unit)
            for index in distinct_passages(passages)[: self._config.passages]
            for unit in answer_units(passages[index].text)
        ]
        if not units:
            return Draft("The passages found hold no text.", outcome="refused")
        texts = [unit.text_of(passages[index].text) for index, unit in units]
        headings = [(passages[index].heading or "").rpartition(" > ")[2] for index, _ in units]
        usable = np.array(
            [
                _is_statement(text, question) and text != heading
                for text, heading in zip(texts, headings, strict=True)
            ]
        )
        titles, shown = [passage.title for passage in passages], [_shown(passage) for passage in passages]
        titled = title_names(question, titles, [passage.text for passage in passages])
        unit_titles = [titles[index] for index, _ in units]
        familiar = in_language_of(question, [passage.text for passage in passages])
        native = np.array([familiar[index] for index, _ in units])
        judged = self._judge(question, texts, usable & native, unit_titles, titled)
        if judged.refused and not native.all():
            judged = self._judge(question, texts, usable, unit_titles, titled)
        missing = missing_names(question, shown)
        if judged.refused or any(each.is_sibling for each in missing):
            return _refusal(missing)
        # A passage without a title is cut out of its page, and need not name what the page is about.
        best = int(judged.scores.argmax())
        found_in = passages[units[best][0]].text
        told = unit_titles[best] and self._tells_names(question) and self._tells_names(found_in)
        if told and (absent := absent_name(question, shown)):
            return _refusal(missing or [MissingName(absent, None)])
        on_subject = names_held(titled, shown)
        evidence = [
            _Evidence(
                passages[index].doc_id,
                place,
                bool(on_subject[index]),
                _asked_words(question, f"{titles[index] or ''} {text}"),
            )
            for place, ((index, _), text) in enumerate(zip(units, texts, strict=True))
        ]
        chosen = _diverse(texts, judged, evidence, self._config)
        return _quoted(passages, [units[i] for i in chosen])

    @staticmethod
    def _tells_names(text: str) -> bool:
        """Whether capitals tell names: German has them on every noun, and other languages other names."""
        return detect_language(text) in ("en", UNDETERMINED, NO_LANGUAGE)

    def _judge(
        self,
        question: str,
        texts: Sequence[str],
        usable: npt.NDArray[np.bool_],
        titles: Sequence[str | None],
        titled: Collection[str],
    ) -> _Judged:
        """Judges units; those that are not usable have the lowest score."""
        config = self._config
        if self._reader and self._reader.reads(question, texts):
            read = self._reader.read(question, texts, titles, titled)
            words = np.array([max(count_words(text), _SHORT_WORDS) for text in texts])
            scores = np.where(usable, read.scores - config.word_price * np.log(words), -np.inf)
            refused = self._finds_nothing(read, usable)
            return _Judged(scores, read.vectors, -np.inf, config.score_margin, refused)
        if self._encoder.has_words_of(question):
            vectors, least = self._encoder.encode(texts), config.min_cosine
            scores = vectors @ self._encoder.encode_queries([question])[0]
        else:
            (scores, vectors), least = compare_by_words(question, texts), config.min_word_share
        scores = np.where(usable, scores, -np.inf)
        return _Judged(scores, vectors, least, config.margin, bool(scores.max() < least))

    def _finds_nothing(self, read: ReadCandidates, usable: npt.NDArray[np.bool_]) -> bool:
        """Whether too little speaks for an answer in the units that are usable."""
        nearest, least = read.cosines.max(where=usable, initial=-np.inf), self._config.min_cosine
        if usable.sum() < _ENOUGH_UNITS:
            return bool(nearest < least)
        best = np.sort(read.answerability[usable])[-_BEST_UNITS:]
        return bool(nearest < min(least, _SUBJECT_COSINE) or best.mean() < self._config.min_answerability)


def _shown(passage: Passage) -> str:
    return " ".join(part for part in (passage.title, passage.heading, passage.text) if part)


def _refusal(missing: Sequence[MissingName]) -> Draft:
    """A refusal that says what was found instead, where the question names what was not."""
    instead = describe_missing(missing)
    told = f": {instead}" if instead else ""
    return Draft(f"Nothing found in the documents answers this question{told}.", outcome="refused")


def _quoted(passages: Sequence[Passage], chosen: Sequence[tuple[int, AnswerUnit]]) -> Draft:
    """The draft that quotes units, best first; those that are neighbours in a passage are one quote."""
    quotes: list[Quote] = []
    for index, unit in chosen:
        for start, end in unit.quoted:
            _add_quote(quotes, Quote(index, start, end), passages[index].text)
    parts = [
        f"{_as_written(passages[quote.passage].text, quote)} [{number}]"
        for number, quote in enumerate(quotes, 1)
    ]
    return Draft(_joined(parts), tuple(quotes))


def _add_quote(quotes: list[Quote], added: Quote, text: str) -> None:
    """Adds a quote, or widens the one that it overlaps or that only whitespace divides it from."""
    for place, quote in enumerate(quotes):
        first, last = sorted((quote, added), key=lambda each: each.start)
        if quote.passage == added.passage and not text[first.end : last.start].strip():
            quotes.pop(place)
            _add_quote(quotes, Quote(quote.passage, first.start, max(first.end, last.end)), text)
            # The widened one has the place of the better one.
            quotes.insert(min(place, len(quotes) - 1), quotes.pop())
            return
    quotes.append(added)


def _as_written(text: str, quote: Quote) -> str:
    """A quote's words: prose in one line, a list, a table or code in its own lines."""
    body = text[quote.start : quote.end]
    return body if LINED.search(body) else " ".join(body.split())


def _joined(parts: Sequence[str]) -> str:
    """The parts one after another; one of several lines stands apart."""
    text = ""
    for before, part in pairwise(["", *parts]):
        apart = "\n" in part or "\n" in before
        text += f"{'' if not text else chr(10) * 2 if apart else ' '}{part}"
    return text


_MIN_WORDS = 5
_SHORT_WORDS = 8
"""A unit is not better for having fewer words than this."""
_BEST_UNITS = 3
"""Units whose answerability together says whether the passages hold an answer: where one does, its neighbours
look like it, and a single high value is more often chance."""
_SUBJECT_COSINE = 0.4
"""Where no unit is nearer to the question, all are about something else, however much like answers they look:
see `min_cosine` for what it was measured on."""
_ENOUGH_UNITS = 12
"""Of fewer units answerability says too little: of BioASQ's passages, most of which are one sentence, and of
RGB's, cut out of their pages, a threshold on the best unit refused 6% and 20% of what is answered."""
_QUESTION_MARKS = ("?", "？", "؟", "՞")
_AS_GOOD = 1 / 6
"""The share of the margin below the best unit's score within which a unit is as good as that one."""
_STEM_LETTERS = 5
"""Words that begin with the same letters are forms of one word."""
_REPEATED_COSINE = 0.9
"""A sentence with a higher cosine repeats one that is chosen already."""


def _is_statement(sentence: str, question: str) -> bool:
    return (
        not sentence.endswith(_QUESTION_MARKS)
        and sentence != question
        and count_words(sentence) >= _MIN_WORDS
    )


@dataclass(frozen=True)
class _Evidence:
    """What a unit adds to those that are quoted before it.

    Attributes:
        doc_id: Its document.
        place: Its place among the units of all passages.
        on_subject: Whether its passage holds what titles name of the question.
        asked: The content words of the question that it holds, with its title.
    """

    doc_id: str
    place: int
    on_subject: bool
    asked: frozenset[str]

    def adds_to(self, chosen: Sequence["_Evidence"]) -> bool:
        """Whether it goes on from a quote, or holds words of the question that its document's quotes lack.

        Another document may say the same in support, if it is on the best unit's subject.
        """
        same = [each for each in chosen if each.doc_id == self.doc_id]
        if same:
            goes_on = any(abs(each.place - self.place) == 1 for each in same)
            return goes_on or not self.asked <= frozenset[str]().union(*(each.asked for each in same))
        return self.on_subject >= chosen[0].on_subject


def _asked_words(question: str, text: str) -> frozenset[str]:
    asked, held = ({word[:_STEM_LETTERS] for word in content_words(each)} for each in (question, text))
    return frozenset(asked & held)


def _diverse(
    texts: Sequence[str], judged: _Judged, evidence: Sequence[_Evidence], config: ExtractiveConfig
) -> list[int]:
    """Returns the indices of the best units, best first, within the budget.

    Those that repeat another are left out, and those that add nothing unless they are as good as the best.
    """
    best = float(judged.scores.max())
    floor = max(judged.least, best - judged.margin)
    chosen: list[int] = []
    words = 0
    for i in np.argsort(-judged.scores, kind="stable"):
        if judged.scores[i] < floor or judged.scores[i] == -np.inf or len(chosen) == config.sentences:
            break
        length = count_words(texts[i])
        if chosen and words + length > config.words:
            continue
        as_good = best - judged.scores[i] <= _AS_GOOD * judged.margin
        if chosen and not as_good and not evidence[i].adds_to([evidence[j] for j in chosen]):
            continue
        if all(float(judged.vectors[i] @ judged.vectors[j]) < _REPEATED_COSINE for j in chosen):
            chosen.append(int(i))
            words += length
    return chosen
