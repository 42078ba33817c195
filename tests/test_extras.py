"""setup.cfg's extras can be installed together: no two of their requirements exclude each other.

Read offline from setup.cfg and from what the installed packages ask for. Packages that only an
extra brings (datasets, apache-beam, spaCy, wandb, mlflow, lm-eval, jax's plugins) ask for things
that are not seen here unless they are installed; `make extras` has pip resolve all of it with the
index.
"""

import configparser
import importlib.metadata
import pathlib
from collections.abc import Iterable

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXTRAS = {
    *("tpu", "gpu", "hf", "beam", "ner", "wandb", "mlflow", "serve", "lm-eval"),
    *("docs", "test", "dev"),
}
# Two back ends of jax; an installation has one. A solution of all others together is one of each
# part of them as well.
TOGETHER = (EXTRAS - {"tpu"}, EXTRAS - {"gpu"})


def own_requirements(extras: Iterable[str], path: pathlib.Path = ROOT / "setup.cfg"):
    config = configparser.ConfigParser()
    config.read(path)
    texts = [config["options"]["install_requires"]]
    texts += [config["options.extras_require"][extra] for extra in extras]
    lines = [line.strip() for text in texts for line in text.splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def reachable(requirements: list[Requirement]) -> list[tuple[str, Requirement]]:
    """(who asks, what) of these and of all that they bring along, as far as it is installed."""
    found = [("instruct", requirement) for requirement in requirements]
    seen = set()
    for _, requirement in found:  # grows
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            theirs = importlib.metadata.requires(requirement.name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for text in theirs:
            inner = Requirement(text)
            asked = ("", *requirement.extras)
            if inner.marker is None or any(inner.marker.evaluate({"extra": e}) for e in asked):
                found.append((requirement.name, inner))
    return found


def conflicts(requirements: list[Requirement]) -> list[str]:
    """Packages of which no version is allowed by all who ask for them."""
    asked: dict[str, list[tuple[str, Requirement]]] = {}
    for who, requirement in reachable(requirements):
        asked.setdefault(canonicalize_name(requirement.name), []).append((who, requirement))
    found = []
    for name, asking in asked.items():
        # If any version is allowed, one is that begins a range, or that is installed.
        candidates = {"0"} | {
            part.version.removesuffix(".*") for _, one in asking for part in one.specifier
        }
        candidates |= {
            dist.version for dist in importlib.metadata.distributions(name=name) if dist.version
        }
        if not any(
            all(one.specifier.contains(Version(version), prereleases=True) for _, one in asking)
            for version in candidates
        ):
            found.append(f"{name}: " + "; ".join(f"{who} asks for {one}" for who, one in asking))
    return found


def test_the_extras_are_those_known_here():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert set(config["options.extras_require"]) == EXTRAS


@pytest.mark.parametrize("extras", TOGETHER, ids=["gpu", "tpu"])
def test_all_extras_go_together(extras):
    assert conflicts(own_requirements(sorted(extras))) == []


def test_a_conflict_would_be_noticed(tmp_path):
    """Negative control: an upper bound below what the test extra's transformers asks for."""
    text = (ROOT / "setup.cfg").read_text()
    narrowed = text.replace("safetensors>=0.5,<0.9", "safetensors>=0.5,<0.8")
    assert narrowed != text
    (tmp_path / "setup.cfg").write_text(narrowed)
    requirements = own_requirements(["hf", "test"], tmp_path / "setup.cfg")
    (conflict,) = conflicts(requirements)
    assert "safetensors: " in conflict and "transformers asks for safetensors>=0.8" in conflict
