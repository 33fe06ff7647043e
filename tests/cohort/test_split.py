from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brain_mri.cohort.split import SPLITS, assign_official_splits, assign_splits

RATIOS = (0.72, 0.14, 0.14)
Cohort = tuple[list[str], list[int], list[str]]


def cohort(sizes_by_class: dict[str, list[int]]) -> Cohort:
    """Labels, groups and keys of a cohort whose classes have groups of the given sizes."""
    sizes = [(label, size) for label, groups in sizes_by_class.items() for size in groups]
    labels = [label for label, size in sizes for _ in range(size)]
    groups = [group for group, (_, size) in enumerate(sizes) for _ in range(size)]
    return labels, groups, [f"scan {row * 7919 % 100_003:06d}" for row in range(len(labels))]


cohorts = st.dictionaries(
    st.sampled_from("abcd"), st.lists(st.integers(1, 9), min_size=3, max_size=60), min_size=1
).map(cohort)
some_ratios = st.tuples(*[st.integers(1, 20)] * 3).map(
    lambda parts: tuple(part / sum(parts) for part in parts)
)
seeds = st.integers(0, 2**32)


@settings(max_examples=80)
@given(cohorts, some_ratios, seeds)
def test_no_group_straddles_and_shares_are_kept(data: Cohort, ratios: tuple[float, ...], seed: int) -> None:
    labels, groups, keys = data
    splits = assign_splits(labels, groups, keys, ratios=ratios, seed=seed)
    assert set(splits) == set(SPLITS)  # every file accounted for
    assert len(set(zip(groups, splits, strict=True))) == len(set(groups))
    for label in set(labels):
        members = [row for row, name in enumerate(labels) if name == label]
        largest = max(Counter(groups[row] for row in members).values())
        counts = Counter(splits[row] for row in members)
        for split, ratio in zip(SPLITS, ratios, strict=True):
            assert counts[split] > 0
            assert abs(counts[split] - ratio * len(members)) <= 2 * largest


@settings(max_examples=40)
@given(cohorts, seeds, st.randoms(use_true_random=False))
def test_order_of_rows_and_group_numbers_do_not_matter(data: Cohort, seed: int, random) -> None:
    labels, groups, keys = data
    order = random.sample(range(len(labels)), len(labels))
    renamed = random.sample(range(1000, 2000), max(groups) + 1)
    splits = assign_splits(labels, groups, keys, seed=seed)
    shuffled = assign_splits(
        [labels[row] for row in order],
        [renamed[groups[row]] for row in order],
        [keys[row] for row in order],
        seed=seed,
    )
    assert splits[order].tolist() == shuffled.tolist()


def test_single_scans_are_split_to_the_scan() -> None:
    labels, groups, keys = cohort({"a": [1] * 1000, "b": [1] * 500})
    counts = Counter(zip(labels, assign_splits(labels, groups, keys, seed=3), strict=True))
    assert [counts["a", split] for split in SPLITS] == [720, 140, 140]
    assert [counts["b", split] for split in SPLITS] == [360, 70, 70]


def test_large_groups_reach_every_split() -> None:
    """Were they all put into training, the test split would hold none of the cohort's repeated scans."""
    labels, groups, keys = cohort({"a": [4] * 100 + [1] * 600})
    splits = assign_splits(labels, groups, keys, seed=1)
    sizes = np.bincount(groups)
    large = Counter(split for group, split in zip(groups, splits, strict=True) if sizes[group] == 4)
    assert [large[split] for split in SPLITS] == [288, 56, 56]


def test_seed_decides_the_draw() -> None:
    data = cohort({"a": [1] * 50, "b": [1] * 50})
    first, again, other = (assign_splits(*data, seed=seed).tolist() for seed in (1, 1, 2))
    assert first == again != other


@settings(max_examples=60)
@given(cohorts, cohorts, some_ratios, seeds)
def test_shares_hold_for_what_is_there_and_what_comes(
    first: Cohort, second: Cohort, ratios: tuple[float, ...], seed: int
) -> None:
    table = Counter(zip(first[0], assign_splits(*first, ratios=ratios, seed=seed), strict=True))
    filled = {label: [table[label, split] for split in SPLITS] for label in set(first[0])}
    table.update(zip(second[0], assign_splits(*second, ratios=ratios, seed=seed, filled=filled), strict=True))
    for label in set(second[0]):
        sizes = [
            size
            for labels, groups, _ in (first, second)
            for size in Counter(
                group for group, name in zip(groups, labels, strict=True) if name == label
            ).values()
        ]
        for split, ratio in zip(SPLITS, ratios, strict=True):
            assert table[label, split] > 0
            assert abs(table[label, split] - ratio * sum(sizes)) <= 3 * max(sizes)


