"""A window is a pure function of its number; damage in a store is a clear message."""

import collections
import dataclasses
import json

import numpy as np
import pytest

from instruct import batch
from instruct.data import registry
from instruct.data.config import PACKINGS
from instruct.data.feed.leaves import make_builder
from instruct.data.feed.window import COUNTS, open_store
from instruct.data.sources.files import JsonLinesSource, MessagesMap, Part
from instruct.data.stores import store
from instruct.data.stores.prepare import prepare
from instruct.data.vocab import load_vocabulary
from instruct.errors import UserError
from instruct.prompts.messages import TEMPLATES
from tests.data.tokenizer_folders import write_folder
from tests.data.toy import ToySource, fresh_name, toy_config, toy_spec
from tests.prompts.test_chat_template import FORMS, TALK
from tests.workspaces import workspace


def builder_of(*specs, **changes):
    name = fresh_name("mix")
    registry.add_mixture(name, {registry.add_task(spec).name: 1 for spec in specs})
    config = toy_config(name, **changes)
    prepare(workspace(), registry.resolve(workspace(), name), config).check()
    return make_builder(workspace(), config, registry.resolve(workspace(), name))[0]


def same(one, two):
    return all(np.array_equal(one.rows[key], two.rows[key]) for key in two.rows)


def test_windows_depend_on_nothing_but_seed_and_number():
    specs = [toy_spec(modes={"zs_noopt": 1, "fs_noopt": 1}) for _ in range(3)]
    builder = builder_of(*specs)
    windows = [builder.build(number) for number in (0, 5, 2)]
    again = [builder.build(number) for number in (2, 0, 5)]
    assert same(windows[0], again[1]) and same(windows[1], again[2]) and same(windows[2], again[0])
    assert not same(windows[0], windows[1])
    for window in windows:
        batch.ENCODER_DECODER.check(window.rows)


def examples_of(window):
    """(task, prompt without its start, answer) of every example, sorted."""
    examples = []
    for row in range(window.num_rows):
        arrays = {key: value[row] for key, value in window.rows.items()}
        segments = arrays[batch.DECODER_SEGMENT_IDS]
        for number in range(1, segments.max() + 1):
            own = segments == number
            targets = arrays[batch.DECODER_TARGET_TOKENS][own]
            if batch.ENCODER_SEGMENT_IDS in arrays:
                source = arrays[batch.ENCODER_SEGMENT_IDS] == number
                prompt = arrays[batch.ENCODER_INPUT_TOKENS][source]
            else:
                weights = arrays[batch.DECODER_LOSS_WEIGHTS][own]
                prompt, targets = targets[weights == 0], targets[weights == 1]
            task = int(arrays[batch.DECODER_TASK_IDS][own][0])
            examples.append((task, prompt.tolist(), targets.tolist()))
    return sorted(examples)


@pytest.mark.parametrize("packing", PACKINGS)
def test_both_layouts_hold_the_same_examples(packing):
    specs = [toy_spec(ToySource("s", words=40), modes={"zs_noopt": 1, "fs_noopt": 1}), toy_spec()]
    builder = builder_of(*specs, packing=packing)
    config = dataclasses.replace(builder.config, layout="decoder_only")
    window = dataclasses.replace(builder, config=config).build(0)
    batch.DECODER_ONLY.check(window.rows)
    assert examples_of(window) == examples_of(builder.build(0))
    assert max(len(prompt) for _, prompt, _ in examples_of(window)) > 120  # of 128


def test_counts_and_leaves_tell_what_is_in_the_rows():
    builder = builder_of(
        toy_spec(ToySource("long", words=40), modes={"fs_noopt": 1}), toy_spec(), toy_spec()
    )
    window = builder.build(0)
    counts = dict(zip(COUNTS, window.counts))
    assert counts["asked"].tolist() in ([22, 21, 21], [21, 22, 21], [21, 21, 22])
    assert (counts["kept"] + counts["dropped"] == counts["asked"]).all()
    assert window.row_ends[-1] == window.example_leaves.size == counts["kept"].sum()
    assert counts["truncated"][0] > 0
    rows, starts = window.rows, np.r_[0, window.row_ends]
    for row in range(window.num_rows):
        ids = rows[batch.DECODER_TASK_IDS][row]
        segments = rows[batch.DECODER_SEGMENT_IDS][row]
        inside = window.example_leaves[starts[row] : starts[row + 1]]
        assert segments.max() == len(inside)
        for number, leaf in enumerate(inside, 1):
            assert set(ids[segments == number]) == {leaf + 1}
    assert (rows[batch.ENCODER_SEGMENT_IDS] > 0).sum() == counts["input_tokens"].sum()
    assert (rows[batch.DECODER_SEGMENT_IDS] > 0).sum() == counts["target_tokens"].sum()


