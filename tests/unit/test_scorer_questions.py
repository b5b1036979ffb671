"""Questions from documentation that the answer scorer is trained on."""

import hashlib
import random
import re
from pathlib import Path

import pytest

from tools.scorer_training import documentation_questions
from tools.scorer_training.documentation_questions import (
    ChangedDocumentation,
    ask_heading,
    read_documentation,
)

METADATA = """Metadata-Version: 2.4
Name: kestrel

# kestrel :rocket:

Kestrel is a library that flies small planes.

## Can it land on water?

It lands on water where `floats=True` is given. Without floats it [sinks](https://example.org/sinks).

```
kestrel.land(floats=True)
```

Installation
------------

- Install Kestrel with the package manager of your choice.

    pip install kestrel
"""


def test_the_sentences_below_a_heading_answer_it_and_others_do_not(tmp_path: Path) -> None:
    (tmp_path / "kestrel.dist-info").mkdir()
    (tmp_path / "kestrel.dist-info" / "METADATA").write_text(METADATA)
    (tmp_path / "copy.md").write_text(METADATA.partition("\n\n")[2])
    (tmp_path / "licenses").mkdir()
    (tmp_path / "licenses" / "LICENSE.txt").write_text("Terms\n-----\n\nThe terms of the licence are here.")
    (tmp_path / "broken.txt").write_bytes(b"\xff\x00" * 40)
    kestrel = read_documentation(tmp_path)[-1]
    assert kestrel.subject == "kestrel"
    sections = dict(kestrel.sections)
    water = ("It lands on water where floats=True is given.", "Without floats it sinks.")
    assert sections["Can it land on water?"] == water[:1]  # the second is too short to answer anything
    assert sections["Installation"] == ("Install Kestrel with the package manager of your choice.",)
    asked = [ask_heading([kestrel], random.Random(seed)) for seed in range(40)]
    questions = {each.question for each in asked if each}
    assert "Can it land on water?" in questions
    assert "How do I install kestrel?" in questions
    for each in asked:
        assert each is not None
        assert not set(each.answering) & set(each.other)
        if each.question == "Can it land on water?" and each.answering:
            assert each.answering == water[:1]
    assert {len(each.answering) for each in asked if each} == {0, 1}


def test_a_manifest_freezes_what_is_read(tmp_path: Path) -> None:
    folder, manifest = tmp_path / "site-packages", tmp_path / "documentation.sha256"
    digests = []
    for name in ("kestrel", "falcon"):
        path = folder / f"{name}-1.0.dist-info" / "METADATA"
        path.parent.mkdir(parents=True)
        path.write_text(METADATA.replace("kestrel", name).replace("Kestrel", name.title()))
        digests.append(
            f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.parent.name}/METADATA\n",
        )
    manifest.write_text(digests[0])
    assert [each.subject for each in read_documentation(folder)] == ["falcon", "kestrel"]
    assert [each.subject for each in read_documentation(folder, manifest)] == ["kestrel"]
    (folder / "falcon-1.0.dist-info" / "METADATA").write_text("Name: falcon\n\nAnother text.")
    assert [each.subject for each in read_documentation(folder, manifest)] == ["kestrel"]
    manifest.write_text("".join(digests) + f"{'0' * 64}  gone-1.0.dist-info/METADATA\n")
    with pytest.raises(ChangedDocumentation, match=r"2 of the 3 files .* falcon-1\.0.*, gone-1\.0"):
        read_documentation(folder, manifest)


def test_the_packaged_manifest_names_packages_and_versions() -> None:
    manifest = Path(documentation_questions.__file__).with_name("documentation.sha256")
    for line in manifest.read_text().splitlines():
        assert re.fullmatch(r"[0-9a-f]{64}  [\w.]+-[\w.+!]+\.dist-info/METADATA", line), line
