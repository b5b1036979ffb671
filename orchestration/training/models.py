"""`headwater models`: versions of models, and which of them the index is served by.

An embedder is served by the release of the index that was built with it: the release log says which is live.
Aliases follow it, here and in MLflow.
"""

import getpass
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from assets.lake.lake import Lake
from assets.lake.releases import (
    approve_release,
    make_release_live,
    project_releases,
    stored_release_name,
)
from assets.lake.tables import EMBEDDINGS
from assets.ops import releasable_index_state
from orchestration.operations.runs import execute_run
from orchestration.settings import Settings, open_configured_lake
from quality.evaluation.verdict import Verdict
from retrieval.embedding.config import packaged_embedding_model, recorded_model_path
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.embedding.model_signature import ModelNotTrusted
from retrieval.index.index import Index
from retrieval.index.release_log import ReleaseHeld
from retrieval.index.types import IndexRelease
from retrieval.store.postgres import Postgres
from training.jobs.job import follow_models
from training.registry.addresses import PACKAGED_EMBEDDER, embedder_folder, registered_address
from training.registry.live import follow_release_log
from training.registry.versions import ModelRegistry, ModelVersion, UnknownModel

_INDEX_SELECTION = 'key:"gold/embeddings" or key:"serving/index"'


class ModelNotPromoted(RuntimeError):
    """A version can not be served; the message says why. What was live is."""


@dataclass(frozen=True)
class ServedModel:
    """What became of a promotion or of going back.

    Attributes:
        model: The model's name.
        version: The version that is served; None for a model that is not of the registry.
        release: The release of the index that is live.
        reason: Why.
        pointer_seconds: The time of the change of the pointer, and of its record.
    """

    model: str
    version: int | None
    release: str
    reason: str
    pointer_seconds: float


def model_registry(settings: Settings) -> ModelRegistry:
    """Returns the registry of a state folder."""
    return ModelRegistry(settings.models_folder)


def settings_with_embedder(settings: Settings, name: str) -> Settings:
    """Returns the settings with another embedder, as `embedder_folder` names it; `live` is the one served.

    Raises:
        UnknownModel: There is none of that name.
    """
    if name == "live":
        return settings
    embedder = settings.recipe.embedder.model_copy(
        update={"model": embedder_folder(settings.models_folder, name)}
    )
    return settings.model_copy(update={"recipe": settings.recipe.model_copy(update={"embedder": embedder})})


def promote_model(
    settings: Settings,
    address: str,
    reason: str,
    progress: Callable[[str], None],
    because: str | None = None,
) -> ServedModel:
    """Has a version be served, together with the index that is built with it.

    The index is built first, beside the live one, where there is none of these table versions; then the
    pointer moves to it, if the release that the version was compared with still is live.

    Args:
        settings: The settings of the state folder.
        address: The version.
        reason: Why, in a sentence.
        progress: Takes a line about what happens.
        because: Why a person has it served though its comparison did not decide; None if nobody does.

    Raises:
        UnknownModel: There is no such version.
        ModelNotTrusted: Its files are not those that were signed.
        ModelNotPromoted: It was not compared with the live model, or is not good enough, or its index is not.
        ReleaseHeld: Somebody holds the live release.
        ReleaseConflict: Another release went live meanwhile.
    """
    registry = model_registry(settings)
    version = registry.find(address)
    with_candidate = settings_with_embedder(settings, str(registry.open(version)))
    model = EmbeddingModel.of(with_candidate.recipe.embedder, settings.home)
    index = Index(Postgres(settings.home, settings.postgres))
    live = _require_reason_and_live(index, reason)
    hold = index.live_hold()
    if live.details.model_digest == model.digest:
        why = f"it is live already{f', and {hold}' if hold else ''}"
        return ServedModel(version.name, version.version, live.release_id, why, 0.0)
    reason = _approved_reason(registry, version, live, reason, because)
    if hold is not None:  # before an index is built, which takes long
        raise ReleaseHeld(f"{version.address} can not go live: {hold}; `headwater hold --off` ends that")
    lake = open_configured_lake(settings)
    kept = [
        each
        for each in index.releases()
        if each.details.model_digest == model.digest and _tables(each) == _tables(live)
    ]
    if not kept:
        progress(f"building the index with {version.address}, beside the live one")
        outcome = execute_run(with_candidate, _INDEX_SELECTION, progress)
        decided = _approved_by_person(lake, index, with_candidate, model, outcome.run_id, because)
        if outcome.failures and not decided:
            raise ModelNotPromoted(f"{version.address} is not served: {'; '.join(outcome.failures)}")
        registry.open(version)  # building took its time
    said = f"{version.address} promoted: {reason.strip()}"
    began, person = time.perf_counter(), getpass.getuser()
    if kept:
        made = index.promote(kept[0].release_id, live.release_id, said, person)
        project_releases(lake, index.log)
    else:
        state = releasable_index_state(index, with_candidate.recipe, model)
        made = make_release_live(lake, index, state, "", model, live.release_id, said, person)
    seconds = time.perf_counter() - began
    if made.details.model_digest != model.digest:
        raise ModelNotPromoted(
            f"the index of {version.address} was live before and is no longer kept: `headwater run` makes "
            "another when documents change"
        )
    return _served(settings, index, version.name, made, reason, seconds, progress)


