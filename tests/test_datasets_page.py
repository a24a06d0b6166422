"""docs/datasets.md says what the code does."""

import re
from pathlib import Path

from ppd_env.scenes.datasets import coco, fss1000, isic, kvasir, voc
from ppd_env.scenes.references import LEAST_SHARE, VERSION
from ppd_env.scenes.sources import OPENERS
from ppd_env.scenes.subsets import DRAW_VERSION, NARROWING

PAGE = (Path(__file__).parents[1] / "docs" / "datasets.md").read_text(encoding="utf-8")


def test_every_set_and_where_to_get_it_is_on_the_page():
    for scheme in ("fss1000", "voc", "isic", "kvasir", "coco", "folder"):
        assert scheme in OPENERS
        assert f"| `{scheme}:///path" in PAGE
    for module in (fss1000, voc, isic, kvasir, coco):
        assert f"<{module.WHERE}>" in PAGE


def test_the_table_of_isic_is_that_of_the_code():
    rows = re.findall(r"\| (\d{4}) \| `(\w+)`[^|]*\| `([^`]+)` \| `([^`]+)` \| (\d+) \|", PAGE)
    found = {(year, split): (images, masks, int(count)) for year, split, images, masks, count in rows}
    assert found == {key: (part.images, part.masks, part.count) for key, part in isic.PARTS.items()}


def test_rules_are_named_with_their_versions():
    assert f"`ppd-draw/{DRAW_VERSION}/SET/SEED/NAME`" in PAGE
    assert f"`ppd-reference/{VERSION}/SET/SEED/NAME`" in PAGE
    assert f"least {100 * LEAST_SHARE:.0f} % of the image" in PAGE
    assert all(f"{key}=" in PAGE for key in NARROWING)
    assert all(f"| `{split}`" in PAGE for split in fss1000.SPLITS)
    assert f"{fss1000.TRAIN_IMAGES}` images drawn" in PAGE
    assert f"{100 * kvasir.TEST_SHARE:.0f} % drawn by `seed`" in PAGE


def test_the_snippet_runs(capsys):
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(snippet, "docs/datasets.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("[(0, ''")
    assert len(printed) == 2
