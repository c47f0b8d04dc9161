"""The operator's requests: load and unload versions, and split traffic between them.

Each one changes the choices, waits until all workers have followed, and undoes the change if a
worker could not.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from persona.contract import ModelNotFound, VersionNotFound
from service.errors import Conflict
from service.versions.choices import Choice, Choices
from service.versions.folder import scan
from service.versions.reports import Report
from service.versions.watching import Watcher


@dataclass(frozen=True)
class ModelState:
    """The state of a model in all workers."""

    model: str
    shares: dict[str, float]  # version -> share of the requests that name no version
    loaded: list[str]  # by every worker
    refused: dict[str, str]  # version -> reason
    workers: int


async def load(watcher: Watcher, name: str, version: str | None) -> ModelState:
    """Loads a version beside the others; without one, loads the newest as if it had just appeared.

    Raises:
        ModelNotFound: the folder has no such model or version.
        Conflict: the version is broken; the message says why.
        DeadlineExceeded: a worker has not followed.
    """
    there = await _require(watcher, name, version)

    def change(choice: Choice) -> None:
        choice.off = False
        if version is None:
            choice.unloaded = []
        else:
            choice.unloaded = [other for other in choice.unloaded if other != version]
            choice.loaded = [*{*choice.loaded, version}]

    return await _change(watcher, name, change, wanted=[version or there[0]])


async def unload(watcher: Watcher, name: str, version: str | None) -> ModelState:
    """Removes a version, or a whole model; queries that use it are still answered.

    Raises:
        ModelNotFound: the folder has no such model or version.
        Conflict: the model is the default, or no other version could take its place.
        DeadlineExceeded: a worker has not followed.
    """
    await _require(watcher, name, version)
    if version is None and name == watcher.rollout.state.default:
        raise Conflict(f"'{name}' is the default model, which cannot be unloaded")

    def change(choice: Choice) -> None:
        if version is None:
            choice.off = True
        else:
            choice.unloaded = [*{*choice.unloaded, version}]
            choice.loaded = [other for other in choice.loaded if other != version]
            choice.weights.pop(version, None)

    return await _change(watcher, name, change, unwanted=version)


async def share(watcher: Watcher, name: str, weights: Mapping[str, float]) -> ModelState:
    """Splits the requests that name no version; without weights, the newest gets all.

    Raises:
        ModelNotFound: the folder has no such model or version.
        Conflict: a version is broken; the message says why.
        DeadlineExceeded: a worker has not followed.
    """
    for version in weights or [None]:
        await _require(watcher, name, version)

    def change(choice: Choice) -> None:
        choice.weights = dict(weights)
        choice.unloaded = [other for other in choice.unloaded if other not in weights]

    return await _change(watcher, name, change, wanted=list(weights))


async def _require(watcher: Watcher, name: str, version: str | None) -> list[str]:
    """The versions of a model in the folder, newest first."""
    found = await asyncio.to_thread(scan, watcher.rollout.root)
    if name not in found:
        raise ModelNotFound(f"no model '{name:.60}' in the artifacts, only {', '.join(found)}")
    numbers = [one.number for one in found[name]]
    if version is not None and version not in numbers:
        raise VersionNotFound(f"no version '{version:.60}' of '{name}', only {', '.join(numbers)}")
    return numbers


async def _change(
    watcher: Watcher,
    name: str,
    change: Callable[[Choice], None],
    *,
    wanted: list[str] | None = None,
    unwanted: str | None = None,
) -> ModelState:
    """Changes a model's choices, and undoes the change if a worker cannot follow."""
    before = (await watcher.choices()).of(name)
    after = before.model_copy(deep=True)
    change(after)
    reports = await watcher.choose(_put(name, after))
    state = state_of(name, reports)
    refused = [f"version {v}: {state.refused[v]}" for v in wanted or [] if v in state.refused]
    if any(unwanted in report.loaded.get(name, []) for report in reports):
        refused.append(f"no other version could take the place of version {unwanted}")
    if refused:
        await watcher.choose(_put(name, before))
        raise Conflict(f"'{name}' has not changed: {'; '.join(refused)}")
    return state


def _put(name: str, choice: Choice) -> Callable[[Choices], None]:
    def put(choices: Choices) -> None:
        choices.models[name] = choice

    return put


def state_of(name: str, reports: list[Report]) -> ModelState:
    """The state of a model, according to the reports of all workers."""
    loaded = [report.loaded.get(name, []) for report in reports]
    everywhere = [version for version in loaded[0] if all(version in own for own in loaded)]
    refused = {
        version.partition("/")[2]: reason
        for report in reports
        for version, reason in report.problems.items()
        if version.startswith(f"{name}/")
    }
    return ModelState(name, reports[0].shares.get(name, {}), everywhere, refused, len(reports))
