"""What is fit for a training set, by signals, language, media type and licence; both engines say the same."""

import base64
import random
import string
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from assets.engine.relations import Relations
from assets.lake.lake import Lake
from assets.recipe import Recipe
from assets.text.license import license_unfit_reason, spdx_license
from assets.text.normalization import normalize_text
from assets.text.signals import QUALITY_SIGNALS, quality_signals
from assets.text.training_fit import TrainingThresholds, training_unfit_sql
from retrieval.language.identification import detect_language

RANDOM = random.Random(7)
LICENCE = (
    "Permission is hereby granted, free of charge, to any person obtaining a copy of this software and"
    " associated documentation files, to deal in the Software without restriction, including rights to use,"
    " copy, modify and merge it, and to permit persons to whom the Software is furnished to do so."
)
GOOD = {
    "readme": "Widget makes widgets.\n\npip install widget",
    "licence": LICENCE,
    "question": "Q: Is it free?\nA: Yes.",
    "api": "\n".join(
        f"linalg.{name}(a, *, axis=None)" for name in ("solve", "inv", "det", "norm", "qr", "svd") * 8
    ),
    "table": "\n\n".join(f"currency: EUR\ncountry: Germany\nid: {row}" for row in range(300)),
    "numbers": "\n".join(" ".join(str(RANDOM.randrange(10_000)) for _ in range(6)) for _ in range(60)),
    "changelog": "\n".join(
        f"- Fixed the {word} of widgets." for word in ("size", "colour", "weight", "price") * 5
    ),
    "code": "def walk(path):\n    for name in listing(path):\n        yield name, size(name)\n",
    "chinese": "这是一个用于测试的中文文档。它描述了如何安装软件以及如何运行它。请参阅手册以了解更多。",
    "german": "Die Installation dauert eine Minute. Danach läuft der Dienst im Hintergrund weiter.",
}
LETTERS = string.ascii_lowercase
BAD = {
    "min_word_count": "Hello",
    "max_mean_word_length": "\n".join(base64.b64encode(RANDOM.randbytes(57)).decode() for _ in range(30)),
    "min_alphanumeric_word_ratio": " ".join("".join(RANDOM.choices("!@#$%^&*(){}", k=4)) for _ in range(80)),
    "min_letter_coincidence": " ".join("".join(RANDOM.choices(LETTERS, k=6)) for _ in range(200)),
    "max_no_language_word_count": " ".join("".join(RANDOM.choices("asdfghjkl", k=6)) for _ in range(200)),
    "max_duplicate_line_fraction": "Buy our widgets now.\n" * 100,
    "max_top_4_gram_char_fraction": "Buy now and save. " * 100,
    "max_lorem_ipsum_word_ratio": (
        "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut"
        " labore et dolore magna aliqua."
    ),
    "max_boilerplate_line_ratio": "It uses cookies.\nPlease enable JavaScript.\nSee our privacy policy.",
    "max_replacement_char_ratio": "some \ufffd\ufffd\ufffd te\ufffd\ufffdt \ufffd\ufffd",
    "max_symbol_to_word_ratio": "### one ### two ### three ###",
}
COLUMNS = pa.schema(
    [*QUALITY_SIGNALS.values(), pa.field("language", pa.string()), pa.field("media_type", pa.string())]
)


def row(text: str, media_type: str | None = "text/plain") -> dict[str, Any]:
    text = normalize_text(text)
    return quality_signals(text) | {"language": detect_language(text), "media_type": media_type}


def unfit(row: dict[str, Any], thresholds: TrainingThresholds | None = None) -> list[str]:
    sql = training_unfit_sql(thresholds or TrainingThresholds())
    found = Lake.query(f"SELECT {sql} AS unfit FROM t", t=pa.Table.from_pylist([row], COLUMNS))
    return [reason for reason in found["unfit"][0].as_py().split(",") if reason]


@pytest.mark.parametrize("name", GOOD)
def test_what_a_knowledge_base_holds_is_fit(name: str) -> None:
    assert unfit(row(GOOD[name])) == []


@pytest.mark.parametrize("threshold", BAD)
def test_what_is_damaged_is_unfit_by_name_and_fit_when_turned_off(threshold: str) -> None:
    assert threshold in unfit(row(BAD[threshold]))
    off = TrainingThresholds.model_validate({threshold: None})
    assert threshold not in unfit(row(BAD[threshold]), off)


