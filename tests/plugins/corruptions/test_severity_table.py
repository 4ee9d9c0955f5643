import re
from pathlib import Path

from robustmm.plugin_manager import load_plugins

PAGE = Path(__file__).parents[3] / "docs" / "robustness.md"


def test_robustness_page__lists_every_corruption_with_its_default_levels():
    rows = dict(re.findall(r"^\| `(\w+)` \|.*?\| ([\d., ]+) \|", PAGE.read_text(encoding="utf-8"), re.M))
    components = load_plugins(env={}, entry_points=()).registry.all("corruption")
    shown = {name: tuple(map(float, numbers.split(", "))) for name, numbers in rows.items()}
    assert shown == {one.name: tuple(map(float, one.options().levels)) for one in components}
