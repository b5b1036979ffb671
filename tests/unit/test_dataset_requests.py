"""Training sets that are asked for, and the files of a user's own examples: a bad line is named."""

from pathlib import Path

import pytest

from training.datasets.requests import (
    DatasetRequest,
    DatasetRequests,
    InvalidDatasetRequest,
    InvalidExamples,
    read_examples,
)
from training.datasets.training_set import UnknownDataset

GOOD = '{"question": "What is it?", "answer": "A lake."}\n'


def written(folder: Path, text: str | bytes) -> Path:
    file = folder / "mine.jsonl"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_a_training_set_is_asked_for_once_and_keeps_its_tenant(tmp_path: Path) -> None:
    requests = DatasetRequests(tmp_path / "datasets")
    assert requests.tenants == []
    assert requests.add("manuals") == DatasetRequest("manuals", "default")
    assert requests.add("acme-1", "acme") == requests.add("acme-1") == DatasetRequest("acme-1", "acme")
    assert requests.tenants == ["acme", "default"]
    with pytest.raises(InvalidDatasetRequest, match="of the tenant 'acme'"):
        requests.add("acme-1", "other")
    for name in ("", "../x", "a@b", "a" * 65, "ä"):
        with pytest.raises(InvalidDatasetRequest, match="letters"):
            requests.add(name)


def test_own_examples_are_of_the_tenant_and_are_kept_private(tmp_path: Path) -> None:
    requests = DatasetRequests(tmp_path / "datasets")
    pair = '{"question": "where?", "positive": "Here.", "negatives": ["There."]}'
    before = requests.digest
    requests.add("acme", "acme", written(tmp_path, GOOD + "\n" + pair))
    assert requests.digest != before
    assert requests.examples().to_pylist() == [
        {
            "tenant": "acme",
            "kind": "instruction",
            "question": "What is it?",
            "positive": "A lake.",
            "negatives": [],
        },
        {
            "tenant": "acme",
            "kind": "retrieval_pair",
            "question": "where?",
            "positive": "Here.",
            "negatives": ["There."],
        },
    ]
    requests.add("acme")
    assert len(requests.examples()) == 2, "asking again without a file keeps them"


def test_a_training_set_is_removed_with_all_that_is_kept_of_it(tmp_path: Path) -> None:
    requests = DatasetRequests(tmp_path / "datasets")
    requests.add("acme", "acme", written(tmp_path, GOOD))
    requests.add("other")
    with pytest.raises(UnknownDataset, match="there are: acme, other"):
        requests.remove("../acme")
    with pytest.raises(UnknownDataset):
        requests.remove("acme@ffff")
    assert requests.remove("acme") == []
    assert [each.name for each in requests.all()] == ["other"]
    assert not (tmp_path / "datasets" / "acme").exists()
    assert len(requests.examples()) == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not JSON"),
        ("[]", "no JSON object"),
        ('"text"', "no JSON object"),
        ('{"question": "What?"}', 'either an "answer" or a "positive"'),
        ('{"question": "What?", "answer": "A", "positive": "B"}', 'either an "answer" or a "positive"'),
        ('{"question": "What?", "answer": "A", "negatives": ["B"]}', '"negatives" are for'),
        ('{"question": " ", "answer": "A"}', "question: it is blank"),
        ('{"question": "What?", "answer": 3}', "answer: Input should be a valid string"),
        ('{"question": "What?", "answer": "\\ud800"}', "unicode string"),
        ('{"question": "What?", "answer": "A", "prompt": "B"}', "prompt: Extra inputs"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_changed(tmp_path: Path, line: str, said: str) -> None:
    requests = DatasetRequests(tmp_path / "datasets")
    requests.add("mine", examples=written(tmp_path, GOOD))
    with pytest.raises(InvalidExamples, match=r"mine\.jsonl, line 3: ") as raised:
        requests.add("mine", examples=written(tmp_path, GOOD + "\n" + line))
    assert said in str(raised.value)
    assert len(requests.examples()) == 1


def test_bytes_that_are_no_text_and_files_that_hold_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidExamples, match="line 1: not JSON"):
        read_examples(written(tmp_path, b'{"question": "\xff"}'))
    with pytest.raises(InvalidExamples, match="holds no example"):
        read_examples(written(tmp_path, "\n\n"))
    with pytest.raises(InvalidExamples, match="can not be read"):
        read_examples(tmp_path / "absent.jsonl")
