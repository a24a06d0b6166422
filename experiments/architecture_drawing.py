"""Draw the architecture as one picture: ``python -m experiments.architecture_drawing``.

The folders stand in rows; a folder imports from rows below its own and from none above. What stands here is
checked against the packages by the tests.
"""

from __future__ import annotations

import argparse
from html import escape
from pathlib import Path

PACKAGES: dict[str, tuple[dict[str, str], ...]] = {
    "ppd_agents": (
        {
            "play": "a person at the game",
            "demo": "the web page",
            "benchmark": "others' algorithms, scored",
        },
        {"speed": "what costs time", "report": "tables, curves and pictures"},
        {"evaluation": "controls, scores, intervals, the paper's tables"},
        {"methods": "one-shot methods and learned controls"},
        {"training": "the alternation, checkpoints, presets"},
        {"dqn": "masked DQN, graph Q-network, replay"},
    ),
    "ppd_env": (
        {"envs": "Gymnasium, vector and PettingZoo shells"},
        {"prompting": "where games begin; one-shot prompts"},
        {"scenes": "images with masks; the bank, the cache"},
        {
            "features": "what a patch looks like",
            "game": "the rules, and nothing else",
            "graph": "distances, edges",
        },
        {"segmenters": "embed once, decode often: mini, SAM"},
    ),
}
"""Package -> rows of its folders from top to bottom, each with what it is."""

ABOVE = "experiments"
WIDTH, MARGIN, BOX, GAP, HEAD = 860, 20, 62, 14, 40

STYLE = """
  .package { fill: #eef4f3; stroke: #5b8a86; stroke-width: 1.5 }
  .box { fill: #ffffff; stroke: #9db8b5 }
  text { font-family: system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #16302d }
  .title { font-size: 17px; font-weight: 600 } .folder { font-size: 15px; font-weight: 600 }
  .what { font-size: 12.5px; fill: #46605d } .arrow { stroke: #2f6f69; stroke-width: 2.5; fill: none }
"""


def _row(folders: dict[str, str], package: str, top: int) -> list[str]:
    """Draw the folders of one row."""
    width = (WIDTH - 4 * MARGIN - GAP * (len(folders) - 1)) / len(folders)
    out = []
    for place, (name, what) in enumerate(folders.items()):
        left = 2 * MARGIN + place * (width + GAP)
        out += [
            f'<rect class="box" x="{left:g}" y="{top}" width="{width:g}" height="{BOX}" rx="6"/>',
            f'<text class="folder" x="{left + 14:g}" y="{top + 26}">{package}/{name}/</text>',
            f'<text class="what" x="{left + 14:g}" y="{top + 46}">{escape(what)}</text>',
        ]
    return out


def _package(name: str, rows: tuple[dict[str, str], ...], top: int) -> tuple[list[str], int]:
    """Draw one package; return it with where it ends."""
    height = HEAD + len(rows) * (BOX + GAP) + 4
    out = [
        _frame(top, height),
        f'<text class="title" x="{2 * MARGIN}" y="{top + 27}">{name}</text>',
    ]
    for place, row in enumerate(rows):
        out += _row(row, name, top + HEAD + place * (BOX + GAP))
    return out, top + height


def _frame(top: int, height: int) -> str:
    width = WIDTH - 2 * MARGIN
    return f'<rect class="package" x="{MARGIN}" y="{top}" width="{width}" height="{height}" rx="10"/>'


def _arrow(top: int) -> str:
    return f'<path class="arrow" d="M{WIDTH / 2:g} {top + 3}v20m-6 -7l6 7l6 -7"/>'


def drawing() -> str:
    """Return the picture as the text of an SVG file."""
    out = [
        _frame(MARGIN, HEAD),
        f'<text class="title" x="{2 * MARGIN}" y="{MARGIN + 26}">{ABOVE}</text>',
        f'<text class="what" x="{9 * MARGIN}" y="{MARGIN + 26}">one script per table or figure</text>',
    ]
    bottom = MARGIN + HEAD
    for name, rows in PACKAGES.items():
        out.append(_arrow(bottom))
        drawn, bottom = _package(name, rows, bottom + 28)
        out += drawn
    height = bottom + MARGIN
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img">\n<title>{ABOVE} imports ppd_agents, which imports ppd_env; '
        f"a folder imports only from rows below its own.</title>\n<style>{STYLE}</style>\n"
        f'<rect width="{WIDTH}" height="{height}" rx="12" fill="#ffffff"/>\n'
    )
    return head + "\n".join(out) + "\n</svg>\n"


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/architecture.svg"))
    out = parser.parse_args().out
    out.write_text(drawing(), encoding="utf-8")
    print(out)


if __name__ == "__main__":
    main()