def test_an_epoch_uses_every_record_once():
    builder = builder_of(toy_spec(ToySource("e", size=64)))
    decode = load_vocabulary("bytes").decode
    seen = collections.Counter()
    rows = builder.build(0).rows
    for tokens, segments in zip(rows[batch.ENCODER_INPUT_TOKENS], rows[batch.ENCODER_SEGMENT_IDS]):
        for number in range(1, segments.max() + 1):
            text = decode(tokens[segments == number].tolist())
            seen[text.split("[e] ")[1].split(" + ")[0]] += 1
    assert seen == {str(number): 1 for number in range(64)}


def test_examples_that_cannot_be_used_are_dropped_with_a_reason():
    builder = builder_of(toy_spec(), feature_lengths={"inputs": 128, "targets": 2})
    window = builder.build(0)
    assert window.dropped == {} and window.counts[1].sum() == 64
    short = builder_of(toy_spec(), feature_lengths={"inputs": 6, "targets": 16})
    window = short.build(0)
    assert window.num_rows == 0
    assert sum(window.dropped.values()) == window.counts[2].sum() == 64


def test_a_corrupt_block_is_one_clear_message():
    builder = builder_of(toy_spec(ToySource("c", size=500)))
    leaf = builder.leaves[0]
    file = store.Path(leaf.store[0]) / store.RECORDS_FILE
    data = bytearray(file.read_bytes())
    middle = data.index(bytes(300)) // 2  # before the padding that follows the records
    data[middle : middle + 40] = bytes(40)
    file.write_bytes(bytes(data))
    open_store.cache_clear()
    with pytest.raises(UserError, match=r"damaged(.|\n)*prepare"):
        for number in range(8):
            builder.build(number)


def test_exemplars_that_do_not_fit_are_counted():
    few_shot = toy_spec(ToySource("fs", words=12), modes={"fs_noopt": 1})
    builder = builder_of(few_shot, toy_spec(ToySource("zs")))
    wide, narrow = (
        dataclasses.replace(
            builder,
            config=dataclasses.replace(
                builder.config, feature_lengths={"inputs": length, "targets": 16}
            ),
        ).build(0)
        for length in (4000, 250)
    )
    missing = COUNTS.index("exemplars_missing")
    assert wide.counts[missing].tolist() == [0, 0]
    few, none = narrow.counts[missing].tolist()
    assert few > 20 and none == 0 and narrow.counts[COUNTS.index("dropped")].sum() == 0


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize(("kind", "form"), [("llama3", "llama3"), ("qwen", "chatml")])
def test_sequences_of_published_tokenizers(tmp_path, monkeypatch, kind, form, chat):
    """Starts, conversations and chat templates of Llama 3 and Qwen, read back from packed rows."""
    transformers = pytest.importorskip("transformers")
    folder = write_folder(kind, tmp_path / kind)
    (folder / "chat_template.jinja").write_text(FORMS[form])
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(tmp_path))
    lines = (json.dumps({"messages": TALK[:count]}) for count in (3, 4) for _ in range(8))
    (tmp_path / "talk.jsonl").write_text("\n".join(lines))
    source = JsonLinesSource("talk", {"train": Part("talk.jsonl")}, field_map=MessagesMap())
    spec = toy_spec(source, templates=TEMPLATES, splits={"train": "train"})
    changes = {"vocabulary": str(folder), "layout": "decoder_only", "window_examples": 16}
    builder = builder_of(spec, chat_template=chat, **changes)
    window, vocabulary = builder.build(0), load_vocabulary(str(folder))
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    whole = [theirs.apply_chat_template(TALK[:n], return_dict=False) for n in (2, 4)]
    batch.DECODER_ONLY.check(window.rows)
    assert window.counts[COUNTS.index("kept")].tolist() == [16]
    for row, segments in enumerate(window.rows[batch.DECODER_SEGMENT_IDS]):
        for number in range(1, segments.max() + 1):
            own = segments == number
            inputs, targets, weights = (
                window.rows[key][row][own].tolist()
                for key in (
                    batch.DECODER_INPUT_TOKENS,
                    batch.DECODER_TARGET_TOKENS,
                    batch.DECODER_LOSS_WEIGHTS,
                )
            )
            assert tuple(inputs[: len(vocabulary.start_ids)]) == vocabulary.start_ids
            trained = [token for token, weight in zip(targets, weights) if weight]
            turns = sum(token in vocabulary.stop_ids for token in trained)
            said = [m["content"].strip() for m in TALK if m["role"] == "assistant"][:turns]
            ends = [n + 1 for n, token in enumerate(trained) if token in vocabulary.stop_ids]
            parts = [trained[a:b] for a, b in zip([0, *ends], ends)]
            assert [vocabulary.decode(part).strip() for part in parts] == said and turns > 0
            if chat:
                ids = [inputs[0], *targets]
                assert any(ids == own[: len(ids)] for own in whole)