def _approved_by_person(
    lake: Lake, index: Index, settings: Settings, model: EmbeddingModel, run_id: str, because: str | None
) -> bool:
    """Has a person approve a run's index about which its gate did not decide; returns whether it was so."""
    state = index.state(model.digest, settings.recipe.chunker_digest(model))
    verdict = index.log.newest_verdict("index", stored_release_name(state)) if state else None
    if because is None or state is None or verdict is None or verdict.decision != "undecided":
        return False
    if state.lineage.run_id != run_id:  # the run failed before it made an index: this one is of before
        return False
    approve_release(lake, index, stored_release_name(state), because)
    return True


def roll_back_model(
    settings: Settings, name: str, reason: str, progress: Callable[[str], None]
) -> ServedModel:
    """Has the model be served that was before the live one, with the index that was built with it.

    One that was gone back from is not gone back to: a second time leads to the one before that.

    Raises:
        UnknownModel: There is no model of that name, or its files are gone.
        ModelNotTrusted: The files of the model before are not those that were signed, or make other vectors.
        ModelNotPromoted: No release of another model is kept from before.
        ReleaseHeld: Somebody holds the live release.
        ReleaseConflict: Another release went live meanwhile.
    """
    registry = model_registry(settings)
    if name not in registry.names():
        raise UnknownModel(
            f"there is no model {name!r}; there are {', '.join(registry.names()) or 'none yet'}"
        )
    index = Index(Postgres(settings.home, settings.postgres))
    live = _require_reason_and_live(index, reason)
    releases = {each.release_id: each for each in index.releases()}
    way = [releases[each.digest] for each in index.log.way_back("index") if each.digest in releases]
    before = next((each for each in way if each.details.model_digest != live.details.model_digest), None)
    if before is None:
        kept = [f"{each.release_id} of {_model_name(settings, each)}" for each in releases.values()]
        raise ModelNotPromoted(
            f"no release of another model is kept from before {live.release_id}: there is nothing to go back "
            f"to; kept are {', '.join(kept)}, which `headwater models promote` or `headwater rollback` serves"
        )
    _require_trusted_files(settings, before)
    lake = open_configured_lake(settings)
    began, said = time.perf_counter(), f"{name}: {reason.strip()}"
    made = index.rollback(before.release_id, live.release_id, said, getpass.getuser())
    project_releases(lake, index.log)
    seconds = time.perf_counter() - began
    return _served(settings, index, name, made, reason, seconds, progress)