def test_what_comes_goes_where_most_is_missing() -> None:
    splits = assign_splits(*cohort({"a": [1] * 10}), ratios=RATIOS, seed=0, filled={"a": [72, 4, 14]})
    assert Counter(splits) == {"validation": 10}


def test_a_class_needs_a_group_for_each_split_that_lacks_it() -> None:
    one = cohort({"a": [1]})
    assert assign_splits(*one, seed=0, filled={"a": [7, 2, 0]}).tolist() == ["test"]
    with pytest.raises(ValueError, match=r"'a' has 1 groups of scans .* validation, test need one each"):
        assign_splits(*one, seed=0, filled={"a": [7, 0, 0]})


@pytest.mark.parametrize(
    "ratios", [(0.5, 0.5), (0.8, 0.2, 0.0), (0.8, 0.3, -0.1), (7, 2, 1), (float("nan"),) * 3]
)
def test_ratios_that_are_none_are_refused(ratios: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="three positive numbers"):
        assign_splits(*cohort({"a": [1] * 9}), ratios=ratios, seed=0)


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        (["a"] * 9, [0, 0, 0, 0, 1, 1, 1, 1, 1], r"'a' has 2 groups of scans \(9 files\)"),
        (["a", "a", "a", "b"], [0, 1, 2, 2], "more than one label, for instance group 2 with a, b"),
        (["a", "a", "a"], [0, 1, -1], "1 rows have no duplicate group"),
        (["a", "a", "a"], [0, 1], "group for each of 3 rows, got 2"),
        ([], [], "no rows"),
    ],
)
def test_cohorts_that_cannot_be_split_are_refused(labels: list[str], groups: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        assign_splits(labels, groups, [str(row) for row in range(len(labels))], seed=0)


@settings(max_examples=60)
@given(cohorts, seeds, st.data())
def test_official_test_half_stays_and_training_loses_what_it_shares(
    data: Cohort, seed: int, draw: st.DataObject
) -> None:
    labels, groups, keys = data
    official = draw.draw(
        st.lists(
            st.sampled_from(["train", "train", "test", None]), min_size=len(labels), max_size=len(labels)
        )
    )
    try:
        result = assign_official_splits(labels, groups, official, keys, ratios=RATIOS, seed=seed)
    except ValueError as error:
        assert "leave no" in str(error) or "groups of scans" in str(error)
        return
    test_groups = {group for group, half in zip(groups, official, strict=True) if half == "test"}
    for group, half, split, leaked in zip(groups, official, result.splits, result.leaked, strict=True):
        if half == "test":
            assert split == "test"
        elif group in test_groups:
            assert (split, leaked) == ("", True)
        else:
            assert split in {"train", "validation"}
            assert not leaked
    kept = [(group, split) for group, split in zip(groups, result.splits, strict=True) if split]
    assert len(set(kept)) == len({group for group, _ in kept})


def test_validation_is_cut_from_official_training_in_proportion() -> None:
    labels, groups, keys = cohort({"a": [1] * 200, "b": [2] * 100})
    official = ["test" if group % 2 else "train" for group in groups]
    groups[0] = groups[1]  # one training scan is a copy of a test scan
    result = assign_official_splits(labels, groups, official, keys, ratios=RATIOS, seed=4)
    counts = Counter(zip(labels, result.splits, strict=True))
    assert counts["a", ""] == result.leaked.sum() == 1
    assert [counts["a", split] for split in SPLITS] == [83, 16, 100]  # 99 shared out as 72 to 14
    assert [counts["b", split] for split in SPLITS] == [84, 16, 100]


def test_official_validation_stays_and_gives_way_to_test_only() -> None:
    labels = ["a"] * 6 + ["b"] * 3
    groups = [0, 1, 1, 2, 2, 3, 4, 5, 6]
    official = [
        "train",
        "train",
        "validation",
        "validation",
        "test",
        "validation",
        "train",
        "validation",
        "test",
    ]
    result = assign_official_splits(
        labels, groups, official, [str(row) for row in range(9)], ratios=RATIOS, seed=0
    )
    assert result.splits.tolist() == [
        "train", "", "validation", "", "test", "validation", "train", "validation", "test",
    ]  # fmt: skip


def test_official_test_half_without_a_class_is_refused() -> None:
    labels, groups, keys = cohort({"a": [1] * 6, "b": [1] * 6})
    with pytest.raises(ValueError, match="leave no test scans of: b"):
        assign_official_splits(
            labels, groups, ["train", "test"] * 3 + ["train"] * 6, keys, ratios=RATIOS, seed=0
        )
