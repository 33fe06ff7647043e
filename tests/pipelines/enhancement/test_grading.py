from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from brain_mri.datasets.checkpoints import CheckpointStore
from brain_mri.datasets.enhanced import EnhancedShardsDataset
from brain_mri.datasets.fundus_phantoms import FundusPhantomFolder
from brain_mri.datasets.tar_shards import TarShards
from brain_mri.imaging.fundus_phantom import GRADES
from brain_mri.models.loop import train_classifier
from brain_mri.models.recipe import make_recipe
from brain_mri.pipelines.enhancement.grading import NoLabelsError, labelled_photographs
from brain_mri.pipelines.enhancement.nodes import plan_enhancement, plan_shards
from brain_mri.pipelines.enhancement.parameters import EnhancementParameters


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> TarShards:
    """Enhanced phantoms of all grades, by the pipeline's own nodes."""
    folder = tmp_path_factory.mktemp("enhanced")
    parameters = EnhancementParameters.model_validate(
        {"phantoms": 48, "shard_mib": 4, "vessels": {"method": "threshold"}}
    )
    plan = plan_shards(FundusPhantomFolder(str(folder / "phantoms")), parameters)
    dataset = EnhancedShardsDataset(filepath=str(folder / "shards"))
    dataset.save(plan_enhancement(plan, parameters))
    return dataset.load()


def test_photographs_get_the_label_of_their_folder(shards: TarShards) -> None:
    read = labelled_photographs(shards, GRADES, image_size=64)
    assert read.pixels.shape == (48, 64, 64)
    assert read.label_counts == {0: 16, 1: 16, 2: 16}
    assert all(
        key.startswith(f"{GRADES[label]}/") for key, label in zip(read.scan_ids, read.labels, strict=True)
    )
    some = labelled_photographs(shards, ("severe", "none"), image_size=64)
    assert some.label_counts == {0: 16, 1: 16}
    with pytest.raises(
        NoLabelsError, match="None of 48 photographs lies in a folder that is called proliferative"
    ):
        labelled_photographs(shards, ("proliferative", "mild to moderate"), image_size=64)


@pytest.mark.tensorflow
def test_the_training_of_scans_trains_on_enhanced_photographs(shards: TarShards, tmp_path: Path) -> None:
    read = labelled_photographs(shards, GRADES, image_size=96)
    places = np.arange(read.rows)
    train, validation = (
        read.chosen(places[places % 4 != 0].tolist()),
        read.chosen(places[places % 4 == 0].tolist()),
    )
    for images, labels, _ in train.tensorflow(8, shuffle_seed=1).take(1):
        assert images.shape == (8, 96, 96, 1)
        assert labels.shape == (8,)
    recipe = make_recipe(
        "best", backbone="compact", weights=None, image_size=96, classes=GRADES, seed=1, epochs=4
    )
    network, history = train_classifier(recipe, train, validation, CheckpointStore(str(tmp_path)))
    losses = [epoch["loss"] for epoch in history["stages"][0]["epochs"]]
    assert losses[-1] < losses[0]
    assert network.output_shape == (None, 3)
