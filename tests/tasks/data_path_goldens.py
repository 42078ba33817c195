"""The numbers of docs/data_path.md, worked out by the code they describe."""

import json

from instruct import batch
from instruct.data.feed.packing import pack
from instruct.data.feed.rendering import example_key, name_key
from instruct.data.vocab import load_vocabulary
from instruct.prompts.frame import Frame
from instruct.prompts.record import Record
from instruct.prompts.render import Rendered, render
from tasks import public
from tests.tasks.public_goldens import MADE_UP, WORKSPACE

TASK, MODE = "gsm8k.main", "direct"
NUMBERS = (1, 4)  # examples of the leaf that are short enough to print
ROW = (256, 12)


def goldens() -> dict[str, str]:
    """One file; the blocks of the page are pieces of it."""
    spec = public.gsm8k_task()
    records = [r for r in spec.source.records(WORKSPACE, "train") if isinstance(r, Record)]
    raw = (MADE_UP / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines()[4]
    record = next(r for r in records if r.id == "gsm8k-train-4")
    vocabulary = load_vocabulary("bytes")
    leaf_key = name_key(spec.leaf_name(MODE))
    parts = [raw, json.dumps(json.loads(record.to_json()), indent=1, ensure_ascii=False)]
    shown = []
    for number in NUMBERS:
        key = example_key(0, leaf_key, number)
        example = render(
            record,
            spec.templates,
            MODE,
            key,
            frame=Frame(vocabulary),
            max_inputs_tokens=ROW[0],
            max_targets_tokens=ROW[1],
        )
        assert isinstance(example, Rendered), example
        shown.append(example)
        parts.append(
            f"example {number}, key {key:#018x}, template {example.template_id}\n"
            f"inputs   {example.inputs!r}\ntargets  {example.targets!r}\n"
            f"ids      {len(example.input_ids)} and {len(example.target_ids)}"
        )
    input_ids = [example.input_ids for example in shown]
    rows = pack(input_ids, [e.target_ids for e in shown], [1, 1], *ROW).rows
    parts.append(
        "\n".join(
            f"{name:22} {' '.join(map(str, rows[name][0, : ROW[1]].tolist()))}"
            for name in batch.ENCODER_DECODER.decoder_keys
        )
    )
    return {"data_path.txt": "\n\n".join(parts) + "\n"}
