"""Which adapter of a generator answers a tenant's questions: its own that is live, or that of all tenants."""

import hashlib
import re
from dataclasses import dataclass

from pydantic import BaseModel

from inference.engines.protocol import Adapter, AdapterChoice, EngineError
from retrieval.embedding.model_signature import ModelNotTrusted
from retrieval.index.release_log import ReleaseLog
from training.registry.versions import ModelRegistry, ModelVersion, SharedDigest, UnknownModel

GENERATOR = "generator"


def generator_name(tenant: str | None) -> str:
    """Returns the name of a tenant's generator in the registry; of the one of all tenants for None.

    A tenant whose name can not be part of an address has a hash of it there.
    """
    if tenant is None:
        return GENERATOR
    known = re.fullmatch(r"[A-Za-z0-9_-]{1,64}", tenant)
    return f"{GENERATOR}-{tenant if known else hashlib.sha256(tenant.encode()).hexdigest()[:16]}"


def is_generator(name: str) -> bool:
    """Returns whether a model's name is that of a generator's adapters."""
    return name == GENERATOR or name.startswith(f"{GENERATOR}-")


def means_generator(registry: ModelRegistry, named: str) -> bool:
    """Returns whether an address, a digest or its beginning means a generator's adapter.

    Raises:
        SharedDigest: Several versions have a digest that begins so.
    """
    try:
        return is_generator(registry.find(named).name)
    except SharedDigest:
        raise
    except UnknownModel:  # what is called so, is told by what looks for it
        return is_generator(named.partition("@")[0])


def registered_adapter(registry: ModelRegistry, version: ModelVersion) -> Adapter:
    """Returns a version as an engine takes it.

    Raises:
        UnknownModel: It is no generator's.
        ModelNotTrusted: Its files are not those that were signed.
    """
    if not is_generator(version.name):
        known = [
            each.address
            for name in registry.names()
            if is_generator(name)
            for each in registry.versions(name)
        ]
        raise UnknownModel(
            f"{version.address} is no adapter of a generator; there are "
            f"{', '.join(known) or 'none yet: `headwater train generator` makes one'}"
        )
    return Adapter(version.address, version.digest, registry.open(version))


class AdapterRecord(BaseModel, frozen=True):
    """What the release log keeps of an adapter that went live: its number in the registry."""

    version: int


@dataclass(frozen=True)
class LiveAdapters:
    """The adapters that are live, as the release log says at each call.

    Attributes:
        registry: The versions of models.
        log: The release log.
    """

    registry: ModelRegistry
    log: ReleaseLog

    def of(self, tenant: str) -> AdapterChoice | None:
        """Returns which adapter answers a tenant's questions; None where no tenant has any.

        Raises:
            EngineError: Its files are not those that were signed, or it is not the one that went live.
        """
        live = {each.subject: each for each in self.log.live_of_kind("adapter") if each.digest}
        for name in (generator_name(tenant), GENERATOR):
            if name not in live:
                continue
            number = AdapterRecord.model_validate_json(live[name].record).version
            version = self.registry.version(name, number)
            if version is None:
                path = self.registry.version_path(name, number)
                raise EngineError(
                    f"{name}@{number} is live, and {path} is gone: restore it from a backup, or roll it back"
                )
            if version.digest != live[name].digest:
                raise EngineError(
                    f"{version.address} has the digest {version.digest[:16]}, and what went live is "
                    f"{str(live[name].digest)[:16]}: restore its folder from a backup, or promote it again"
                )
            if version.lineage.tenant in (tenant, None):
                try:
                    return AdapterChoice(tenant, registered_adapter(self.registry, version))
                except ModelNotTrusted as error:
                    raise EngineError(str(error)) from error
        return AdapterChoice(tenant, None) if live else None
