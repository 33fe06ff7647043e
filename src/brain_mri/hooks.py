"""What the project adds to every Kedro run: settings, checks, the lock, and what made which output."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines

from brain_mri.cluster.connection import use_cluster
from brain_mri.parameters import RunParameters, check_parameters
from brain_mri.spark import session
from brain_mri.storage.files import sweep
from brain_mri.storage.hadoop import check_storage_root, default_filesystem
from brain_mri.storage.lock import RunLock
from brain_mri.storage.provenance import Provenance, expected_fingerprints
from brain_mri.storage.reach import check_reachable
from brain_mri.storage.tree import describe_tree

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node

logger = logging.getLogger(__name__)


class StaleOutputsError(RuntimeError):
    """A resumed run would build on outputs that other parameters or another source made."""


class ProjectHooks:
    """The hooks; one object lives as long as its process and serves one run at a time."""

    def __init__(self) -> None:
        self._parameters: dict[str, Any] = {}
        self._storage = ""
        self._lock: RunLock | None = None
        self._provenance: Provenance | None = None
        self._catalog: DataCatalog | None = None
        self._expected: dict[str, str] = {}

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Keep Spark's settings for when a session is needed, and refuse parameters that nothing reads."""
        # TensorFlow would take a whole GPU, which workers on this machine may need too.
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        self._parameters = context.config_loader["parameters"]
        check_parameters(self._parameters)
        storage = str(context.config_loader["globals"]["storage"])
        source = self._parameters.get("ingestion", {}).get("source") or os.environ.get("BRAIN_MRI_DATA")
        scored = self._parameters.get("inference", {}).get("source") or []
        scored = [scored] if isinstance(scored, str) else scored
        enhanced = self._parameters.get("enhancement", {})
        places = (storage, source, *scored, enhanced.get("source"), enhanced.get("output"))
        if any(str(place).startswith("hdfs://") for place in places):
            use_cluster(Path(context.project_path))  # before SPARK_MASTER is read
        filesystem = default_filesystem() if storage.startswith("hdfs://") else None
        session.configure(context.config_loader["spark"], filesystem)
        # Kedro reads relative paths of the catalog from the project, wherever the command is typed.
        self._storage = storage if "://" in storage else str(Path(context.project_path) / storage)

    @hook_impl
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Reach storage and Spark, say what will be done, lock, stop before anything stale is built upon."""
        run = RunParameters.model_validate(self._parameters.get("run", {}))
        check_storage_root(self._storage)
        if "://" in self._storage:  # a disk answers at once
            logger.info("Looking whether %s can be used.", self._storage)
        check_reachable(self._storage)
        if _uses_spark(pipeline, self._parameters):
            session.check_configured()
        values: dict[str, object] = {
            f"params:{section}": value for section, value in self._parameters.items() if section != "run"
        }
        if self._parameters.get("training", {}).get("config") != "tuned":
            values["best_config"] = None  # read, and not used: another one makes no output stale
        if "raw" in pipeline.inputs():
            from brain_mri.datasets.source import survey_source
            from brain_mri.plan import describe_run

            survey = survey_source(catalog.load("raw"), self._parameters["ingestion"].get("source"))
            if survey.source.is_shared:  # tasks pack it
                session.check_configured()
            values["raw"] = survey.identity
            nodes = {node.name for node in pipeline.nodes}
            does = {"trains": "train_network" in nodes, "tunes": "search" in nodes}
            logger.info("%s", describe_run(survey, self._parameters, self._storage, **does))
        self._look_for_what_was_tuned(pipeline, catalog)
        self._lock = RunLock(self._storage)
        self._lock.acquire(break_lock=run.break_lock)
        try:
            swept = sweep(self._storage)
            if swept:
                logger.info("Removed %d leftovers of runs that were broken off.", swept)
            self._provenance, self._catalog = Provenance(self._storage), catalog
            self._expected = expected_fingerprints(pipeline.nodes, values, self._provenance)
            if run_params.get("only_missing_outputs"):
                self._refuse_stale(pipeline, catalog, allowed=run.allow_stale)
        except BaseException:
            self._lock.release()
            raise

    @hook_impl
    def before_dataset_saved(self, dataset_name: str, data: Any, node: Node) -> None:
        """See that a kill between the save and its record leaves no output with a wrong fingerprint.

        An output that is not there can only appear as what this run makes, so that is recorded in advance:
        a resumed run would take it for stale otherwise. One that is there loses the record of what it was.
        """
        name = dataset_name.split("@", maxsplit=1)[0]
        if self._provenance is None or self._catalog is None:
            return
        if name == "split_metadata":
            self._forget_what_is_of_other_scans(data["source"]["fingerprint"])
        expected = self._expected.get(name)
        if expected is None or expected == self._provenance.recorded(name):
            return
        if self._catalog.exists(dataset_name):
            self._provenance.forget(name)
        else:
            self._provenance.record(name, expected)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any, node: Node) -> None:
        """Record what made the output; with a published version, its training is over."""
        name = dataset_name.split("@", maxsplit=1)[0]
        if name == "classifier" and self._catalog is not None and "checkpoints" in self._catalog:
            self._catalog.load("checkpoints").clear()
        expected = self._expected.get(name)
        if self._provenance is not None and expected and expected != self._provenance.recorded(name):
            self._provenance.record(name, expected)

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline) -> None:
        """Show what lies where after an upload, and give the lock back."""
        try:
            if "scans@packed" in pipeline.all_outputs():
                logger.info("%s", describe_tree(self._storage))
        except OSError as error:  # all the work is done
            logger.warning("What lies below %s cannot be shown: %s", self._storage, error)
        finally:
            self._release()

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Give the lock back."""
        self._release()

    def _look_for_what_was_tuned(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """See that a run that is to train with what a search has found will have it.

        Raises:
            NotTunedError: It will not.
        """
        nodes = {node.name for node in pipeline.nodes}
        tuned = self._parameters["training"]["config"] == "tuned"
        if "train_network" not in nodes:
            return
        if "search" in nodes and not tuned:
            logger.warning(
                "This run searches for a configuration and trains without it: training.config=tuned takes it."
            )
        elif tuned and "search" not in nodes and not catalog.load("best_config"):
            from brain_mri.pipelines.training.nodes import NotTunedError

            raise NotTunedError

    def _forget_what_is_of_other_scans(self, fingerprint: str) -> None:
        """Let nothing pass for fresh that was made of other scans than those that the manifest names now.

        Fingerprints of outputs do not know which scans a source was added to.
        """
        assert self._provenance is not None
        assert self._catalog is not None
        earlier = self._catalog.load("earlier_split_metadata")
        if earlier and earlier["source"]["fingerprint"] != fingerprint:
            whole = pipelines["__default__"] + pipelines["tuning"] + pipelines["audit"]
            for name in whole.from_inputs("manifest", "split_metadata").all_outputs():
                self._provenance.forget(name.split("@", maxsplit=1)[0])

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
        self._lock = self._provenance = self._catalog = None
        self._expected = {}

    def _refuse_stale(self, pipeline: Pipeline, catalog: DataCatalog, *, allowed: bool) -> None:
        """Name the outputs that exist and were made otherwise.

        Raises:
            StaleOutputsError: There are some, and `run.allow_stale` is not set.
        """
        provenance = self._provenance
        assert provenance is not None
        stale = sorted(
            {
                name.split("@")[0]
                for name in pipeline.all_outputs()
                if catalog.exists(name)
                and provenance.recorded(name.split("@")[0]) != self._expected[name.split("@")[0]]
            }
        )
        if not stale:
            return
        message = (
            f"These outputs under {self._storage} were made by other parameters, another source or another "
            f"version of the pipeline: {', '.join(stale)}."
        )
        if not allowed:
            raise StaleOutputsError(
                f"{message} Run without --only-missing-outputs to make them anew, or build on them all the "
                "same with --params=run.allow_stale=true."
            )
        logger.warning("%s Building on them, as run.allow_stale says.", message)
        # What is made now has several origins; recorded under today's parameters it would pass for fresh.
        self._expected = {}


def _uses_spark(pipeline: Pipeline, parameters: dict[str, Any]) -> bool:
    """Whether a node works with Spark whatever the source is."""
    training = parameters.get("training", {})
    distributed = training.get("distribution", "none") != "none"
    caches = training.get("augmented_copies") is not None and training.get("cache_gib", 1) > 0
    return (
        not pipeline.all_outputs().isdisjoint({"prepared_parts", "tuning_trials"})
        or ("trained_network" in pipeline.all_outputs() and (distributed or caches))
        or any(name.endswith("@spark") for name in pipeline.datasets())
    )
