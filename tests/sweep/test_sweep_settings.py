"""From SWEEP.toml to runs."""

from pathlib import Path

import pytest

from lucency.config import load_toml
from lucency.errors import ConfigError
from lucency.sweep import SweepSettings
from lucency.sweep.settings import Cell, expand
from tiny_sweep import write_toml

CASES = """
[[cases]]
name = "black"
settings = { "attack.trigger.grey" = 0.0 }

[[cases]]
name = "warp"
settings = { "attack.trigger" = { kind = "warp" } }
"""


def _expanded(tmp_path: Path, *edits: tuple[str, str], more: str = "") -> tuple[Cell, ...]:
    path = write_toml(tmp_path, *edits)
    path.write_text(path.read_text() + more)
    return expand(load_toml(path, SweepSettings), tmp_path, path.name)


class TestExpand:
    def test_every_combination_in_order(self, tmp_path: Path) -> None:
        cells = _expanded(tmp_path, more='"input.resize" = ["nearest", "area"]\n' + CASES)
        assert len(cells) == 2 * 2 * 2 * 2
        assert [cell.settings.seed for cell in cells[:4]] == [3, 4, 3, 4]
        assert cells[0].axes == {
            "case": "black",
            "attack.poison_rate": 0.1,
            "input.resize": "nearest",
        }
        assert cells[-1].axes == {"case": "warp", "attack.poison_rate": 0.3, "input.resize": "area"}
        assert cells[-1].settings.attack.poison_rate == 0.3
        assert cells[-1].settings.input.resize == "area"
        assert len({cell.settings.model_dump_json() for cell in cells}) == 16

    def test_a_case_replaces_a_table_or_one_key_of_it(self, tmp_path: Path) -> None:
        black, *_, warp = _expanded(tmp_path, more=CASES)
        assert black.settings.attack.trigger.kind == "patch"
        assert black.settings.attack.trigger.describe_place() == "at the centre"
        assert warp.settings.attack.trigger.kind == "warp"

    def test_a_table_in_the_grid_is_named_by_its_kind(self, tmp_path: Path) -> None:
        more = '"attack.trigger" = [{ kind = "warp" }, { kind = "patch", size_px = 2 }]'
        cells = _expanded(tmp_path, more=more)
        assert cells[0].axes["attack.trigger"] == "warp"
        assert cells[2].axes["attack.trigger"] == '{"kind": "patch", "size_px": 2}'

    def test_without_a_grid_there_is_a_run_a_seed(self, tmp_path: Path) -> None:
        cells = _expanded(
            tmp_path,
            ("[grid]\n", ""),
            ('"attack.poison_rate" = [0.1, 0.3]', ""),
            ('protocol = "replace"', 'protocol = "replace"\npoison_rate = 0.2'),
        )
        assert [(cell.axes, cell.settings.seed) for cell in cells] == [({}, 3), ({}, 4)]

    def test_paths_are_relative_to_the_file(self, tmp_path: Path) -> None:
        source = 'source = "phantom"\nimages = 160\nsize = 64'
        cells = _expanded(tmp_path, (source, 'source = "folder"\npath = "films"'))
        assert cells[0].settings.data.path == tmp_path / "films"


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (("seeds = [3, 4]", "seeds = [3, 3]"), "must differ"),
        (("seeds = [3, 4]", "seeds = []"), "seeds"),
        (('"attack.poison_rate" = [0.1, 0.3]', "seed = [1, 2]"), "use seeds and"),
        (('"attack.poison_rate" = [0.1, 0.3]', '"attack.poison_rate" = []'), "attack.poison_rate"),
        (('"attack.poison_rate" = [0.1, 0.3]', '"attack.poison_rat" = [0.1]'), "poison_rat"),
        (('"attack.poison_rate" = [0.1, 0.3]', '"attack.poison_rate" = [2.0]'), "poison_rate = 2"),
        (('"attack.poison_rate" = [0.1, 0.3]', '"name.a" = [2.0]'), "through tables"),
        (('name = "tiny sweep"\n', ""), "name"),
    ],
)  # fmt: skip
def test_a_fault_is_named(tmp_path: Path, edit: tuple[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        _expanded(tmp_path, edit)
    assert "tiny.toml" in str(refused.value)


def test_too_many_runs_are_refused_before_they_are_made(tmp_path: Path) -> None:
    many = ", ".join(str(i) for i in range(400))
    with pytest.raises(ConfigError, match="at most 100000 runs, got 640000"):
        _expanded(
            tmp_path, more=f'"attack.trigger.size_px" = [{many}]\n"victim.epochs" = [{many}]\n'
        )
