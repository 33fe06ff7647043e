"""Where trials run: in Spark tasks, unless what they gave is stored."""

from __future__ import annotations

import json
import logging
import secrets
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from brain_mri.datasets.checkpoints import CheckpointStore
from brain_mri.datasets.features import FeatureCache, FeatureSet
from brain_mri.datasets.shards import ShardSet
from brain_mri.models.backbones import build_backbone
from brain_mri.models.features import Features
from brain_mri.models.questions import Desk
from brain_mri.models.recipe import Recipe
from brain_mri.models.trial import TrialResult, run_trial
from brain_mri.pipelines.training.caching import cache_features
from brain_mri.pipelines.training.parameters import TrainingParameters
from brain_mri.pipelines.tuning.parameters import TuningParameters
from brain_mri.spark.each import EachLauncher
from brain_mri.spark.launchers import SparkLauncher
from brain_mri.spark.processes import Needs

log = logging.getLogger(__name__)


class Bench:
    """Runs trials, as many at once as Spark has slots, and keeps what each gave.

    Args:
        train: Images to learn from.
        validation: Images to measure on.
        store: Of what has ended.
        cache: Store of what frozen layers compute.
        tuning: What the user decided about the search.
        training: What is not varied.
    """

    def __init__(  # noqa: PLR0917
        self,
        train: ShardSet,
        validation: ShardSet,
        store: CheckpointStore,
        cache: FeatureCache,
        tuning: TuningParameters,
        training: TrainingParameters,
    ) -> None:
        self._sets, self._store, self._cache = (train, validation), store, cache
        self._tuning, self._training = tuning, training
        needs = Needs(tuning.trial_cores, tuning.trial_memory_gib, asked_by="tuning.trial")
        self._launcher = EachLauncher(needs)
        self._features: dict[str, Features] = {}

    def run(
        self, wanted: Mapping[str, Recipe], decide: Callable[[str, int, float], bool]
    ) -> dict[str, TrialResult]:
        """Run trials, by name, or find what they gave before.

        Args:
            wanted: The recipe of each.
            decide: From a name, the number of an epoch and the metric after it to whether to go on.

        Raises:
            TooFewSlotsError: Spark has no slot.
            OSError: Of storage.
        """
        results = {
            name: result
            for name, recipe in wanted.items()
            if (result := self._stored(name, recipe)) is not None
        }
        missing = [name for name in wanted if name not in results]
        if results:
            log.info("%d trials had ended before; %d are left of these.", len(results), len(missing))
        if not missing:
            return results
        given = {name: (self._features_of(wanted[name]), self.weights_of(wanted[name])) for name in missing}
        listener, address = self._launcher.open_listener()
        secret = secrets.token_bytes(32)
        desk = Desk(listener, secret, {"report": decide})
        try:
            functions = [
                partial(
                    run_trial, wanted[name], *self._sets, given[name][0], self._tuning.metric,
                    given[name][1], (name, address, secret),
                )
                for name in missing
            ]  # fmt: skip
            for place, result in self._launcher.run(functions, _lost):
                name = missing[place]
                results[name] = result
                kept = {"recipe": wanted[name].model_dump(mode="json"), "result": result._asdict()}
                self._store.save(_file(name), json.dumps(kept).encode())
                log.info("%s", in_words(name, wanted[name], result, self._tuning.metric))
        finally:
            desk.close()
        return results

    def _stored(self, name: str, recipe: Recipe) -> TrialResult | None:
        """What a trial gave before; None too where it was lost, or where that was another recipe."""
        content = self._store.load(_file(name))
        if content is None:
            return None
        kept = json.loads(content)
        if kept["recipe"] != recipe.model_dump(mode="json") or kept["result"]["status"] == "lost":
            return None
        return TrialResult(**{**kept["result"], "values": tuple(kept["result"]["values"])})

    def weights_of(self, recipe: Recipe) -> Callable[[], bytes | None] | None:
        """The way to the backbone's weights, which this process has; they are stored for the study once.

        Raises:
            WeightsError: They cannot be had or do not fit.
        """
        if recipe.weights is None:
            return None
        name = f"{recipe.backbone}.weights.h5"
        if name not in self._store.names():
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / name
                build_backbone(recipe.backbone, recipe.weights, recipe.image_size).save_weights(path)
                self._store.save(name, path.read_bytes())
        return partial(self._store.load, name)

    def _features_of(self, recipe: Recipe) -> Features:
        """What frozen layers compute for a recipe; recipes that freeze the same share it."""
        frozen = [recipe.backbone, recipe.weights, recipe.augmentation.model_dump(), recipe.seed]
        frozen += [stage.unfrozen_layers for stage in recipe.stages]
        key = json.dumps(frozen)
        if key not in self._features:
            limit, dtype = int(self._training.cache_gib * 2**30), self._training.cache_dtype
            keep = {
                features.url.rpartition("/")[2]
                for handed in self._features.values()
                for stage in handed.values()
                for features in (*stage.train, stage.validation)
                if isinstance(features, FeatureSet)
            }
            found: Features = {}
            if limit:
                found = cache_features(recipe, *self._sets, self._cache, SparkLauncher(), limit, dtype, keep)
            self._features[key] = found
        return self._features[key]


def in_words(name: str, recipe: Recipe, result: TrialResult, metric: str) -> str:
    """How a trial ended, in a line."""
    reached = getattr(result, metric)
    said = f"{metric} {reached:.4f}" if reached is not None else result.reason.split("\n")[0]
    rates = ", ".join(f"{stage.learning_rate:.2g}" for stage in recipe.stages)
    return (
        f"{name.capitalize()}: {result.status}, {said}, {len(result.values)} epochs in "
        f"{result.seconds:.0f} s ({recipe.backbone}, rates {rates}, batch {recipe.stages[0].batch_size})."
    )


def _file(name: str) -> str:
    return f"{name.replace(' ', '-')}.json"


def _lost(obituary: str) -> TrialResult:
    return TrialResult("lost", reason=obituary)
