"""What MLflow, the registry, the training sets, the lake and the index say about each other's models.

The release log is the truth about what is live, the signed folders about what a version is; the rest
follows. Whatever does not agree is a discrepancy, with the command that mends it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from assets.columns import Table
from assets.lake.lake import Lake
from assets.lake.releases import missing_rows
from assets.lake.tables import ENGINE_RELEASES, RELEASES
from assets.training_sets.learned import learned_version
from retrieval.embedding.config import recorded_model_path
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.embedding.model_signature import ModelNotTrusted
from retrieval.index.index import Index
from retrieval.index.release_log import Kind
from training.datasets.training_set import BrokenDataset, DatasetHeader, dataset_headers, open_dataset
from training.place import TrainingPlace
from training.registry.addresses import EMBEDDER
from training.registry.live import live_versions
from training.registry.mlflow_mirror import MlflowNotReached, registered_in_mlflow
from training.registry.versions import ModelVersion

MEND = "`headwater models check --mend`"
_PROJECTED: dict[Table, Kind] = {RELEASES: "index", ENGINE_RELEASES: "engine"}
_BACKUP = "restore the state folder from a backup (`headwater restore`)"


@dataclass(frozen=True)
class ModelDiscrepancy:
    """Two places that do not say the same about a model.

    Attributes:
        about: What it is about: a version, a release, a training set.
        found: What does not agree.
        cure: What mends it.
    """

    about: str
    found: str
    cure: str

    def __str__(self) -> str:
        """Returns it in a sentence."""
        return f"{self.about}: {self.found}; {self.cure}"


def model_discrepancies(lake: Lake, index: Index, place: TrainingPlace) -> list[ModelDiscrepancy]:
    """Returns what does not agree; nothing where no model was trained.

    Args:
        lake: The tables.
        index: The index, whose pointer says which release is live.
        place: The registry, the training sets, and MLflow's address.
    """
    if not place.registry.names():
        return []
    return [
        *_files(place),
        *_live_release(index, place),
        *_aliases(index, place),
        *_log(lake, index),
        *_training_sets(lake, place),
        *_mlflow(place),
    ]


def _versions(place: TrainingPlace) -> list[ModelVersion]:
    return [version for name in place.registry.names() for version in place.registry.versions(name)]


def _files(place: TrainingPlace) -> Iterator[ModelDiscrepancy]:
    """Yields versions whose files are not those that were signed."""
    for version in _versions(place):
        try:
            place.registry.open(version)
        except ModelNotTrusted as error:
            found, _, cure = str(error).partition(": ")
            yield ModelDiscrepancy(version.address, found, cure or _BACKUP)


def _live_release(index: Index, place: TrainingPlace) -> Iterator[ModelDiscrepancy]:
    """Yields it if the live release names a version that is not there, or that makes other vectors."""
    live = index.live()
    if live is None:
        return
    embedder = live.details.embedder
    path = recorded_model_path(embedder.model, place.models)
    if path.parts[-4:-3] != ("registry",):
        return
    about, cure = (
        f"release {live.release_id}",
        f"{_BACKUP}, or `headwater models rollback {EMBEDDER} --reason …`",
    )
    if not path.is_dir():
        yield ModelDiscrepancy(about, f"it is live, and its model is not in {path}", cure)
        return
    try:
        digest = EmbeddingModel.of(embedder.model_copy(update={"model": path}), place.models.parent).digest
    except ModelNotTrusted:
        return  # said of its files
    if digest != live.details.model_digest:
        found = (
            f"its vectors are of {live.details.model_digest[:16]}, and {path} makes those of {digest[:16]}"
        )
        yield ModelDiscrepancy(about, found, cure)


def _aliases(index: Index, place: TrainingPlace) -> Iterator[ModelDiscrepancy]:
    """Yields the names of versions that are not as the release log has them."""
    for name, said in live_versions(place.registry, index).items():
        recorded = place.registry.aliases(name)
        for alias, kept, meant in (
            ("live", recorded.live, said.live),
            ("previous", recorded.previous, said.previous),
        ):
            if kept != meant:
                found = f"the registry has version {kept or 'none'}, and by the release log it is "
                yield ModelDiscrepancy(f"{name}@{alias}", f"{found}{meant or 'none'}", MEND)


def _log(lake: Lake, index: Index) -> Iterator[ModelDiscrepancy]:
    """Yields decisions of the release log that the lake does not have."""
    for table, kind in _PROJECTED.items():
        for each in missing_rows(lake, table, index.log.decisions(kind)):
            found = f"{each.decision} by the release log, and {table.name} does not have it"
            yield ModelDiscrepancy(f"{kind} {each.digest}", found, MEND)


def _training_sets(lake: Lake, place: TrainingPlace) -> Iterator[ModelDiscrepancy]:
    """Yields training sets of versions that are gone or changed, or that are of another state of the lake."""
    headers = {header.digest: header for header in dataset_headers(place.datasets)}
    for version in _versions(place):
        for learned in version.lineage.training_sets:
            header = headers.get(learned.digest)
            if header is not None:
                yield from _training_set(lake, place, version, header)
            # Where a document was removed, its training set has to go: that is no discrepancy.
            elif not learned_version(lake, place.registry, version).removed:
                found = f"its training set {learned.address} is not in {place.datasets}"
                cure = f"{_BACKUP}; where it was removed on purpose, train again and promote what comes out"
                yield ModelDiscrepancy(version.address, found, cure)


def _training_set(
    lake: Lake, place: TrainingPlace, version: ModelVersion, header: DatasetHeader
) -> Iterator[ModelDiscrepancy]:
    try:
        open_dataset(place.datasets, f"{header.name}@{header.digest}", removed_allowed=True)
    except BrokenDataset as error:
        found, _, cure = str(error).partition(": ")
        yield ModelDiscrepancy(version.address, f"of its training set {header.address}, {found}", cure)
    for table, made_from in header.versions.items():
        newest = lake.version(table)
        if made_from > newest:
            found = f"made from {table}@{made_from}, and the lake is at {table}@{newest}"
            cure = "restore lake and training sets from the same backup"
            yield ModelDiscrepancy(f"training set {header.address}", found, cure)


def _mlflow(place: TrainingPlace) -> Iterator[ModelDiscrepancy]:
    """Yields versions and aliases that MLflow lacks or has otherwise."""
    for name in place.registry.names():
        try:
            registered = registered_in_mlflow(name, place.mlflow_uri)
        except MlflowNotReached as error:
            yield ModelDiscrepancy("MLflow", str(error), "start it, or mend HEADWATER_MLFLOW_URI")
            return
        if registered is None:  # it is not installed, and follows nothing
            return
        versions = {version.version: version for version in place.registry.versions(name)}
        for version in versions.values():
            if version.digest not in registered.digests:
                yield ModelDiscrepancy(version.address, "MLflow has no version of its digest", MEND)
        for alias, number in place.registry.aliases(name).model_dump().items():
            ours = versions[number].digest if number in versions else None
            theirs = registered.aliases.get(alias)
            if ours != theirs:
                found = f"MLflow has {(theirs or 'none')[:16]}, and the registry {(ours or 'none')[:16]}"
                yield ModelDiscrepancy(f"{name}@{alias}", found, MEND)
