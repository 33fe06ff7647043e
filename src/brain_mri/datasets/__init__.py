"""Catalog entries and picklable handles to data: Kedro datasets over HDFS, disk and cloud through fsspec.

The Spark and Keras entries import their libraries when the catalog makes them, not when this package is
imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brain_mri.datasets.checkpoints import CheckpointStore, CheckpointStoreDataset
    from brain_mri.datasets.enhanced import EnhancedShardsDataset
    from brain_mri.datasets.features import FeatureCache, FeatureCacheDataset, FeatureSet
    from brain_mri.datasets.files import FigureDataset, HtmlDataset, JsonDataset, OptionalJsonDataset
    from brain_mri.datasets.fundus_phantoms import FundusPhantomDataset, FundusPhantomFolder
    from brain_mri.datasets.keras_model import KerasModelDataset
    from brain_mri.datasets.originals import OriginalFilesDataset
    from brain_mri.datasets.prepared import PreparedParts, PreparedPartsDataset
    from brain_mri.datasets.scans import PackedScans, PackedScansDataset, SparkScansDataset
    from brain_mri.datasets.scores import Scores, ScoresDataset
    from brain_mri.datasets.shard_datasets import ShardSetDataset, TensorFlowShardsDataset
    from brain_mri.datasets.shards import ShardSet
    from brain_mri.datasets.source import RawFolder, RawFolderDataset
    from brain_mri.datasets.spark_shards import SparkShardsDataset
    from brain_mri.datasets.tables import EarlierTableDataset, TableDataset
    from brain_mri.datasets.tar_shards import TarShardDataset, TarShards
    from brain_mri.datasets.versions import FolderVersion, FolderVersionsDataset, VersionedFolderDataset

__all__ = [
    "CheckpointStore",
    "CheckpointStoreDataset",
    "EarlierTableDataset",
    "EnhancedShardsDataset",
    "FeatureCache",
    "FeatureCacheDataset",
    "FeatureSet",
    "FigureDataset",
    "FolderVersion",
    "FolderVersionsDataset",
    "FundusPhantomDataset",
    "FundusPhantomFolder",
    "HtmlDataset",
    "JsonDataset",
    "KerasModelDataset",
    "OptionalJsonDataset",
    "OriginalFilesDataset",
    "PackedScans",
    "PackedScansDataset",
    "PreparedParts",
    "PreparedPartsDataset",
    "RawFolder",
    "RawFolderDataset",
    "Scores",
    "ScoresDataset",
    "ShardSet",
    "ShardSetDataset",
    "SparkScansDataset",
    "SparkShardsDataset",
    "TableDataset",
    "TarShardDataset",
    "TarShards",
    "TensorFlowShardsDataset",
    "VersionedFolderDataset",
]

_MODULES = {
    "checkpoints": ("CheckpointStore", "CheckpointStoreDataset"),
    "enhanced": ("EnhancedShardsDataset",),
    "features": ("FeatureCache", "FeatureCacheDataset", "FeatureSet"),
    "files": ("FigureDataset", "HtmlDataset", "JsonDataset", "OptionalJsonDataset"),
    "fundus_phantoms": ("FundusPhantomDataset", "FundusPhantomFolder"),
    "keras_model": ("KerasModelDataset",),
    "originals": ("OriginalFilesDataset",),
    "prepared": ("PreparedParts", "PreparedPartsDataset"),
    "scans": ("PackedScans", "PackedScansDataset", "SparkScansDataset"),
    "scores": ("Scores", "ScoresDataset"),
    "shard_datasets": ("ShardSetDataset", "TensorFlowShardsDataset"),
    "shards": ("ShardSet",),
    "source": ("RawFolder", "RawFolderDataset"),
    "spark_shards": ("SparkShardsDataset",),
    "tables": ("EarlierTableDataset", "TableDataset"),
    "tar_shards": ("TarShardDataset", "TarShards"),
    "versions": ("FolderVersion", "FolderVersionsDataset", "VersionedFolderDataset"),
}


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"brain_mri.datasets.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
