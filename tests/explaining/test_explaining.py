"""From image files to pictures, maps and a record: what is in them, and what must not be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file
from torch import Tensor

from lucency.data.preprocess import InputContract
from lucency.errors import CannotWrite, ConfigError, DataError, ModelError
from lucency.explain import Attribution
from lucency.explaining import ExplainRecord, explain_files
from lucency.explaining.choices import choose, with_layer
from lucency.explaining.words import in_words, warnings_of
from lucency.runs import read_json, verify
from lucency.victims.architectures import build
from lucency.victims.card import save_victim
from lucency.victims.victim import Victim, predict
from tiny_run import Answer, call

FINDINGS = ("Effusion", "Mass", "Pleural, other")
SIZE = 32
CONTRACT = InputContract(size=SIZE, crop=0.8)


def constant(victim: Victim, grey: Tensor, findings: Sequence[int]) -> Attribution:
    maps = torch.ones(len(grey), len(findings), 2, 3)
    return Attribution(maps, torch.zeros(len(grey), 3), tuple(findings))


def bright(victim: Victim, grey: Tensor, findings: Sequence[int]) -> Attribution:
    """The image itself, times the finding's index + 1; complains about each image."""
    scale = torch.tensor([f + 1.0 for f in findings]).view(1, -1, 1, 1)
    with torch.no_grad():
        logits = victim.logits(grey)
    errors = torch.full((len(grey), len(findings)), 0.25)
    return Attribution(grey * scale, logits, tuple(findings), errors, ("Off by 25%.",))


def layered(
    victim: Victim, grey: Tensor, findings: Sequence[int], *, layer: str = "stem"
) -> Attribution:
    value = -2.0 if layer == "deep" else 2.0
    maps = torch.full((len(grey), len(findings), 2, 2), value)
    return Attribution(maps, torch.zeros(len(grey), 3), tuple(findings))


def refusing(victim: Victim, grey: Tensor, findings: Sequence[int]) -> Attribution:
    raise ModelError("This method needs gradients.")


