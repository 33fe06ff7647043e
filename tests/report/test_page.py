from __future__ import annotations

import base64
import copy
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from brain_mri.models.recipe import make_recipe
from brain_mri.report.cards import summary_sentences
from brain_mri.report.page import build_page
from brain_mri.report.text import decimal, duration, percent
from tests.report.conftest import NAMES

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
FIGURES = (
    "class_distribution",
    "image_properties",
    "sample_grid",
    "training_history",
    "confusion_matrix",
    "per_class_metrics",
    "roc_curves",
    "calibration",
    "coverage",
    "gradcam",
    "failures",
    "sample_predictions",
    "throughput_stages",
)


class Reader(HTMLParser):
    """What a browser would read: the text, the addresses, whether every tag is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag in ("td", "th"):
            self.words.append(" ")
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "link", "img", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"[ \n]+", " ", "".join(self.words))


@pytest.fixture
def parts(
    results: dict[str, Any], exploration: dict[str, Any], training_history: dict[str, Any]
) -> dict[str, Any]:
    counts = {
        "train": {"glioma": 151, "meningioma": 142, "notumor": 133, "pituitary": 124},
        "validation": {"glioma": 32, "meningioma": 31, "notumor": 28, "pituitary": 27},
        "test": {"glioma": 31, "meningioma": 29, "notumor": 23, "pituitary": 17},
    }
    split = {
        "source": {
            "kind": "folder",
            "synthetic": False,
            "url": "/scans/of mine",
            "why": "ingestion.source names it",
            "layout": "class folders",
            "files": 737,
            "fingerprint": "f00dcafe",
        },
        "parameters": {
            "source": None,
            "classes": None,
            "test_split": "grouped",
            "seed": 4711,
            "limits": {"min_side": 40},
            "phantom": {"images": 2000, "seed": 20},
        },
        "test_split": "grouped",
        "ratios": {"train": 0.72, "validation": 0.14, "test": 0.14},
        "seed": 4711,
        "counts": counts,
        "groups": {"count": 655, "largest": 22, "with_near_copies": 61},
        "duplicates": 18,
        "shared_with_official_test": 0,
        "quarantined": {"truncated": 3, "blank": 2},
    }
    model = {
        "backbone": "mobilenetv2",
        "weights": "imagenet",
        "recipe": "baseline",
        "parameters": 2_620_356,
        "image_size": 224,
        "seed": 815,
        "training_parameters": {"backbone": "auto", "weights": "auto", "epochs": 3, "seed": 815},
        "versions": {"python": "3.11.9", "tensorflow": "2.21.0"},
    }
    return {
        **results,
        "split_metadata": split,
        "preprocessing_stats": {"parameters": {"image_size": 160, "clahe": True}},
        "exploration": exploration,
        "training_history": training_history,
        "model_metadata": model,
        "recipe": make_recipe(
            "baseline",
            backbone="mobilenetv2",
            weights="imagenet",
            image_size=224,
            classes=tuple(NAMES),
            seed=815,
        ).model_dump(mode="json"),
        "version": "2026-11-28T20.00.00.000Z",
        "pictures": dict.fromkeys(FIGURES, PNG),
        "synthetic": False,
    }


def test_the_page_holds_every_number_given(parts: dict[str, Any]) -> None:
    text = Reader(build_page(**parts)).text
    for key, value in parts["metrics"].items():
        assert decimal(value) in text, key
    split, report = parts["split_metadata"], parts["report"]
    given = [number for part in split["counts"].values() for number in part.values()]
    given += [split["duplicates"], split["seed"], *split["groups"].values(), *split["quarantined"].values()]
    given += [report["right"], report["scans"], 714, 737, 2_620_356, 361_860, 815]
    for number in given:
        assert re.search(rf"(?<![\d,]){number:,}(?![\d,])|(?<!\d){number}(?!\d)", text), number
    for word in (
        *report["sentences"].values(),
        "f00dcafe",
        "2.21.0",
        "It memorises.",
        "1.23",
        "0.4321",
        "13 min",
    ):
        assert word in text


def test_the_page_needs_nothing_from_outside(parts: dict[str, Any]) -> None:
    page = build_page(**parts)
    reader = Reader(page)
    assert reader.open == []
    assert reader.tags.count("img") == len(FIGURES)
    assert all(address.startswith(("data:", "#")) for address in reader.addresses)
    assert "http" not in re.sub(r"base64,[^\"]+", "", page)
    assert "script" not in reader.tags
    assert "@import" not in page
    assert "url(" not in page
    anchors = {address.removeprefix("#") for address in reader.addresses if address.startswith("#")}
    assert anchors <= set(re.findall(r'id="([^"]+)"', page))


@pytest.mark.parametrize("synthetic", [True, False])
def test_the_banner_is_there_exactly_when_the_data_are_synthetic(
    parts: dict[str, Any], synthetic: bool
) -> None:
    page = build_page(**{**parts, "synthetic": synthetic})
    assert ('class="banner"' in page) is synthetic
    assert ("synthetic" in Reader(page).text.lower()) is synthetic


def test_the_page_says_that_it_is_no_medical_device(parts: dict[str, Any]) -> None:
    assert "Not a medical device." in Reader(build_page(**parts)).text


def test_what_others_named_is_escaped(parts: dict[str, Any]) -> None:
    hostile = copy.deepcopy(parts)
    hostile["report"]["names"]["glioma"] = "<script>alert(1)</script>"
    hostile["split_metadata"]["source"]["url"] = '"><img src=x>'
    hostile["split_metadata"]["quarantined"] = {"<b>bold</b>": 1}
    reader = Reader(build_page(**hostile))
    assert {"script", "b"} & set(reader.tags) == {"b"}  # the tiles' own
    assert reader.tags.count("img") == len(FIGURES)
    assert "<script>alert(1)</script>" in reader.text
    assert "<b>bold</b>" in reader.text


def test_a_class_without_test_scans_shows_a_dash(parts: dict[str, Any]) -> None:
    for score in ("precision", "recall", "specificity", "f1", "roc_auc"):
        parts["metrics"][f"{score}_glioma"] = None
        parts["report"]["intervals"][f"{score}_glioma"] = None
    parts["report"]["per_class"]["glioma"] |= {"recall": None, "support": 0}
    assert "– Glioma recall" in re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", build_page(**parts)))


def test_the_summary_says_what_a_clinician_asks(parts: dict[str, Any]) -> None:
    report = parts["report"]
    report["confusion_matrix"] = [[30, 1, 0, 0], [0, 27, 2, 0], [1, 0, 22, 0], [0, 0, 0, 17]]
    text = Reader(build_page(**parts)).text
    assert "Of 77 tumours it missed 2 (called the scan free of tumours)." in text
    assert "In 23 scans without a tumour it saw 1." in text
    assert "Its commonest mistake: Meningioma taken for No tumour, 2 of 29." in text
    assert "at least 90% sure, which was so for 64 scans, it was right for 98.4\xa0%" in text
    assert len(summary_sentences(report, parts["metrics"], synthetic=False)) <= 10


def test_the_cards_are_made_from_the_run(parts: dict[str, Any]) -> None:
    text = Reader(build_page(**parts)).text
    for words in (
        "2026-11-28T20.00.00.000Z",
        "frozen base, up to 5 epochs of batches of 16 at a learning rate of 0.001; then fine-tuning",
        "train 550, validation 118, test 100; train 72.0\xa0%",
        "655, the largest of 22 scans; 61 of them hold several scans",
        "87.1\xa0% (Glioma)",
        "takes 45.7\xa0% of the picture",
        "none of these scans has a twin in training, unless it is mirrored; they fall",
        "not looked for, so that one of a training scan may be tested on",
    ):
        assert words in text, words
    parts["split_metadata"]["parameters"]["mirrored_copies"] = True
    text = Reader(build_page(**parts)).text
    assert "in the group of their scan" in text
    assert "none of these scans has a twin in training; they fall" in text


def test_repetitions_are_shown_beside_the_one_pass(parts: dict[str, Any]) -> None:
    text = Reader(build_page(**parts)).text
    for words in ("0.9123", "0.9124", "0.0125", "0.9126", "seed 7, version 2026-11-27", "ensemble of the 2"):
        assert words in text
    repetitions = parts["repetitions"]
    repetitions |= {"seeds": repetitions["seeds"][:1], "mean": None, "spread": None, "ensemble": None}
    text = Reader(build_page(**parts)).text
    assert "0.9123" in text
    assert "0.0125" not in text
    assert "Train again with another training.seed" in text


def test_the_pointing_game_is_told_where_it_was_played(parts: dict[str, Any]) -> None:
    assert "Freshly drawn" not in build_page(**parts)
    parts["explanations"]["pointing_game"] = {
        "phantoms": 75,
        "hits": {"HiResCAM": {"glioma": 0.96}, "Grad-CAM": {"glioma": 0.912}},
        "chance": {"glioma": 0.081},
    }
    text = Reader(build_page(**parts)).text
    assert "Freshly drawn heads, 75 of them" in text
    assert "HiResCAM 96.0\xa0% Grad-CAM 91.2\xa0% a random point of the head 8.1\xa0%" in text


def test_sections_of_other_pipelines_are_shown(parts: dict[str, Any]) -> None:
    assert 'id="section-1"' not in build_page(**parts)
    section = {
        "title": "Leak <audit>",
        "paragraphs": ["The cost of leakage."],
        "tables": [
            {"caption": "Protocols", "columns": ["protocol", "accuracy"], "rows": [["official", "0.9871"]]}
        ],
        "figures": [{"caption": "Robustness", "png": base64.b64encode(PNG).decode()}],
    }
    reader = Reader(build_page(**parts, sections=[section, {"title": "Bare"}]))
    for word in ("Leak <audit>", "The cost of leakage.", "Protocols", "0.9871", "Robustness", "Bare"):
        assert word in reader.text
    assert "#section-2" in reader.addresses
    assert reader.tags.count("img") == len(FIGURES) + 1


def test_the_page_shows_the_command_and_what_it_cannot_carry(parts: dict[str, Any]) -> None:
    text = Reader(build_page(**parts)).text
    assert "ingestion.source=/scans/of mine,ingestion.classes=null," in text
    assert "conf/local/parameters.yml" not in text
    parts["split_metadata"]["parameters"]["classes"] = ["normal", "tumour"]
    text = Reader(build_page(**parts)).text
    assert "ingestion.classes" not in text
    assert "conf/local/parameters.yml first: ingestion: classes: - normal - tumour" in text


def test_numbers_are_written_for_people() -> None:
    assert percent(0.98543) == "98.5\N{NO-BREAK SPACE}%"
    assert percent(None) == decimal(None) == "–"
    assert [decimal(value) for value in (0.98543, 12, 5712, 1643.2, 12.3456)] == [
        "0.9854",
        "12",
        "5,712",
        "1,643",
        "12.35",
    ]
    assert [duration(seconds) for seconds in (42.4, 754)] == ["42 s", "13 min"]


def test_a_set_that_grew_from_several_sources_names_them_all(parts: dict[str, Any]) -> None:
    assert "added one after another" not in Reader(build_page(**parts)).text
    source = parts["split_metadata"]["source"]
    grown = {**source, "added_to": ["/scans/one & two", source["url"]]}
    metadata = {**parts["split_metadata"], "source": grown}
    text = re.sub(r"\s+", " ", Reader(build_page(**{**parts, "split_metadata": metadata})).text)
    assert f"/scans/one & two, then {source['url']}" in text
    assert (
        f"in their order: /scans/one & two, {source['url']}; on the first with ingestion.append=false" in text
    )
