"""Versions of models: folders named by number, signed, each with what it was made from."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ValidationError

from common.atomic_files import atomic_file, flush_path
from inference.engines.digest import ADAPTER_CONFIG, adapter_digest
from quality.evaluation.verdict import Gain, Outcome, PairVerdict, Verdict, deciding_verdict
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
VERDICTS: dict[str, Outcome] = {"approved": "released", "refused": "refused", "undecided": "undecided"}
"""What a gate decides about a version, and what of the verdict that is; all else is a move."""
_NOTHING_LEARNED = LearnedTexts()


class LearnedQuestionsUnknown(ValueError):
    """An older Headwater made a version, and kept nothing of which questions it learned from."""


class UnknownModel(LookupError):
    """There is no such model or version; the message lists those there are."""


class SharedDigest(UnknownModel):
    """Several versions have a digest that begins so; the message names them."""


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


class LiveVersions(BaseModel, frozen=True):
    """What the release log says about a model, as its folder keeps it for who has no database.

    Attributes:
        move_id: The newest move of the log about the model; 0 where there is none.
        live: The version that is live; None for none.
        previous: The version that a rollback goes back to; None for none.
        was_live: Every version that is, or was, live.
        moves: The moves, oldest first.
    """

    move_id: int = 0
    live: int | None = None
    previous: int | None = None
    was_live: tuple[int, ...] = ()
    moves: tuple["ModelDecision", ...] = ()


class ModelDecision(BaseModel, frozen=True):
    """What was decided about a version, or measured.

    Attributes:
        version: The version.
        decision: What.
        reason: Why, in a sentence.
        against: The digest of the model that it was compared with; None without one.
        dataset: What it was measured on.
        gains: By figure, how much it has more than that model.
        questions: How many questions both answered for it; None where none were asked for.
        questions_digest: The `question_set_digest` of all that both were measured on; None where that alone
            does not decide.
        questions_needed: How many it takes to decide; None where it is decided.
        decided_by: The person who decided it; empty for a measurement.
        decided_at: When.
    """

    version: int
    decision: Literal["approved", "refused", "undecided", "promoted", "rolled_back", "stepped_down"]
    reason: str
    against: str | None = None
    dataset: str | None = None
    gains: dict[str, Gain] = {}
    questions: int | None = None
    questions_digest: str | None = None
    questions_needed: int | None = None
    decided_by: str = ""
    decided_at: datetime

    @classmethod
    def of_verdict(
        cls,
        verdict: Verdict,
        version: int,
        against: str,
        dataset: str,
        gains: dict[str, Gain],
        questions: int | None = None,
        questions_digest: str | None = None,
    ) -> "ModelDecision":
        """Returns what a gate decided now about a version that was measured; see the attributes."""
        return cls(
            version=version,
            decision="approved" if verdict.outcome == "released" else verdict.outcome,
            reason=verdict.reason,
            against=against,
            dataset=dataset,
            gains=gains,
            questions=questions,
            questions_digest=questions_digest,
            questions_needed=verdict.questions_needed,
            decided_at=datetime.now(UTC),
        )

    @property
    def verdict(self) -> Verdict:
        """What a gate decided; the outcome of a move, which is none, is undecided."""
        return Verdict(VERDICTS.get(self.decision, "undecided"), self.reason, self.questions_needed)

    @property
    def pair_verdict(self) -> PairVerdict | None:
        """The verdict on the version beside `against`; None if this is none that decides."""
        if self.decision not in VERDICTS or self.against is None or self.questions_digest is None:
            return None
        asked = max((each.questions or 0 for each in self.gains.values()), default=0)
        return PairVerdict(self.questions_digest, asked, self.verdict, self.dataset or "", self.decided_at)


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
                version = ModelVersion(
                    name=name,
                    version=max(self._numbers(name), default=0) + 1,
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

    def version(self, name: str, number: int) -> ModelVersion | None:
        """Returns a version by its number; None if it is not there."""
        manifest = self.version_path(name, number) / MANIFEST
        return ModelVersion.model_validate_json(manifest.read_bytes()) if manifest.is_file() else None

    def find(self, address: str) -> ModelVersion:
        """Returns the version that NAME@VERSION, NAME@live (or another alias) or a digest means.

        Raises:
            UnknownModel: There is none.
            SharedDigest: Several digests begin so.
        """
        name, at, wanted = address.partition("@")
        if at and name in self.names():
            aliases = self.aliases(name).model_dump()
            number = str(aliases[wanted]) if wanted in aliases else wanted
            if number.isdecimal() and (version := self.version(name, int(number))) is not None:
                return version  # the manifests of other versions are not read
        every = [version for each in self.names() for version in self.versions(each)]
        found = [version for version in every if version.digest.startswith(address) and len(address) >= 8]
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

        Raises:
            LearnedQuestionsUnknown: One of them was made before its questions were kept.
        """
        found = np.zeros(len(questions), bool)
        for each in self.with_bases(version):
            learned = read_learned_questions(self.path(each))
            if learned is None:
                raise LearnedQuestionsUnknown(
                    f"which questions {each.address} learned from is not known, since an older Headwater "
                    "made it, and nothing is judged by what it learned: train it again (`headwater train`)"
                )
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
        """Returns which versions have a name, as the release log said last.

        The candidate is the newest version, if it never was live.
        """
        known = self._live_versions(name)
        newest = max(self._numbers(name), default=None)
        candidate = None if newest in known.was_live else newest
        return ModelAliases(live=known.live, previous=known.previous, candidate=candidate)

    def project(self, read: Callable[[], Mapping[str, LiveVersions]]) -> list[str]:
        """Has the folders of models say what the release log says; two processes do so in turn.

        A folder that knows of moves keeps them where the log knows of none: then its database was lost.

        Args:
            read: Reads the log, and returns by the model's name what it says.

        Returns:
            The names of the models of which something else was said before.
        """
        lock = self.folder / "registry" / ".lock"
        if not lock.parent.is_dir():
            return []
        with lock.open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            known = {name: (said, self._live_versions(name)) for name, said in read().items()}
            changed = {
                name: said
                for name, (said, before) in known.items()
                if said != before and (said.move_id or not before.move_id)
            }
            for name, said in changed.items():
                with atomic_file(self._models(name) / _ALIASES) as fresh:
                    fresh.write_text(said.model_dump_json() + "\n", encoding="utf-8")
        return list(changed)

    def _live_versions(self, name: str) -> LiveVersions:
        file = self._models(name) / _ALIASES
        return LiveVersions.model_validate_json(file.read_bytes()) if file.is_file() else LiveVersions()

    def decisions(self, name: str) -> list[ModelDecision]:
        """Returns the verdicts on the versions of a model, and its moves by the release log, oldest first."""
        file = self._models(name) / _DECISIONS
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        verdicts = [ModelDecision.model_validate_json(line) for line in lines if line.endswith("}")]
        return sorted((*verdicts, *self._live_versions(name).moves), key=lambda each: each.decided_at)

    def deciding_verdict(self, version: ModelVersion, against: str) -> PairVerdict | None:
        """Returns the verdict that decides about a version beside a model; None if it was not compared."""
        pair = (version.version, against)
        of_pair = (each for each in self.decisions(version.name) if (each.version, each.against) == pair)
        return deciding_verdict(filter(None, (each.pair_verdict for each in of_pair)))

    def log_decision(self, name: str, decision: ModelDecision) -> None:
        """Appends a verdict; a line is written at once, so that two writers do not mix theirs."""
        file = self._models(name) / _DECISIONS
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, (json.dumps(decision.model_dump(mode="json")) + "\n").encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _numbers(self, name: str) -> list[int]:
        return [
            int(path.parent.parent.name) for path in self._models(name).glob(f"[0-9]*/{_MODEL}/{MANIFEST}")
        ]

    def _digest(self, path: Path) -> str:
        if (path / ADAPTER_CONFIG).is_file():
            return adapter_digest(path)
        return model_folder_digest(read_model_folder(path), self.folder)

    def _models(self, name: str) -> Path:
        return self.folder / "registry" / Path(name).name
