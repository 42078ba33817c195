"""LoRA: a checkpoint is finetuned on a file by adapters alone, which are written in PEFT's format.

    python examples/lora.py              # starts from runs/example, which own_task.py writes

For Flan-T5 give `main` its folder as `checkpoint`, "gin/recipes/flan_t5_base_lora.gin" as
`gin_files` and VOCABULARY="FOLDER/spiece.model"; `SIZES` are those of the tiny model.
"""

import json
import pathlib
from typing import Any

import instruct

ROWS = [
    {"text": f"Number {n}", "label": "even" if n % 2 == 0 else "odd"} for n in range(100)
]  # yours: any file of JSON lines, CSV, Parquet ... (docs/your_data.md)
TINY = ("gin/runs/train.gin", "gin/models/tiny_test.gin")
SIZES: dict[str, Any] = {
    "config.ModelConfig.vocab_size": 6144,
    "config.ModelConfig.num_encoder_layers": 1,
    "config.ModelConfig.num_decoder_layers": 1,
}


def main(
    checkpoint: str | pathlib.Path = "runs/example",
    folder: str | pathlib.Path = "runs/example_lora",
    gin_files: tuple[str, ...] = TINY,
    steps: int = 20,
    **settings: Any,
) -> None:
    """Trains adapters, compares the run before and after, and writes the adapters."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "numbers.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    task = instruct.TaskFile(
        data=str(data), inputs=("text",), targets="label", templates=("{text}: even or odd?",)
    )
    run = instruct.train_model(
        gin_files,
        folder / "run",
        data=task,
        INITIAL_CHECKPOINT_PATH=str(checkpoint),
        TASK_FEATURE_LENGTHS={"inputs": 64, "targets": 8},
        TRAIN_STEPS=steps,
        BATCH_SIZE=16,
        LORA_RANK=4,
        LEARNING_RATE=1e-3,
        **{"optimizer.OptimizerConfig.name": "adamw"},  # docs/lora.md says why
        **(settings or SIZES),
    )
    before, after = instruct.evaluate_model(run, before=True)
    print(before, after, f"page: {run}/before_after.html", sep="\n")
    instruct.convert_checkpoint(run, folder / "adapter", "peft", base=checkpoint)
    print(f"adapters: {folder}/adapter")


if __name__ == "__main__":
    main()