TABLE = {"constant": constant, "bright": bright, "layered": layered}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "small"
    network = build("densenet-small", 1, len(FINDINGS), 3).eval()
    save_victim(folder, Victim(network, CONTRACT, FINDINGS), "densenet-small", "")
    return folder


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Two good films of different depth, and between them one that is broken."""
    rng = np.random.default_rng(5)
    folder = tmp_path / "films"
    folder.mkdir()
    paths = [folder / name for name in ("Doe^Jane.png", "torn.png", "Roe^Rick.png")]
    Image.fromarray(rng.integers(0, 256, (60, 80), dtype=np.uint8)).save(paths[0])
    paths[1].write_bytes(paths[0].read_bytes()[:-200])
    Image.fromarray(rng.integers(0, 65536, (50, 40), dtype=np.uint16)).save(paths[2])
    return paths


def explained(images: list[Path], model: Path, out: Path, **options) -> ExplainRecord:
    options = {"findings": ["all"], "methods": ["bright"], "table": TABLE} | options
    return explain_files(images, model, out, **options)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_files_and_the_record(images: list[Path], model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    record = explained(images, model, out, methods=["bright,constant"])
    assert names(out) == {
        ".lock",
        "explain.json",
        "manifest.json",
        *(f"image-{n}-{m}.png" for n in ("0001", "0003") for m in ("bright", "constant")),
        "image-0001.safetensors",
        "image-0003.safetensors",
    }
    assert verify(out) == []
    assert read_json(out / "explain.json", ExplainRecord) == record
    assert json.loads((out / "explain.json").read_text())["schema"] == "lucency/explain/1"
    assert (record.model, record.size, record.findings) == ("small", SIZE, FINDINGS)
    assert record.methods == ("bright", "constant")
    assert [(i.number, i.name, i.height, i.width) for i in record.images] == [
        (1, "Doe^Jane.png", 60, 80),
        (3, "Roe^Rick.png", 50, 40),
    ]
    (rejected,) = record.rejected
    assert (rejected.number, rejected.name, rejected.reason) == (
        2,
        "torn.png",
        "damaged or truncated",
    )


def test_names_of_files_are_in_the_record_alone(
    images: list[Path], model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    explained(images, model, out)
    for path in out.iterdir():
        if path.name != "explain.json":
            for name in ("Doe", "Jane", "Roe", "torn", str(tmp_path)):
                assert name not in path.name
                assert name.encode() not in path.read_bytes(), path.name
    record = (out / "explain.json").read_text(encoding="utf-8")
    assert "Doe^Jane.png" in record
    assert str(tmp_path) not in record


def test_maps_are_raw_and_logits_are_the_network_s(
    images: list[Path], model: Path, tmp_path: Path
) -> None:
    from lucency.victims.card import load_victim

    out = tmp_path / "out"
    record = explained(images, model, out, findings=["Mass", "Effusion"])
    for number, path in ((1, images[0]), (3, images[2])):
        film = CONTRACT.to_network(np.asarray(Image.open(path)))
        grey = film / np.float32(np.iinfo(film.dtype).max)
        file = out / f"image-{number:04d}.safetensors"
        np.testing.assert_allclose(load_file(file)["bright"], [2 * grey, grey], rtol=1e-6)
        with safe_open(file, "np") as opened:
            assert json.loads(opened.metadata()["findings"]) == ["Mass", "Effusion"]
        (image,) = [i for i in record.images if i.number == number]
        (method,) = image.methods
        logits = predict(load_victim(model), film[None])[0]
        for summary, column in zip(method.maps, (1, 0), strict=True):
            assert summary.finding == FINDINGS[column]
            assert summary.logit == pytest.approx(float(logits[column]), abs=1e-5)
            assert summary.probability == pytest.approx(1 / (1 + np.exp(-logits[column])), abs=1e-5)
            assert summary.most == pytest.approx(float(grey.max()) * (column + 1))
            assert summary.completeness_error == 0.25


def test_the_peak_is_told_in_stored_pixels(model: Path, tmp_path: Path) -> None:
    film = np.full((80, 160), 10, np.uint8)
    film[50:55, 100:110] = 250
    path = tmp_path / "a.png"
    Image.fromarray(film).save(path)
    record = explained([path], model, tmp_path / "out", findings=["Mass"])
    box = record.images[0].methods[0].maps[0].peak
    assert box is not None
    # A network pixel is 2 × 4 stored ones: 80 % of 80 and of 160, over 32.
    assert abs(box.y - 50) <= 2
    assert abs(box.y + box.height - 55) <= 2
    assert abs(box.x - 100) <= 4
    assert abs(box.x + box.width - 110) <= 4


def test_a_map_without_a_peak_says_so(images: list[Path], model: Path, tmp_path: Path) -> None:
    record = explained(images[:1], model, tmp_path / "out", methods=["constant"])
    (method,) = record.images[0].methods
    assert (method.cells_down, method.cells_across) == (2, 3)
    assert method.maps[0].peak is None
    assert "the same everywhere" in str(method.maps[0].reason)


def test_warnings_name_the_image_by_number(images: list[Path], model: Path, tmp_path: Path) -> None:
    record = explained(images, model, tmp_path / "out")
    assert record.warnings == ("Image 1, bright: Off by 25%.", "Image 3, bright: Off by 25%.")
    assert warnings_of(record) == [
        "Image 2 (torn.png) is left out: damaged or truncated.",
        *record.warnings,
    ]


def test_a_method_that_the_model_refuses(images: list[Path], model: Path, tmp_path: Path) -> None:
    table = {"refusing": refusing, **TABLE}
    record = explained(images, model, tmp_path / "a", methods=["all"], table=table)
    assert record.methods == ("constant", "bright", "layered")
    assert [(s.method, s.reason) for s in record.skipped] == [
        ("refusing", "This method needs gradients.")
    ]
    with pytest.raises(ModelError, match="needs gradients"):
        explained(images, model, tmp_path / "b", methods=["bright,refusing"], table=table)
    assert names(tmp_path / "b") == {".lock"}
    with pytest.raises(ModelError, match="No method"):
        explained(images, model, tmp_path / "c", methods=["all"], table={"refusing": refusing})


def test_an_earlier_answer_is_replaced(images: list[Path], model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    explained(images, model, out)
    explained(images[:1], model, out, methods=["constant"])
    assert {n for n in names(out) if n.startswith("image")} == {
        "image-0001-constant.png",
        "image-0001.safetensors",
    }
    assert verify(out) == []


def test_an_earlier_answer_is_kept_if_there_is_no_new_one(
    images: list[Path], model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    explained(images, model, out)
    with pytest.raises(DataError, match=r"none of 1 \(the first: torn.png: damaged"):
        explained(images[1:2], model, out)
    assert verify(out) == []


@pytest.mark.parametrize("name", ["notes.txt", "report.html", "image-1-cam.png", "sub/a.png"])
def test_what_is_not_ours_is_never_touched(
    images: list[Path], model: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"
    explained(images[:1], model, out)
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text("mine")
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != ".lock"}
    with pytest.raises(CannotWrite, match="name another folder"):
        explained(images, model, out)
    after = {p: p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != ".lock"}
    assert after == before


def test_a_foreign_folder_is_refused(images: list[Path], model: Path, tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="not Lucency's"):
        explained(images, model, images[0].parent)


def test_names_are_chosen_in_the_order_asked() -> None:
    assert choose(["Mass,Effusion", "Mass"], FINDINGS, "--finding") == ("Mass", "Effusion")
    assert choose(["Pleural, other", "Mass"], FINDINGS, "--finding") == ("Pleural, other", "Mass")
    assert choose(["Mass", "all"], FINDINGS, "--finding") == FINDINGS
    with pytest.raises(ConfigError, match="nearest: Effusion"):
        choose(["Efusion"], FINDINGS, "--finding")
    with pytest.raises(ConfigError, match="got nothing"):
        choose([" , "], FINDINGS, "--finding")


def test_a_layer_goes_to_the_methods_that_have_one(
    images: list[Path], model: Path, tmp_path: Path
) -> None:
    record = explained(
        images[:1], model, tmp_path / "out", methods=["layered", "bright"], layer="deep"
    )
    assert record.layer == "deep"
    assert record.images[0].methods[0].maps[0].most == -2
    with pytest.raises(ConfigError, match="--layer is for layered, got it with bright, constant"):
        with_layer(["bright", "constant"], TABLE, "deep")


def test_text_for_a_terminal_is_harmless(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[31m\nb.png"
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(path)
    record = explained([path, tmp_path / "no\x1b.png"], model, tmp_path / "out")
    for text in (in_words(record, tmp_path / "out"), *warnings_of(record)):
        assert "\x1b" not in text
    assert len(in_words(record, tmp_path / "out").splitlines()) == 1 + 1 + 3 + 1
    assert record.images[0].name == "a\x1b[31m\nb.png"


class TestCommand:
    def call(self, *arguments: object) -> Answer:
        return call("explain", *(str(a) for a in arguments))

    def test_the_answer(self, images: list[Path], model: Path, tmp_path: Path) -> None:
        options = ("--model", model, "--finding", "Mass", "--method", "gradient-median,grad-cam")
        answer = self.call(*images, *options, "--out", tmp_path / "out", "--json")
        assert answer.code == 3
        assert answer.out.count("\n") == 1
        found = json.loads(answer.out)
        assert found.pop("folder") == str(tmp_path / "out")
        assert found == json.loads((tmp_path / "out" / "explain.json").read_text(encoding="utf-8"))
        assert [m["method"] for m in found["images"][0]["methods"]] == [
            "gradient-median",
            "grad-cam",
        ]
        assert answer.err == "Image 2 (torn.png) is left out: damaged or truncated.\n"
        words = self.call(images[0], *options, "--out", tmp_path / "out")
        assert words.code == 0
        assert "image-0001-grad-cam.png" in words.out
        assert "Doe^Jane.png" in words.out
        assert "left out" not in words.err

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (("--finding", "Hernia"), "--finding must be one of Effusion, Mass"),
            (("--finding", "Mass", "--method", "gradcam"), "nearest: grad-cam"),
            (("--finding", "Mass", "--layer", "x"), "--layer is for"),
            (("--finding", "Mass", "--method", "hirescam", "--layer", "x"), "'x'"),
        ],
    )
    def test_refusals(
        self,
        images: list[Path],
        model: Path,
        tmp_path: Path,
        options: tuple[str, ...],
        words: str,
    ) -> None:
        answer = self.call(images[0], "--model", model, *options, "--out", tmp_path / "out")
        assert answer.code == 2
        assert answer.out == ""
        assert words in answer.err.splitlines()[-1]
        assert not list((tmp_path / "out").glob("*.png"))
