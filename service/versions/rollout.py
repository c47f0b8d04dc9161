"""Updates what a worker serves to match the artifacts folder and the choices.

Everything runs in a separate thread, except `adopt`. This runs on the event loop and replaces the
registry between two batches. A version that left the registry still answers the queries that found
it; its memory is freed after the last one.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from persona.artifact import ArtifactError, open_artifact
from persona.engine import Engine
from persona.engine.model import Model
from persona.engine.registry import Registry
from service.logs import frames
from service.metrics import BROKEN, LOADED, ROLLOUTS
from service.versions.choices import Choice, Choices
from service.versions.folder import Version, changed_folder, scan, signatures
from service.versions.opening import Opener
from service.versions.reports import Refusal, Report

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A version that is open."""

    model: Model
    signature: int  # of its folder when it was opened or last found unchanged
    changed: Path | None = None  # as the version's


@dataclass
class State:
    """What a worker shall serve."""

    default: str = ""
    loaded: dict[str, dict[str, Loaded]] = field(default_factory=dict)  # by model and version
    shares: dict[str, dict[str, float]] = field(default_factory=dict)  # by model and version
    problems: dict[str, str] = field(
        default_factory=dict
    )  # by version that cannot be served, such as `shop/2`
    revision: int = -1  # of the choices

    def names(self) -> set[tuple[str, str]]:
        """All loaded versions, by model and version."""
        return {(model, version) for model, own in self.loaded.items() for version in own}

    def registry(self) -> Registry:
        """The state as a registry for the engine."""
        models = [one.model for own in self.loaded.values() for one in own.values()]
        broken = {name.partition("/")[0]: reason for name, reason in self.problems.items()}
        return Registry(models, self.default, self.shares, broken)


