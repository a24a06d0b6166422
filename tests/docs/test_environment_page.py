"""The tables in the docstring of the environment, which is its page, say what the environment does."""

import re
from dataclasses import fields

import gymnasium
import numpy as np
import pytest

from ppd_env.config import CHOICES, EnvConfig
from ppd_env.envs.gymnasium_env import RENDER_MODES, PointPromptEnv

PAGE = PointPromptEnv.__doc__
SECTIONS = dict(re.findall(r"    ## ([\w ]+)\n\n(.*?)(?=\n    ## |\Z)", PAGE, re.DOTALL))


def tables(section):
    """The tables of a section, each as a list of rows of cells, without their heads."""
    found = re.findall(r"(?:    \|.*\n?)+", SECTIONS[section])
    rows = [[line.strip().strip("|").split(" | ") for line in table.splitlines()[2:]] for table in found]
    return [[[cell.strip() for cell in row] for row in table] for table in rows]


def code(text):
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


def number(text, env):
    """A size or a bound as the page writes it: N and S stand for this environment's."""
    names = {"N": env.play.games.nodes, "S": len(env.play.games.simulator.bank), "inf": np.inf}
    names["d"] = env.play.games.simulator.bank.features.shape[-1]
    return eval(re.sub(r"(\d)N", r"\1*N", text), {}, names)


def told(row, env):
    """The Box a row describes."""
    _, shape, dtype, bounds, *_ = row
    sizes = tuple(number(part, env) for part in shape.strip("()").split(",") if part.strip())
    low, high = (number(part, env) for part in bounds.strip("[]").split(","))
    return gymnasium.spaces.Box(low, high, sizes, dtype)


def made(tiny_kwargs, **kwargs):
    return PointPromptEnv(**{**tiny_kwargs, **kwargs})


STATIC = {"features", "positions", "edge_index", "edge_attr"}


def test_sections_are_those_of_gymnasiums_own_pages():
    assert list(SECTIONS) == [
        "Description",
        "Action Space",
        "Observation Space",
        "Rewards",
        "Starting State",
        "Episode End",
        "Info",
        "Arguments",
        "Version History",
    ]


def test_actions(tiny_kwargs):
    env = made(tiny_kwargs)
    (size,) = re.findall(r"`Discrete\(([^)]+)\)`", SECTIONS["Action Space"])
    assert env.action_space.n == number(size, env) == 2 * env.play.games.nodes + 1


def test_the_default_observation_is_the_first_table(tiny_kwargs):
    env = made(tiny_kwargs)
    always, _ = tables("Observation Space")
    assert {code(row[0])[0]: told(row, env) for row in always} == env.observation_space.spaces


@pytest.mark.parametrize(
    ("setting", "gone"),
    [
        ({"edges": "dense"}, {"edge_index", "edge_attr"}),
        ({"feedback": True}, set()),
        ({"observation": "compact"}, STATIC),
    ],
)
def test_what_is_asked_for_is_the_second_table(tiny_kwargs, setting, gone):
    env = made(tiny_kwargs, **setting)
    always, asked = tables("Observation Space")
    ((name, value),) = setting.items()
    shown = f'{name}="{value}"' if isinstance(value, str) else f"{name}={value}"
    expected = {code(row[0])[0]: told(row, env) for row in always}
    expected = {key: space for key, space in expected.items() if key not in gone}
    extra = {code(row[0])[0]: told(row, env) for row in asked if shown in code(row[4])}
    assert extra
    assert expected | extra == env.observation_space.spaces


def test_infos(tiny_kwargs):
    env = made(tiny_kwargs)
    _, info = env.reset(seed=0)
    (rows,) = tables("Info")
    assert {code(row[0])[0] for row in rows} == set(info)
    for row in rows:
        value = info[code(row[0])[0]]
        if isinstance(value, np.ndarray):
            size, dtype = re.fullmatch(r"\((.+),\) (\w+)", row[1]).groups()
            assert (value.shape, value.dtype) == ((number(size, env),), np.dtype(dtype))
        else:
            assert type(value).__name__ == row[1], row[0]
    assert "ideal_dice" not in made(tiny_kwargs, role="attacker").reset(seed=0)[1]


def test_arguments_are_those_of_make():
    (rows,) = tables("Arguments")
    shown = {name: (row[1], row[2]) for row in rows for name in code(row[0])}
    defaults = {field.name: field.default for field in fields(EnvConfig)} | {"render_mode": None}
    assert {name: eval(default.strip("`")) for name, (default, _) in shown.items()} == defaults
    for name, values in (CHOICES | {"render_mode": RENDER_MODES}).items():
        if name in shown and name not in ("allow_stop", "feedback"):
            told = {text.strip('"') for text in code(" ".join(shown[name]))}
            assert {value for value in values if value is not None} <= told, name


def test_the_version_is_the_registered_one():
    assert re.findall(r"\* (v\d+):", SECTIONS["Version History"])[0] == "PPD-v0".rpartition("-")[2]


def test_the_example_runs(tiny_kwargs, monkeypatch):
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    make = gymnasium.make
    monkeypatch.setattr(gymnasium, "make", lambda name, **kwargs: make(name, **kwargs, **tiny_kwargs))
    names = {}
    exec(compile("\n".join(line[4:] for line in example.splitlines()), "docstring", "exec"), names)
    assert names["over"]
