"""docs/data_path.md shows what the code does."""

from pathlib import Path

from instruct.prompts.options import STYLES
from tests.tasks.data_path_goldens import goldens

PAGE = Path(__file__).parents[2] / "docs" / "data_path.md"


def test_every_block_of_the_page_is_what_the_code_gives():
    page = PAGE.read_text(encoding="utf-8")
    (text,) = goldens().values()
    blocks = text.rstrip("\n").split("\n\n")
    assert len(blocks) == 5
    for block in blocks:
        assert f"```\n{block}\n```" in page, block
    assert f"{len(STYLES):,} products" in page
