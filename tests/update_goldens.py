"""Writes every golden file anew: `python -m tests.update_goldens`.

A golden comes from a module named `*goldens.py` in a folder of `tests/` with a function
`goldens() -> dict[file name, text]`.
"""

import importlib
from pathlib import Path

TESTS = Path(__file__).parent
FOLDER = TESTS / "goldens"


def make_goldens() -> dict[str, str]:
    """File name -> text, of all golden modules."""
    texts: dict[str, str] = {}
    for path in sorted(TESTS.glob("*/**/*goldens.py")):
        name = ".".join(path.relative_to(TESTS.parent).with_suffix("").parts)
        module = importlib.import_module(name)
        for name, text in module.goldens().items():
            if name in texts:
                raise ValueError(f"{path}: golden {name!r} is written by another module too")
            texts[name] = text
    return texts


def golden_files() -> set[str]:
    """Names of the files that are there."""
    return {path.name for path in FOLDER.iterdir() if path.name != "README.md"}


def main() -> None:
    texts = make_goldens()
    for name in golden_files() - texts.keys():
        (FOLDER / name).unlink()
        print(f"removed {name}")
    for name, text in texts.items():
        path = FOLDER / name
        old = path.read_text(encoding="utf-8") if path.exists() else None
        path.write_text(text, encoding="utf-8")
        print(f"{'unchanged' if old == text else 'written'} {name}")


if __name__ == "__main__":
    main()
