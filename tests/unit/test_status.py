"""What `headwater status` says of sources, also after a run that did not come to read them."""

from collections.abc import Iterator

import dagster as dg

from assets.dagster.metadata import asset_key
from assets.lake.tables import RAW_DOCUMENTS
from orchestration.services.status import SOURCES_READ, _sources_unread

KEY = asset_key(RAW_DOCUMENTS.name)
CHECK = dg.AssetCheckSpec(SOURCES_READ, asset=KEY)


@dg.asset(key=KEY, check_specs=[CHECK])
def one_source_is_away() -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
    yield dg.AssetCheckResult(check_name=SOURCES_READ, passed=False, metadata={"far": "no route"})
    yield dg.MaterializeResult()


@dg.asset(key=KEY, check_specs=[CHECK])
def fails_before_the_check() -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
    raise RuntimeError("the disk is full")
    yield dg.MaterializeResult()


def test_a_run_that_did_not_come_to_the_sources_leaves_what_is_known_of_them() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert _sources_unread(instance) == []
        dg.materialize([fails_before_the_check], instance=instance, raise_on_error=False)
        assert _sources_unread(instance) == []
        dg.materialize([one_source_is_away], instance=instance)
        dg.materialize([fails_before_the_check], instance=instance, raise_on_error=False)
        [sentence] = _sources_unread(instance)
    assert sentence.startswith("source far could not be read (no route)")
