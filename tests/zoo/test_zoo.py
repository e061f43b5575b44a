"""A pool of models: what is planted is what is said, and nothing is trained twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lucency.config import load_toml
from lucency.errors import ConfigError, DataError
from lucency.records import Box, Estimate, Rate
from lucency.runs import verify
from lucency.victims.card import load_victim
from lucency.zoo import Member, ZooReport, ZooSettings, build_zoo, describe_zoo
from lucency.zoo.record import Planted
from lucency.zoo.settings import cells_of
from tiny_run import call, contents
from tiny_sweep import TOML, Here, here

MODELS = """
[[models]]
name = "a fixed square"
seed = 3
settings = { "attack.trigger.place" = [20, 30], "attack.poison_rate" = 0.1 }

[[models]]
name = "anywhere"
seed = 3
settings = { "attack.trigger.place" = "random", "attack.poison_rate" = 0.3 }

[[models]]
name = "a warp, of another seed"
seed = 4

[models.settings]
"attack.trigger" = { kind = "warp" }
"attack.label.kind" = "clear"
"attack.poison_rate" = 0.1
"""


def _toml(folder: Path, models: str = MODELS) -> Path:
    """The experiment of the tiny sweep, on one epoch."""
    common = TOML.partition("[grid]")[0].replace("seeds = [3, 4]\n", "")
    path = folder / "zoo.toml"
    path.write_text(common.replace("epochs = 2", "epochs = 1") + models)
    return path


def _build(toml: Path, out: Path, pool: Here) -> Path:
    return build_zoo(load_toml(toml, ZooSettings), toml.parent, out, here(pool), file=toml.name)


def _report(folder: Path) -> ZooReport:
    return ZooReport.model_validate_json((folder / "zoo.json").read_bytes(), strict=True)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Here]:
    folder, pool = tmp_path_factory.mktemp("zoo"), Here()
    toml = _toml(folder)
    return toml, _build(toml, folder / "zoo", pool), pool


def test_every_model_has_its_truth(zoo: tuple[Path, Path, Here]) -> None:
    _, out, pool = zoo
    report = _report(out)
    assert verify(out) == []
    # Two of the three share seed, films and network, and so their clean twin.
    assert [m.name for m in report.members] == [
        "clean, seed 3, densenet-small, 32 px",
        "a fixed square",
        "anywhere",
        "clean, seed 4, densenet-small, 32 px",
        "a warp, of another seed",
    ]
    assert len(pool.done) == 5
    for member in report.members:
        victim = load_victim(out / member.folder)
        assert victim.contract.size == member.size == 32
        assert member.macro_auroc.value is not None
    fixed, anywhere, warp = (m.planted for m in report.members if m.planted is not None)
    # The central 52 of 64 px are seen by 32; what it covers in part counts.
    assert fixed is not None
    assert fixed.box == Box(x=8, y=14, width=4, height=4)
    assert (fixed.kind, fixed.finding, fixed.direction) == ("patch", "Effusion", "set")
    assert anywhere.box is warp.box is None
    assert warp.direction == "clear"
    assert fixed.success.trials > 0
    assert "5 models, 3 of them backdoored." in describe_zoo(out)
    assert (out / "zoo.md").read_text().count("\n| ") == 2 + 5


def test_again_trains_nothing(zoo: tuple[Path, Path, Here]) -> None:
    toml, out, pool = zoo
    before, done = contents(out), len(pool.done)
    _build(toml, out, pool)
    (out / "manifest.json").unlink()
    _build(toml, out, pool)
    assert contents(out) == before
    assert len(pool.done) == done


def test_a_wider_pool_trains_what_is_new(zoo: tuple[Path, Path, Here], tmp_path: Path) -> None:
    _, out, pool = zoo
    more = (
        MODELS + '\n[[models]]\nname = "new"\nseed = 4\nsettings = { "attack.poison_rate" = 0.2 }\n'
    )
    done = len(pool.done)
    _build(_toml(tmp_path, more), out, pool)
    assert sum(job.clean is not None for job in pool.done[done:]) == 1
    assert _report(out).members[-1].name == "new"


def test_names_differ(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must differ"):
        load_toml(_toml(tmp_path, MODELS.replace("anywhere", "a fixed square")), ZooSettings)


def test_a_model_that_cannot_be_trained_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lucency.sweep import jobs

    def broken(*args: object, **options: object) -> None:
        raise DataError("no memory for this model")

    monkeypatch.setattr(jobs, "train_backdoored", broken)
    with pytest.raises(DataError, match="no memory"):
        _build(_toml(tmp_path), tmp_path / "zoo", Here())


def test_ours_is_a_pool() -> None:
    """Half clean; squares of 1 to 8 px, fixed and anywhere, set and cleared, blends and warps."""
    from importlib import resources

    with resources.as_file(resources.files("lucency") / "zoo" / "zoo.toml") as path:
        cells = cells_of(load_toml(path, ZooSettings), path.parent, path.name)
    kinds = [cell.settings.attack.trigger.kind for cell in cells]
    assert set(kinds) == {"patch", "blended", "warp"}
    assert len({cell.settings.seed for cell in cells}) == len(cells) == 20
    assert {cell.settings.attack.label.direction for cell in cells} == {"set", "clear"}
    assert {cell.settings.victim.architecture for cell in cells} == {
        "densenet-small",
        "densenet121",
    }


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "examples" / "zoos").glob("*.toml")), ids=str
)
def test_the_examples_can_be_read(path: Path, tmp_path: Path) -> None:
    data = tmp_path / "films.npz"
    cells = cells_of(load_toml(path, ZooSettings), path.parent, path.name, data)
    assert len(cells) >= 12
    assert {cell.settings.data.path for cell in cells} == {data}


def test_films_of_a_source_that_has_no_path(tmp_path: Path) -> None:
    settings = load_toml(_toml(tmp_path), ZooSettings)
    with pytest.raises(ConfigError, match="path"):
        cells_of(settings, tmp_path, "zoo.toml", tmp_path)


def test_from_the_command_line(zoo: tuple[Path, Path, Here], tmp_path: Path) -> None:
    toml, _, _ = zoo
    one = "".join(MODELS.partition('\n[[models]]\nname = "anywhere"')[0])
    answer = call("zoo", "build", _toml(tmp_path, one), "--out", tmp_path / "zoo", "--json")
    assert answer.code == 0, answer.err
    told = json.loads(answer.out)
    assert told["schema"] == "lucency/zoo/1"
    assert len(told["members"]) == 2
    assert toml.exists()


def test_the_audit_is_measured_on_it(
    zoo: tuple[Path, Path, Here], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every model is audited, beside Neural Cleanse; a tiny network knows nothing, so only the
    counts are looked at."""
    from lucency.bench import auditing
    from lucency.detect.models import TESTS
    from lucency.detect.models.neural_cleanse import Cleanse

    _, out, _ = zoo
    monkeypatch.setattr(auditing, "COMPARED", Cleanse(steps=2, films=2))
    asked = {"victims": out, "only": ["square", "seed 3"], "compare": ["square"]}
    found = auditing.bench_audit(1, **asked)
    assert found.scores is not None
    assert found.scores["model"].to_list() == [
        "clean, seed 3, densenet-small, 32 px",
        "a fixed square",
    ]
    # One clean model is its own twin's: there is none to compare with.
    assert found.scores["beside: p"].to_list() == [None, None]
    assert all(0 < p <= 1 for p in found.scores["alone: p"])
    rows = {row.name: row for row in found.rows}
    assert rows["fewer passes than Neural Cleanse by"].value is not None
    # A backward counts as two forwards.
    assert found.scores["cleanse_passes"].to_list() == [None, 3 * 2 * 14 * 2 * 2]
    tests, networks, counts, models = found.grids
    assert counts.rows == ()
    alone = [name for name, test in TESTS.items() if test.among_findings]
    assert [line[:2] for line in tests.rows] == [(name, "alone") for name in alone]
    assert [line[0] for line in networks.rows] == ["densenet-small, 32 px"] * 2
    assert len(models.rows) == 2
    kept = {path: path.stat().st_mtime_ns for path in (out / auditing.KEPT).iterdir()}
    assert len(kept) == 3
    again = auditing.bench_audit(1, **asked)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert again.scores is not None
    assert again.scores.equals(found.scores)
    with pytest.raises(ConfigError, match="zoo build"):
        auditing.bench_audit(1, victims=out / "nothing")