class Rollout:
    """Decides what one worker serves."""

    def __init__(self, root: Path, opener: Opener, state_folder: Path) -> None:
        self.engine: Engine | None = None
        self.state = State()
        self.root = root
        self._state_folder = state_folder
        self._opener = opener
        self._refused: dict[str, Refusal] = {}  # by the version's name
        self._seen: dict[str, int] = {}  # signatures at the last check
        self._followed: object = None  # everything that determines the state

    def follow(self, choices: Choices, peers: Sequence[Report]) -> State | None:
        """The new state; None if nothing changes.

        A folder that has changed since the last check may be half copied. It is left alone until it
        no longer changes, unless an operator asked for it.
        """
        try:
            found = scan(self.root)
        except ArtifactError as error:
            return self._without_folder(str(error), choices)
        seen = signatures(found.values())
        asked = choices.revision != self.state.revision
        quiet = {name: mark for name, mark in seen.items() if asked or self._seen.get(name) == mark}
        self._seen = seen
        followed = (quiet, choices.revision, next(iter(found)))
        if followed == self._followed:
            return None
        if asked:  # what was refused is tried again; but a new worker trusts the others' refusals
            self._refused = {}
            for peer in peers if self.engine is None else ():
                self._refused.update(peer.refused)
        state = self._bring(found, choices, quiet)
        self._followed = followed
        return state

    def adopt(self, state: State) -> None:
        """Starts to serve the state; on the event loop."""
        before, after = self.state.names(), state.names()
        if self.engine is not None:
            self.engine.registry = state.registry()
        elif after:
            self.engine = Engine(state.registry())
        for model, version in after - before:
            logger.info("loaded %s/%s", model, version)
            ROLLOUTS.labels(model, "loaded").inc()
            LOADED.labels(model, version).set(1)
        for model, version in before - after:
            logger.info("unloaded %s/%s", model, version)
            ROLLOUTS.labels(model, "unloaded").inc()
            LOADED.labels(model, version).set(0)
        for name in self.state.problems.keys() | state.problems.keys():
            BROKEN.labels(*name.partition("/")[::2]).set(name in state.problems)
        self.state = state

    def report(self) -> Report:
        """The report for the other workers."""
        return Report(
            process_id=os.getpid(),
            revision=self.state.revision,
            shares=self.state.shares,
            loaded={model: list(own) for model, own in self.state.loaded.items()},
            refused=self._refused,
            problems=self.state.problems,
        )

    def _without_folder(self, reason: str, choices: Choices) -> State | None:
        """The served versions stay."""
        self._followed = None
        problems = {"artifacts": reason}
        if problems == self.state.problems and choices.revision == self.state.revision:
            return None
        logger.error("%s", reason)
        return replace(self.state, problems=problems, revision=choices.revision)

    def _bring(
        self, found: dict[str, list[Version]], choices: Choices, quiet: dict[str, int]
    ) -> State:
        state = State(next(iter(found)), revision=choices.revision)
        for name in found.keys() | self.state.loaded.keys():
            choice = choices.of(name)
            if choice.off:
                continue
            running = self.state.loaded.get(name, {})
            there = [
                self._with_items(version, choice)
                for version in found.get(name, [])
                if version.name in quiet or version.number in running
            ]
            state.loaded[name], state.shares[name] = self._bring_model(name, there, choice)
            state.problems |= self._changed(name, there)
        state.loaded = {name: own for name, own in state.loaded.items() if own}
        in_place = {version.name for versions in found.values() for version in versions}
        self._refused = {name: why for name, why in self._refused.items() if name in in_place}
        state.problems |= {name: refusal.reason for name, refusal in self._refused.items()}
        return state

    def _bring_model(
        self, name: str, there: Sequence[Version], choice: Choice
    ) -> tuple[dict[str, Loaded], dict[str, float]]:
        """The versions of a model to serve, and their shares."""
        ready = dict(self.state.loaded.get(name, {}))
        tried: set[str] = set()
        while True:
            usable = [
                version
                for version in there
                if version.number not in choice.unloaded
                and (version.number in ready or not self._is_refused(version))
            ]
            shares = choice.shares([version.number for version in usable])
            wanted = [v for v in usable if v.number in shares or v.number in choice.loaded]
            missing = [v for v in wanted if v.number not in tried and not _is_ready(v, ready)]
            if not missing:
                break
            tried.add(missing[0].number)
            self._open_any(missing[0], choice, ready)
        if not shares:  # nothing could replace the running version
            return ready, self.state.shares.get(name, {})
        return {version.number: ready[version.number] for version in wanted}, shares

    def _open_any(self, version: Version, choice: Choice, ready: dict[str, Loaded]) -> None:
        """Adds a version, with the items that it was trained on if the others are broken."""
        self._open(version, choice, ready)
        if version.changed is not None and version.number not in ready:
            refusal = self._refused[version.name]
            self._open(replace(version, changed=None), choice, ready)
            self._refused[version.name] = refusal

    def _with_items(self, version: Version, choice: Choice) -> Version:
        """The version with its changed items."""
        revision = choice.items.get(version.number, 0)
        if not revision:
            return version
        names = (revision, version.model, version.number)
        return replace(version, changed=changed_folder(self._state_folder, *names))

    def _open(self, version: Version, choice: Choice, ready: dict[str, Loaded]) -> None:
        """Adds a version to the loaded ones, or to the refused ones."""
        try:
            running = self._running(version.model)
            model = self._opener.open(version, running)
            if running and _is_newer(model, running) and not choice.names(version.number):
                self._opener.compare(model, running)
        except ArtifactError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001  # the process stays up to say what is wrong
            reason = f"opening it failed: {type(error).__name__}"
            logger.critical("%s: opening it failed\n%s", version.name, frames(error))
        else:
            ready[version.number] = Loaded(model, version.signature, version.changed)
            self._refused.pop(version.name, None)
            return
        stays = ", ".join(ready)
        logger.error("refused %s: %s; still served: %s", version.name, reason, stays or "none")
        ROLLOUTS.labels(version.model, "refused").inc()
        self._refused[version.name] = Refusal(signature=version.signature, reason=reason)

    def _running(self, name: str) -> Model | None:
        """The version of a model with the largest share."""
        models = self.engine.registry.models if self.engine is not None else []
        return next((model for model in models if model.manifest.name == name), None)

    def _is_refused(self, version: Version) -> bool:
        refusal = self._refused.get(version.name)
        return refusal is not None and refusal.signature == version.signature

    def _changed(self, name: str, there: Sequence[Version]) -> dict[str, str]:
        """Running versions whose folder has changed, with a description of the change."""
        problems = {}
        for version in there:
            loaded = self.state.loaded.get(name, {}).get(version.number)
            if loaded is None or loaded.signature == version.signature:
                continue
            try:
                there_now = loaded.changed or version.folder
                same = open_artifact(there_now).manifest == loaded.model.manifest
                reason = "its files have changed: give the new content its own version"
            except ArtifactError as error:
                same, reason = False, str(error)
            if not same:
                problems[version.name] = f"{reason}; the version loaded before still answers"
                logger.error("%s: %s", version.name, problems[version.name])
        return problems


def _is_ready(version: Version, ready: Mapping[str, Loaded]) -> bool:
    loaded = ready.get(version.number)
    return loaded is not None and loaded.changed == version.changed


def _is_newer(one: Model, other: Model) -> bool:
    return int(one.manifest.version) > int(other.manifest.version)
