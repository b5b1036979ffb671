"""Questions that ask the same in other words or signs are found, quickly, and from hashes alone."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.alike import alike_to, clusters, fingerprints, questions_alike_to

OTHERS = [
    "How long are access logs kept before they are removed?",
    "Which service renews the certificates of the mail gateway?",
    "Why does the nightly export of invoices fail on Sundays?",
]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is the default port?", "What's the default port?"),
        ("What is the default port of PostgreSQL?", "what is the   default port of PostgreSQL"),
        ("May the limit be raised?", "Can the limit be raised?"),
        ("How may I rotate a signing key?", "How can I rotate a signing key?"),
        ("Wie lautet der Standardport des Servers?", "Wie lautet denn der Standard-Port des Servers?"),
    ],
)
def test_near_duplicates_are_one_cluster_and_known_by_their_fingerprints(one: str, other: str) -> None:
    labels = clusters([one, *OTHERS, other])
    assert labels[0] == labels[-1]
    assert len({*labels}) == 1 + len(OTHERS)
    assert fingerprints([one, *OTHERS]).holds([other, "Who may open the archive of contracts?"]).tolist() == [
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Describe PWMScan", "What is PWMScan?"),
        ("Which receptor is inhibited by bimagrumab?", "Which receptors does bimagrumab block?"),
        ("BCL-2 promotes the apoptotic effects of c-Myc.",
         "BCL-2 activation antagonizes the apoptotic effects of c-Myc."),
    ],
)  # fmt: skip
def test_what_asks_the_same_in_other_words_is_found_by_vectors(one: str, other: str) -> None:
    asked = [one, *OTHERS, other, "What is error 125?", "What is error 126?"]
    labels = clusters(asked)
    assert labels[0] == labels[4]
    assert len({*labels[:4]}) == 4
    chosen = np.arange(len(asked)) == 4
    assert questions_alike_to(asked, chosen).tolist() == [True, False, False, False, True, False, False]


def test_a_template_that_all_prompts_have_makes_none_of_them_alike() -> None:
    template = "You answer from the passages below, and cite each by its number. Answer in one sentence. "
    asked = [f"{template}Question: {each}" for each in OTHERS]
    subjects = ["ledger", "harbour", "glacier", "violin", "turbine", "orchard", "comet", "saddle", "lantern"]
    asked += [f"{template}Question: Who built the {each}?" for each in subjects]
    assert len({*clusters(asked)}) == len(asked)
    learned = fingerprints(asked[:-1])
    assert not learned.holds(asked[-1:]).any()
    assert learned.holds(asked[:1]).all()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=40), max_size=12))
def test_any_texts_have_clusters_that_their_order_does_not_change(texts: list[str]) -> None:
    labels, turned = clusters(texts), clusters(texts[::-1])[::-1]
    assert len(labels) == len(texts)
    for one in range(len(texts)):
        for other in range(len(texts)):
            assert (labels[one] == labels[other]) == (turned[one] == turned[other])
    assert fingerprints(texts).holds(texts).all()


def test_many_questions_take_no_square_of_the_time() -> None:
    random = np.random.default_rng(0)
    letters = np.array([*"abcdefghijklmnopqrstuvwxyz"])
    words = np.array(["".join(each) for each in letters[random.integers(26, size=(4000, 7))]])
    asked = [" ".join(each) for each in words[random.integers(4000, size=(30_000, 8))]]
    began = time.process_time()
    repeated = [*asked, *(f"{each}!" for each in asked[:100])]
    assert alike_to(repeated, np.arange(len(repeated)) < 100).sum() == 200
    assert fingerprints(asked).holds([f"{each} now" for each in asked[:1000]]).all()
    assert time.process_time() - began < 60
