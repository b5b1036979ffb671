"""Sound documents of a folder: what is kept, what is not fit and still found, and what is quarantined."""

import json
from pathlib import Path

from orchestration.bench.sound_documents import bench_sound_documents, judge_sound_documents

SENTENCE = "The gate refuses a document whose digest is unknown to the lake, and says so in its report."


def test_a_folder_is_judged_and_what_is_unfit_is_searched_for(tmp_path: Path) -> None:
    folder = tmp_path / "papers"
    folder.mkdir()
    for name in ("bees", "tides", "lanterns"):
        text = f"Whoever studies {name} keeps a notebook about {name} for every single morning of the year."
        (folder / f"{name}.txt").write_text(f"{text} {SENTENCE}")
    (folder / "cut.txt").write_text(
        f"{SENTENCE}\n\nGlaciers are measured with long poles and can be changed by the"
    )
    (folder / "symbols.txt").write_text("\n".join(["%&/ (){} +*~# <>|"] * 20))
    (folder / "empty.txt").write_text("")
    said: list[str] = []
    found = judge_sound_documents(folder, said.append)
    assert found.documents == 5
    assert [uri.rpartition("/")[2] for uri in found.quarantined] == ["symbols.txt"]
    assert {uri.rpartition("/")[2]: why for uri, why in found.unfit.items()} == {"cut.txt": "max_cut_off"}
    assert found.unfound == {}
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"_id": str(n), "text": text}) + "\n" for n, text in enumerate(["", SENTENCE]))
    )
    result = bench_sound_documents([rows], said.append)
    assert result.figures["rows_documents"] == 1
    assert result.ratios == {"rows_quarantined": 0, "rows_unfit": 0}