def test_languages_are_restricted_only_on_request() -> None:
    german = row(GOOD["german"])
    assert unfit(german, TrainingThresholds(languages=["de", "en"])) == []
    assert unfit(german, TrainingThresholds(languages=["en"])) == ["languages"]
    assert unfit(german, TrainingThresholds(languages=[])) == ["languages"]
    with pytest.raises(ValidationError, match="languages"):
        TrainingThresholds(languages=["en') OR ('1' = '1"])


def test_a_signal_counts_only_where_it_has_a_meaning() -> None:
    cut = f"{LICENCE}\n\nPermission is also granted to the"
    assert unfit(row(cut)) == ["max_cut_off"]
    assert unfit(row(cut, "text/plain; charset=utf-8")) == ["max_cut_off"]
    assert unfit(row(cut, "application/json")) == unfit(row(cut, None)) == []
    tags = "<p>Some words of a page.</p>\n" * 3
    assert unfit(row(tags)) == ["max_markup_line_ratio"]
    assert unfit(row(tags, "text/HTML;charset=x")) == []


def test_every_threshold_bounds_a_signal() -> None:
    others = {"languages", "licenses", "max_no_language_word_count", "repetition_from_word_count"}
    for name in set(TrainingThresholds.model_fields) - others:
        side, _, signal = name.partition("_")
        assert side in {"min", "max"}
        assert signal in QUALITY_SIGNALS


def test_both_engines_give_the_same_reasons(local_and_spark: tuple[Relations, Relations]) -> None:
    rows = [row(text) for text in (*GOOD.values(), *BAD.values())]
    rows += [row(BAD["max_duplicate_line_fraction"], "text/html"), dict.fromkeys(COLUMNS.names)]
    sql = training_unfit_sql(TrainingThresholds(languages=["en", "zxx"]), "nullif(language, 'en')")
    found = []
    for on in local_and_spark:
        on.add("rows", pa.Table.from_pylist(rows, COLUMNS))
        on.define("judged", f"SELECT {sql} AS unfit FROM {{rows}}")
        query = (
            "SELECT unfit, array_remove(split(unfit, ','), '') AS reasons, unfit = '' AS fit FROM {judged}"
        )
        on.define("listed", query)
        listed = on.arrow("listed").to_pylist()
        assert all(each["fit"] == (each["reasons"] == []) for each in listed)
        assert all(",".join(each["reasons"]) == each["unfit"] for each in listed)
        found.append(sorted(each["unfit"] for each in listed))
    assert found[0] == found[1]
    assert len(set(found[0])) > 10


LICENSES = st.sampled_from(["MIT", "ISC", "Apache-2.0", "GPL-2.0-only WITH Classpath-exception-2.0"])
EXPRESSIONS = st.recursive(
    LICENSES,
    lambda inner: st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(lambda it: f"({' '.join(it)})"),
    max_leaves=6,
)


@given(EXPRESSIONS, st.sets(LICENSES))
def test_a_licence_is_allowed_where_its_expression_holds(expression: str, allowed: set[str]) -> None:
    names = ["GPL-2.0-only WITH Classpath-exception-2.0", "Apache-2.0", "MIT", "ISC"]
    truth = expression.lower().replace("and", " and ").replace("or", " or ")
    for name in names:
        truth = truth.replace(name.lower().replace("or", " or "), str(name in allowed))
    holds = eval(truth)
    reason = license_unfit_reason(spdx_license(expression), allowed)
    assert reason == (None if holds else "licence_not_allowed")


def test_a_licence_is_spdx_and_an_unknown_one_is_allowed_until_some_are_named() -> None:
    assert spdx_license("mit or apache-2.0") == "MIT OR Apache-2.0"
    assert spdx_license("LicenseRef-Ours") == "LicenseRef-Ours"
    for wrong in ("my own", "MIT AND", "", "NONE"):
        with pytest.raises(ValueError, match=r"spdx\.org/licenses"):
            spdx_license(wrong)
    assert license_unfit_reason(None, None) is license_unfit_reason("GPL-3.0-only", None) is None
    assert license_unfit_reason(None, ["MIT"]) == "licence_unknown"
    assert license_unfit_reason("MIT", []) == "licence_not_allowed"
    assert Recipe(training=TrainingThresholds(licenses=["mit"])).training.licenses == ["MIT"]
    with pytest.raises(ValidationError, match="spdx"):
        TrainingThresholds(licenses=["nonsense"])
