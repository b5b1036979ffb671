"""Versions of models: folders named by number, signed, each with what it was made from."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ValidationError

from inference.engines.digest import ADAPTER_CONFIG, adapter_digest
from quality.evaluation.release_gate import ReleaseVerdict
from retrieval.atomic_files import flush_path
from retrieval.embedding.model_folder import model_folder_digest, read_model_folder
from retrieval.embedding.model_signature import (
    MANIFEST,
    ModelNotTrusted,
    require_trusted_model,
    sign_model,
    signature_path,
)
from training.registry.learned_texts import (
    LearnedTexts,
    read_learned_documents,
    read_learned_questions,
    write_learned_texts,
)
from training.registry.lineage import ModelLineage

_MODEL = "model"
_DECISIONS = "decisions.jsonl"
_ALIASES = "aliases.json"
_NOTHING_LEARNED = LearnedTexts()


class UnknownModel(LookupError):
    """There is no such model or version; the message lists those there are."""


class SharedDigest(UnknownModel):
    """Several versions have a digest that begins so; the message names them."""


class LiveModelMoved(RuntimeError):
    """Another version went live meanwhile; nothing was changed."""


class ModelVersion(BaseModel, frozen=True):
    """One version of a model: its signed manifest.

    Attributes:
        name: The model's name, such as `embedder`.
        version: Its number, from 1.
        digest: The digest of its files, which identifies its vectors, or what it writes over its base.
        lineage: What it was made from.
        metrics: Its figures, by name.
        seconds: The time that the job took.
        made_at: When it was made.
    """

    name: str
    version: int
    digest: str
    lineage: ModelLineage
    metrics: dict[str, float]
    seconds: float
    made_at: datetime

    @property
    def address(self) -> str:
        """The name by which it is meant: NAME@VERSION."""
        return f"{self.name}@{self.version}"


class ModelAliases(BaseModel, frozen=True):
    """Which versions of a model have a name; `previous` is what a rollback goes back to. None: no version."""

    live: int | None = None
    previous: int | None = None
    candidate: int | None = None


class ModelDecision(BaseModel, frozen=True):
    """What was decided about a version, or measured.

    Attributes:
        version: The version.
        decision: What.
        reason: Why, in a sentence.
        against: The digest of the model that it was compared with; None without one.
        dataset: What it was measured on.
        gains: By figure, the mean `difference` to that model, and its 95% interval from `low` to `high`.
        questions: How many questions both answered for it; None where none were asked for.
        live_since: When the release that an embedder's move made live went live; None of all else.
        decided_at: When.
    """

    version: int
    decision: Literal["approved", "refused", "promoted", "rolled_back", "stepped_down"]
    reason: str
    against: str | None = None
    dataset: str | None = None
    gains: dict[str, dict[str, float]] = {}
    questions: int | None = None
    live_since: datetime | None = None
    decided_at: datetime

    @classmethod
    def of_verdict(
        cls,
        verdict: ReleaseVerdict,
        version: ModelVersion,
        against: str,
        dataset: str,
        gains: dict[str, dict[str, float]],
        questions: int | None = None,
    ) -> "ModelDecision":
        """Returns what a gate decided now about a version that was measured; see the attributes."""
        return cls(
            version=version.version,
            decision="approved" if verdict.released else "refused",
            reason=verdict.reason,
            against=against,
            dataset=dataset,
            gains=gains,
            questions=questions,
            decided_at=datetime.now(UTC),
        )


@dataclass(frozen=True)
class ModelRegistry:
    """The versions of models in a state folder, and the keys that sign them.

    Attributes:
        folder: The folder of models of the state folder: keys, and `registry/NAME/VERSION/model`.
    """

    folder: Path

    def add(
        self,
        name: str,
        lineage: ModelLineage,
        metrics: dict[str, float],
        seconds: float,
        write: Callable[[Path], None],
        card: Callable[[ModelVersion], str],
        learned: LearnedTexts = _NOTHING_LEARNED,
    ) -> ModelVersion:
        """Adds a version, or returns the one that has the same files already.

        Args:
            name: The model's name.
            lineage: What it was made from.
            metrics: Its figures.
            seconds: The time that the job took.
            write: Writes the model's files into a folder.
            card: Returns the model card of the version, in Markdown.
            learned: What it learned from.
        """
        models = self._models(name)
        models.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Of the job, which runs once at a time: what one leaves that is killed, it removes when it goes on.
        scratch = models / f".writing-{Path(lineage.run_id).name}"
        shutil.rmtree(scratch, ignore_errors=True)
        made = scratch / _MODEL
        made.mkdir(mode=0o700, parents=True)
        try:
            write(made)
            digest = self._digest(made)
            for known in self.versions(name):
                if known.digest == digest:
                    return known
            while True:
                numbers = [version.version for version in self.versions(name)]
                version = ModelVersion(
                    name=name,
                    version=max(numbers, default=0) + 1,
                    digest=digest,
                    lineage=lineage,
                    metrics=metrics,
                    seconds=seconds,
                    made_at=datetime.now(UTC),
                )
                (made / MANIFEST).write_text(version.model_dump_json(indent=2) + "\n", encoding="utf-8")
                (made / "README.md").write_text(card(version), encoding="utf-8")
                write_learned_texts(made, learned)
                for path in made.rglob("*"):
                    path.chmod(0o700 if path.is_dir() else 0o600)
                    flush_path(path)
                sign_model(made, self.folder)
                try:
                    scratch.rename(models / str(version.version))  # fails if another job took the number
                except OSError:
                    if not (models / str(version.version)).exists():
                        raise
                    continue
                flush_path(models)
                return version
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def names(self) -> list[str]:
        """Returns the names of the models there are."""
        return sorted(path.name for path in (self.folder / "registry").glob("*") if path.is_dir())

    def versions(self, name: str) -> list[ModelVersion]:
        """Returns the versions of a model, newest first."""
        manifests = self._models(name).glob(f"[0-9]*/{_MODEL}/{MANIFEST}")
        found = [ModelVersion.model_validate_json(path.read_bytes()) for path in manifests]
        return sorted(found, key=lambda version: -version.version)

    def find(self, address: str) -> ModelVersion:
        """Returns the version that NAME@VERSION, NAME@live (or another alias) or a digest means.

        Raises:
            UnknownModel: There is none.
            SharedDigest: Several digests begin so.
        """
        name, at, wanted = address.partition("@")
        every = [version for each in self.names() for version in self.versions(each)]
        found = [version for version in every if version.digest.startswith(address) and len(address) >= 8]
        if at:
            aliases = self.aliases(name).model_dump()
            number = str(aliases[wanted]) if wanted in aliases else wanted
            found = [each for each in every if each.name == name and str(each.version) == number]
        if len(found) > 1:
            raise SharedDigest(
                f"{address!r} is a digest of {' and '.join(each.address for each in found)}: name one of them"
            )
        if not found:
            known = (
                ", ".join(each.address for each in every) or "none yet: `headwater train embedder` makes one"
            )
            why = (
                f"no version of {name} is {wanted}"
                if at and wanted in ModelAliases.model_fields
                else f"there is no model {address!r}"
            )
            raise UnknownModel(f"{why}; there are {known}")
        return found[0]

    def path(self, version: ModelVersion) -> Path:
        """Returns the folder of a version's files."""
        return self.version_path(version.name, version.version)

    def version_path(self, name: str, number: int) -> Path:
        """Returns where the files of a version are, or would be."""
        return self._models(name) / str(number) / _MODEL

    def open(self, version: ModelVersion) -> Path:
        """Returns the folder of a version's files, after checking signature and digest.

        Raises:
            ModelNotTrusted: The files are not those that were signed, or not those of the digest.
        """
        path = self.path(version)
        if not signature_path(path).is_file():
            raise ModelNotTrusted(
                f"{version.address} has no signature at {signature_path(path)}: restore it from a backup, or "
                "train the model again"
            )
        require_trusted_model(path, self.folder)
        digest = self._digest(path)
        if digest != version.digest:
            raise ModelNotTrusted(
                f"{path} has the digest {digest}, and {version.address} is {version.digest}: restore it from "
                "a backup, or train the model again"
            )
        return path

    def base_of(self, version: ModelVersion) -> ModelVersion | None:
        """Returns the version that a version was trained from; None if its base is not of the registry."""
        wanted = version.lineage.base_digest
        every = (each for name in self.names() for each in self.versions(name))
        return next((each for each in every if each.digest == wanted != version.digest), None)

    def with_bases(self, version: ModelVersion) -> list[ModelVersion]:
        """Returns a version, its base if that is a version too, the base of that, and so on."""
        found = list[ModelVersion]()
        each: ModelVersion | None = version
        while each is not None and each not in found:
            found.append(each)
            each = self.base_of(each)
        return found

    def learned_documents(self, version: ModelVersion) -> set[str]:
        """Returns the ids of the lake's documents that a version, or one below it, learned from."""
        return {
            found for each in self.with_bases(version) for found in read_learned_documents(self.path(each))
        }

    def learned_questions(self, version: ModelVersion, questions: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Returns which questions a version, or one below it, learned from, or nearly the same; (questions,).

        A version that was made before its questions were kept is taken to have learned none.
        """
        found = np.zeros(len(questions), bool)
        for each in self.with_bases(version):
            learned = read_learned_questions(self.path(each))
            if learned is not None:
                found |= learned.holds(questions)
        return found

    def version_at(self, folder: Path) -> ModelVersion | None:
        """Returns the version whose files a folder has, or has a copy of; None for another folder."""
        try:
            said = ModelVersion.model_validate_json((folder / MANIFEST).read_bytes())
        except (OSError, ValidationError):
            return None
        found = (each for each in self.versions(said.name) if each.digest == said.digest)
        return next(found, None)

    def aliases_of(self, version: ModelVersion) -> list[str]:
        """Returns the names that a version has, such as `live`."""
        named = self.aliases(version.name).model_dump()
        return [alias for alias, number in named.items() if number == version.version]

    def aliases(self, name: str) -> ModelAliases:
        """Returns which versions have a name, as the index's releases said last."""
        file = self._models(name) / _ALIASES
        return ModelAliases.model_validate_json(file.read_bytes()) if file.is_file() else ModelAliases()

    def set_aliases(self, name: str, aliases: ModelAliases) -> None:
        """Has versions named so from now on."""
        models = self._models(name)
        models.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = models / f".{_ALIASES}-{os.getpid()}"
        scratch.write_text(aliases.model_dump_json() + "\n")
        flush_path(scratch)
        scratch.replace(models / _ALIASES)

    def set_candidate(self, version: ModelVersion) -> None:
        """Names a version `candidate`, unless it is or was live."""
        known, decided = self.aliases(version.name), self.decisions(version.name)
        was_live = {known.live, known.previous} | {e.version for e in decided if e.decision == "promoted"}
        if version.version not in was_live:
            self.set_aliases(version.name, known.model_copy(update={"candidate": version.version}))

    def move_live(
        self, name: str, expected: int | None, live: int | None, previous: int | None = None
    ) -> ModelAliases:
        """Has another version be live, if the one that is expected still is.

        Args:
            name: The model.
            expected: The version that is live; None for none.
            live: The one that is to be; None for none.
            previous: The one that a rollback goes back to from there; None for none.

        Raises:
            LiveModelMoved: Another version went live meanwhile; nothing was changed.
        """
        with (self._models(name) / ".aliases.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = self.aliases(name)
            if known.live != expected:
                raise LiveModelMoved(
                    f"{name}@{known.live} went live meanwhile: compare with it, and try again"
                    if known.live is not None
                    else f"{name} was rolled back meanwhile: try again"
                )
            candidate = None if known.candidate == live else known.candidate
            moved = ModelAliases(live=live, previous=previous, candidate=candidate)
            self.set_aliases(name, moved)
            return moved

    def decisions(self, name: str) -> list[ModelDecision]:
        """Returns what was decided about the versions of a model, oldest first."""
        file = self._models(name) / _DECISIONS
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        return [ModelDecision.model_validate_json(line) for line in lines if line.endswith("}")]

    def log_decision(self, name: str, decision: ModelDecision) -> None:
        """Appends a decision; a line is written at once, so that two writers do not mix theirs."""
        file = self._models(name) / _DECISIONS
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, (json.dumps(decision.model_dump(mode="json")) + "\n").encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _digest(self, path: Path) -> str:
        if (path / ADAPTER_CONFIG).is_file():
            return adapter_digest(path)
        return model_folder_digest(read_model_folder(path), self.folder)

    def _models(self, name: str) -> Path:
        return self.folder / "registry" / Path(name).name
