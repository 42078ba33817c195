"""What a vocabulary cannot spell is counted by character, target and task."""

import pytest

from instruct.data import registry
from instruct.data.feed.spelling import (
    ALL,
    Spelling,
    can_spell,
    mixture_spelling,
    spelling,
    spelling_lines,
)
from instruct.data.stores.prepare import prepare
from instruct.data.vocab import load_vocabulary
from instruct.prompts.render import Rendered
from tests.data.tokenizer_folders import KINDS, LINES, write_folder, write_t5_model
from tests.data.toy import ToySource, fresh_name, toy_config, toy_spec
from tests.workspaces import workspace


@pytest.fixture(scope="module")
def t5(tmp_path_factory) -> str:
    return write_t5_model(tmp_path_factory.mktemp("t5"))


def test_characters_that_become_unknown_blank_or_nothing(t5):
    words = load_vocabulary(t5)
    lost = [c for c in "Qa1 \n\t{<日２\u200b" if not can_spell(words, c)]
    assert lost == ["\n", "\t", "{", "<", "日", "\u200b"]
    assert all(can_spell(load_vocabulary("bytes"), c) for c in "\n\t{<日 \u200b")


@pytest.mark.parametrize("kind", KINDS)
def test_vocabularies_with_bytes_spell_everything(tmp_path, kind):
    words = load_vocabulary(str(write_folder(kind, tmp_path / kind, LINES[:1])))
    lost = {c for c in "a \n\t{<日語½😀\u200b\u3000" if not can_spell(words, c)}
    assert lost == (set("{<語½\u200b\u3000") if kind == "unigram" else set())


def example(inputs: str, targets: str, target_ids: tuple[int, ...] = ()) -> Rendered:
    return Rendered(inputs, targets, [], list(target_ids), "t")


def test_worked_example(t5):
    words = load_vocabulary(t5)
    shares = spelling(words, [example("Q{\n", "A"), example("Q{", "{a}"), example("Q", "A")])
    assert shares == Spelling(round(5 / 11, 5), round(1 / 3, 4), "{\n}")
    assert str(shares) == (
        "45.45% of the characters, in 33.3% of the targets, are not in the vocabulary: "
        "'{' '\\n' '}'"
    )
    # Texts that were decoded from tokens show no unknown character.
    assert spelling(words, [example("Q", "A", (5, words.unk_id))]).targets == 1
    assert spelling(load_vocabulary("bytes"), [example("{", "{", (2,))]).lost == ""
    assert spelling(words, []) == Spelling()


def prepared(t5: str):
    """A mixture of a task that T5's vocabulary spells and one whose answers are in braces."""
    plain, braces = toy_spec(ToySource("abc")), toy_spec(ToySource("{abc}"))
    name = fresh_name("mix")
    registry.add_mixture(name, {registry.add_task(spec).name: 1 for spec in (plain, braces)})
    config = toy_config(name, vocabulary=t5)
    resolved = registry.resolve(workspace(), name)
    prepare(workspace(), resolved, config)
    return config, registry.resolve(workspace(), name), plain, braces


def test_a_mixture_by_task(t5):
    config, resolved, plain, braces = prepared(t5)
    spelled = mixture_spelling(workspace(), config, resolved)
    assert set(spelled) == {ALL, plain.name, braces.name}
    worse, better = spelled[braces.name], spelled[plain.name]
    assert worse.characters > better.characters and set("{}") <= set(worse.lost)
    assert better.characters < spelled[ALL].characters < worse.characters
    lines = spelling_lines(spelled)
    assert lines[0].startswith(ALL) and lines[1].startswith(f"{braces.name}: ")
    every = spelling_lines(mixture_spelling(workspace(), toy_config(config.mixture), resolved))
    assert every == [f"{ALL}: the vocabulary spells all characters"]
