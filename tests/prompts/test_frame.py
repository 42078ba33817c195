"""What surrounds a prompt and its answer in token sequences."""

import pytest

from instruct.data.vocab import load_vocabulary
from instruct.prompts.frame import Frame

BYTES = load_vocabulary("bytes")


@pytest.mark.parametrize(
    ("frame", "prompt", "empty"),
    [
        (Frame(BYTES), [100, 1], [1]),
        (Frame(BYTES, (2,)), [2, 100, 1], [2, 1]),
        (Frame(BYTES, (), "\n", None, True), [100, 13], [13]),
        (Frame(BYTES, (2,), "", None, True), [2, 100], [2]),
        (Frame(BYTES, (), "", None, True), [100], [1]),
        (Frame(BYTES, (), ""), [100], []),
    ],
)
def test_a_prompt_has_a_start_and_a_separator(frame, prompt, empty):
    assert frame.prompt("a") == prompt
    assert frame.prompt("") == empty
    assert frame.answer("b") == [101, 1] and frame.answer("") == []
