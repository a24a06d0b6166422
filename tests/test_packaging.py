import re
import stat
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = dict(
    line.lower().replace("_", "-").split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
)


def names(requirements):
    return {re.match(r"[A-Za-z0-9._-]+", text).group().lower().replace("_", "-") for text in requirements}


def test_everything_make_installs_has_a_tested_version():
    extras = PROJECT["optional-dependencies"]
    wanted = names(PROJECT["dependencies"]).union(
        *(names(extras[extra]) for extra in ("agents", "dev", "docs"))
    )
    assert wanted - set(CONSTRAINTS) == set()


def test_tested_versions_are_those_the_tests_run_with():
    from importlib.metadata import packages_distributions, version

    for name in names(PROJECT["dependencies"]):
        # Where the system lacks libGL, the Makefile puts the build without windows in opencv's place.
        headless = name == "opencv-python" and name not in packages_distributions()["cv2"]
        installed = version("opencv-python-headless" if headless else name)
        assert installed.split("+")[0] == CONSTRAINTS[name], name


def test_extras_are_there_and_all_holds_them():
    extras = PROJECT["optional-dependencies"]
    assert {"agents", "sam", "ray", "hub", "video", "demo", "docs", "dev", "all"} <= set(extras)
    assert extras["all"] == ["point-prompt-defender[agents,sam,ray,hub,demo,docs,dev]"]


def test_licence_and_citation_agree_with_the_package():
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"version: {PROJECT['version']}\n" in citation
    assert "license: Apache-2.0\n" in citation


def test_packages_are_typed():
    assert (ROOT / "ppd_env" / "py.typed").exists()
    assert (ROOT / "ppd_agents" / "py.typed").exists()


def test_ci_runs_the_tests():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    assert "make test" in script.read_text()
    assert "make docs" in script.read_text()


def test_data_files_travel_with_the_packages():
    """Every file in a package that is not Python matches a pattern of the package data."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    patterns = table["*"]
    for package in ("ppd_env", "ppd_agents"):
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc", ".tmp"):
                assert any(path.match(pattern) for pattern in patterns), path


def test_everyone_names_the_same_oldest_python():
    from ppd_agents.doctor import OLDEST_PYTHON

    text = ".".join(map(str, OLDEST_PYTHON))
    assert PROJECT["requires-python"] == f">={text}"
    assert f"sys.version_info < ({text.replace('.', ', ')})" in (ROOT / "Makefile").read_text()
    assert f"sys.version_info < ({text.replace('.', ', ')})" in (ROOT / ".ci" / "run").read_text()
    assert f"Python {text}" in (ROOT / "README.md").read_text()
