"""What a version of a model was made from: a part of its signed manifest."""

from pathlib import Path

from pydantic import BaseModel

BETWEEN_DATASETS = ", "
"""Stands between the addresses of several training sets; no name of one has it."""


class LearnedDataset(BaseModel, frozen=True):
    """A training set that a version learned from: its address, its digest, and whose it is."""

    address: str
    digest: str
    tenant: str


class ModelLineage(BaseModel, frozen=True):
    """What a model was made from.

    Attributes:
        dataset: The address of the training set, or the path of the folder; of several sets all addresses.
        dataset_digest: SHA-256 (hex) of what was learned.
        base: The path or name of the base.
        base_digest: The base's digest.
        code_version: The version of Headwater's code.
        run_id: The job.
        settings: The settings of the training.
        tenant: The tenant whose documents were learned; None for a folder, and for several tenants.
        datasets: The training sets, where several were learned; `dataset_digest` is over all.
    """

    dataset: str
    dataset_digest: str
    base: str
    base_digest: str
    code_version: str
    run_id: str
    settings: dict[str, float | int | str]
    tenant: str | None = None
    datasets: tuple[LearnedDataset, ...] = ()

    @property
    def training_sets(self) -> tuple[LearnedDataset, ...]:
        """The training sets that were learned; none where a file or a folder was."""
        if self.datasets or self.tenant is None or Path(self.dataset).is_absolute():
            return self.datasets
        return (LearnedDataset(address=self.dataset, digest=self.dataset_digest, tenant=self.tenant),)

    @property
    def tenants(self) -> list[str]:
        """The tenants whose documents were learned, or whose the model is; none for one of all tenants."""
        return [self.tenant] if self.tenant else sorted({each.tenant for each in self.datasets})
