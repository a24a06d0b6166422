"""The report: one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ppd_agents.report.charts import Curve, legend, line_chart
from ppd_agents.report.gallery import GalleryScene, scene_figure
from ppd_agents.report.summary import duration, flatten, set_view
from ppd_env.whole_files import write_in_one_rename


@dataclass(frozen=True)
class Gallery:
    """Scenes shown together.

    Args:
        title: What they are.
        note: How they were chosen.
        scenes: The scenes.
    """

    title: str
    note: str
    scenes: Sequence[GalleryScene]


def render(
    result: Mapping[str, Any], *, name: str, curves: Sequence[Curve] = (), galleries: Sequence[Gallery] = ()
) -> str:
    """Render the page.

    Args:
        result: A result file's content, see ``evaluation.tables.assemble``.
        name: Name of the run.
        curves: Learning curves.
        galleries: Scenes before and after attack and defence.

    Returns:
        HTML.
    """
    environment = Environment(
        loader=PackageLoader("ppd_agents.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    number = 0
    shown = []
    for gallery in galleries:
        figures = []
        for scene in gallery.scenes:
            figures.append(Markup(scene_figure(scene, number)))
            number += 1
        shown.append({"title": gallery.title, "note": gallery.note, "figures": figures})
    charts = [
        {"title": c.title, "note": c.note, "chart": Markup(line_chart(c)), "legend": Markup(legend(c))}
        for c in curves
    ]
    return environment.get_template("report.html.j2").render(
        name=name,
        css=Markup((Path(__file__).parent / "report.css").read_text(encoding="utf-8")),
        command=result["command"],
        seeds=", ".join(map(str, result["seeds"])),
        time=duration(result["seconds"]),
        sets=[set_view(uri, budgets) for uri, budgets in result["results"].items()],
        curves=charts,
        galleries=shown,
        config=flatten(result["config"]),
        versions=result["versions"],
        confidence=f"{100 * result['config'].get('confidence', 0.95):g}",
        scene_sets=result["config"].get("scene_sets", {}),
    )


def write_report(path: Path, page: str) -> None:
    """Write the page, aside first and then renamed."""
    write_in_one_rename(path, page.encode())