def _require_trusted_files(settings: Settings, release: IndexRelease) -> None:
    """Returns if the files of a release's model are those that were signed, and make its vectors."""
    if release.details.embedder.endpoint.url:  # it has no files here
        return
    registry = model_registry(settings)
    embedder = release.details.embedder.model_copy(update={"model": _embedder_path(settings, release)})
    path = embedder.model_path
    address = registered_address(path)
    if not path.is_dir():
        raise UnknownModel(
            f"release {release.release_id} is of {address or 'a model'}, and {path} is gone: restore it from "
            "a backup"
        )
    if address and path.is_relative_to(settings.models_folder):
        registry.open(registry.find(address))
    digest = EmbeddingModel.of(embedder, settings.home).digest
    if digest != release.details.model_digest:
        raise ModelNotTrusted(
            f"the vectors of release {release.release_id} are of {release.details.model_digest[:16]}, and "
            f"{path} makes those of {digest[:16]}: restore it from a backup"
        )


def _model_name(settings: Settings, release: IndexRelease) -> str:
    """Returns what the model of a release is called."""
    path, endpoint = _embedder_path(settings, release), release.details.embedder.endpoint
    if path == packaged_embedding_model() and not endpoint.url:
        return PACKAGED_EMBEDDER
    return endpoint.model or registered_address(path) or str(path)


def _tables(release: IndexRelease) -> dict[str, int]:
    """Returns the table versions of a release without that of the vectors: each model adds its own to it."""
    return {name: version for name, version in release.details.versions.items() if name != EMBEDDINGS.name}


def _require_reason_and_live(index: Index, reason: str) -> IndexRelease:
    if not reason.strip():
        raise ModelNotPromoted("the reason is empty: say why this model is to be served")
    live = index.live()
    if live is None:
        raise ModelNotPromoted("nothing is live yet: `headwater run` releases an index first")
    return live


def _approved_reason(
    registry: ModelRegistry, version: ModelVersion, live: IndexRelease, reason: str, because: str | None
) -> str:
    decides = registry.deciding_verdict(version, live.details.model_digest)
    if decides is None:
        raise ModelNotPromoted(
            f"{version.address} was not compared with the live model: "
            f"`headwater models compare {version.address} live` does"
        )
    return released_reason(version, decides.verdict, reason, because)


def released_reason(version: ModelVersion, verdict: Verdict, reason: str, because: str | None) -> str:
    """Returns why a version is served, where a verdict or a person has it served.

    Args:
        version: The version.
        verdict: The verdict that decides about it.
        reason: Why it is served.
        because: Why a person has it served though the verdict is undecided; None if nobody does.

    Raises:
        ModelNotPromoted: It was refused, or not decided.
    """
    if verdict.outcome == "refused":
        raise ModelNotPromoted(f"{version.address} was refused: {verdict.reason}")
    if verdict.outcome == "undecided" and (because or "").strip():
        return f"{reason.strip()} (not decided by measuring; a person decided: {(because or '').strip()})"
    if verdict.outcome == "undecided":
        raise ModelNotPromoted(
            f"{version.address} is {verdict.reason}: `headwater models promote {version.address} --reason … "
            "--because …`"
        )
    return reason


def _served(
    settings: Settings,
    index: Index,
    name: str,
    release: IndexRelease,
    reason: str,
    seconds: float,
    progress: Callable[[str], None],
) -> ServedModel:
    """Has the registry and MLflow follow the release log, and says what is served."""
    registry = model_registry(settings)
    follow_release_log(registry, index)
    follow_models(settings.training_place, name, progress)
    live = registry.aliases(name).live
    return ServedModel(name, live, release.release_id, reason.strip(), round(seconds, 4))


def _embedder_path(settings: Settings, release: IndexRelease) -> Path:
    return recorded_model_path(release.details.embedder.model, settings.models_folder)
