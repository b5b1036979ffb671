"""Questions made from documents that nobody asked about, so that an embedder learns more of them."""

import hashlib
from collections.abc import Mapping

from quality.evaluation.beir_collection import BeirDocument
from retrieval.chunking.sentences import sentence_spans

_FEWEST_WORDS = 6
_MOST_WORDS = 40


def document_questions(documents: Mapping[str, BeirDocument], limit: int) -> list[tuple[str, str]]:
    """Returns a question for each of some documents: its title, or a sentence of it, by turns.

    A sentence stands for a claim, a title for a short question: one kind alone is known to harm. A hash of
    the id decides which documents are taken and which sentence, so the same documents give the same
    questions.

    Args:
        documents: The documents by id.
        limit: The most questions.

    Returns:
        Pairs of a document's id and the question.
    """
    hashes = {key: hashlib.sha256(key.encode()).digest() for key in documents}
    made: list[tuple[str, str]] = []
    for key in sorted(documents, key=hashes.__getitem__):
        if len(made) >= limit:
            break
        document = documents[key]
        title = " ".join(document.title.split())
        sentences = [
            " ".join(document.text[start:end].split()) for start, end in sentence_spans(document.text)
        ]
        usable = [each for each in sentences if _FEWEST_WORDS <= len(each.split()) <= _MOST_WORDS]
        sentence = usable[int.from_bytes(hashes[key][:4], "big") % len(usable)] if usable else ""
        question = (title or sentence) if len(made) % 3 == 0 else (sentence or title)
        if question:
            made.append((key, question))
    return made