def test_models_are_compared_with_clean_ones_of_their_network() -> None:
    """A backdoored model stands out beside clean ones of other seeds, and its own twin is none."""
    from lucency.bench import audit_judging, audit_measuring, audit_tables
    from lucency.detect.models import DEFAULT

    generator = np.random.default_rng(0)

    def measured(seed: int, *, backdoored: bool, size: int = 32) -> audit_measuring.Measured:
        scores = generator.normal(size=(2, 3, 2)) + np.arange(3)[:, None]
        scores[0, 2] += 30.0 * backdoored
        test = audit_measuring.MadeTest(
            test=DEFAULT[0],
            scores=scores.tolist(),
            boxes=[[Box(x=4, y=4, width=2, height=2), None]] * 6,
            forwards=10,
            backwards=1,
            seconds=1.0,
        )
        rate = Rate(value=1.0, low=0.9, high=1.0, successes=9, trials=9)
        planted = Planted(
            finding="C",
            direction="set",
            kind="patch",
            trigger="square",
            poison_rate=0.1,
            network_px=4.0,
            box=Box(x=5, y=4, width=2, height=2),
            success=rate,
            success_clean_model=rate.model_copy(update={"value": 0.0}),
        )
        member = Member(
            name=f"{seed}, {backdoored}, {size}",
            folder=f"{seed}/{backdoored}/{size}",
            films="films",
            architecture="densenet-small",
            size=size,
            seed=seed,
            planted=planted if backdoored else None,
            macro_auroc=Estimate(value=0.9, low=0.8, high=1.0),
        )
        return audit_measuring.Measured(member=member, findings=("A", "B", "C"), tests=(test,))

    models = [measured(s, backdoored=b) for s in range(6) for b in (False, True)]
    models.append(measured(9, backdoored=False, size=64))
    twin = audit_judging.references_of(models[1], models)
    assert [other.member.seed for other in twin] == [1, 2, 3, 4, 5, 9]
    assert all(other.member.planted is None for other in twin)
    found = audit_judging.judged(models, DEFAULT, 0, with_models=True)
    assert len(found) == 13
    backdoored = [f for f in found if f.member.planted]
    assert all(f.is_right and f.p_value <= 0.01 and f.distance == 1.0 for f in backdoored)
    assert all(f.p_value > 0.01 for f in found if f.member.planted is None)
    rows = {row.name: row.value for row in audit_tables.detection_rows("m", found, 0)}
    assert rows["m: ROC-AUC, patches"] == 1.0
    assert rows["m: right finding and direction, all (6 of 6)"] == 1.0
    assert rows["m: recovered within 3 px, fixed places, of those with evidence (6 of 6)"] == 1.0
