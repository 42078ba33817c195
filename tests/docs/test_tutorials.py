"""docs/tutorials: a shell runs every command block of each page, in order, at small size.

A page's bash blocks are one script, run in a folder that looks like a fresh clone with an empty
home folder. A block after "`NAME`:" is written to that file. `SMALL` is
all that differs from the page. A block after the comment `<!-- not run: REASON -->` is left out.
"""

import dataclasses
import json
import os
import pathlib
import re
import subprocess

import pytest

from tests.flan_t5 import SMALL_GIN, write_dialogues, write_flan_t5
from tests.ports import free_port
from tests.waiting import LIMIT_SECS
from tests.xla_flags import QUICK_COMPILATION

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "tutorials"
PAGES = sorted(path.stem for path in FOLDER.glob("*.md"))
MOST_LINES, MOST_NOT_RUN = 130, 3
DIALOGSUM_SMALL = (
    "--gin_file=small.gin --gin.TASK_FEATURE_LENGTHS=\"{'inputs': 96, 'targets': 48}\""
)
# Page -> {text on the page: what the test runs instead}; small.gin is `SMALL_GIN`.
SMALL: dict[str, dict[str, str]] = {
    "add_a_task": {
        '"gym.demo": 3.0': '"gym.easy_legs": 3.0',
        "'gym.demo')": "'gym.easy_legs')",
        "gin/recipes/gym_demo.gin": "gin/recipes/gym_demo.gin --gin_file=small.gin",
        "--gin.TRAIN_STEPS=600": "--gin.TRAIN_STEPS=2",
    },
    "dialogsum": {
        "flan_t5_base_dialogsum.gin": f"flan_t5_base_dialogsum.gin {DIALOGSUM_SMALL}",
        "flan_t5_base_dialogsum_lora.gin": f"flan_t5_base_dialogsum_lora.gin {DIALOGSUM_SMALL}",
        "{'inputs': 1024, 'targets': 128}": "{'inputs': 512, 'targets': 48}",
        "NUM_EVAL_EXAMPLES=None": "NUM_EVAL_EXAMPLES=4",
        "MAX_DECODE_STEPS=64": "MAX_DECODE_STEPS=4",
        "flan2021\t3": "gym.easy_legs\t3",
        "'samsum', 'held_in'": "'gym.easy_legs'",
        "--gin.TRAIN_STEPS=1600": "--gin.TRAIN_STEPS=3",
    },
    "finetune_flan_t5": {
        "flan_t5_small_finetune.gin": "flan_t5_small_finetune.gin --gin_file=small.gin",
        "--gin.TRAIN_STEPS=1000": "--gin.TRAIN_STEPS=2",
        "MAX_DECODE_STEPS=64": "MAX_DECODE_STEPS=4",
    },
    "reproduce_table_3": {
        "replica_30min.gin": "replica_30min.gin --gin_file=small.gin",
        "--only=tasks=54": "--gin.EVAL_MIXTURES=lists.counting_unseen_categories",
    },
    "scale_out": {
        "gin/recipes/gym_demo.gin": "gin/recipes/gym_demo.gin --gin_file=small.gin "
        "--gin.MIXTURE_OR_TASK_NAME=gym.easy_legs --gin.EVAL_MIXTURES=gym.easy_legs",
        "--gin.TRAIN_STEPS=100": "--gin.TRAIN_STEPS=1",
        "--gin.TRAIN_STEPS=200": "--gin.TRAIN_STEPS=2",
        "--gin.TRAIN_STEPS=300": "--gin.TRAIN_STEPS=3",
        "gin/recipes/flan_t5_small.gin": "gin/recipes/gym_demo.gin --gin_file=small.gin",
        "--gin_file=gin/hardware/v5e-16.gin --topology=v5e-16": "--topology=v5e-4",
    },
}


@dataclasses.dataclass(frozen=True)
class Block:
    """A code block of a page: its language, the file it is (or ""), why it is not run (or "")."""

    language: str
    text: str
    file: str
    not_run: str


def blocks(page: str) -> list[Block]:
    """The code blocks of a page in order."""
    matches = re.finditer(
        r"(?:`(?P<file>\w+\.\w+)`:\n\n)?(?:^<!-- not run: (?P<why>[^\n]+?) -->\n)?"
        r"^```(?P<language>\w*)\n(?P<text>.*?)^```$",
        (FOLDER / f"{page}.md").read_text(),
        re.DOTALL | re.MULTILINE,
    )
    return [Block(m["language"], m["text"], m["file"] or "", m["why"] or "") for m in matches]


@dataclasses.dataclass(frozen=True)
class Clone:
    """A folder of the project's files beside those that a tutorial writes, and a home folder."""

    folder: pathlib.Path
    home: pathlib.Path
    environment: dict[str, str]

    def follow(self, page: str) -> str:
        """Runs a page's commands, of which none may fail; returns what they print."""
        small = SMALL[page] | {"localhost:8476": f"localhost:{free_port()}"}
        script = ["set -euo pipefail"]
        for number, block in enumerate(blocks(page)):
            text = block.text
            for long, short in small.items():
                text = text.replace(long, short)
            if block.file:
                (self.folder / block.file).write_text(text)
            elif block.language == "bash" and not block.not_run:
                script += [f"echo '--- block {number}' >&2", text]
        done = subprocess.run(
            ["bash", "-c", "\n".join(script)],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=3 * LIMIT_SECS,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture
def clone(forked_python, tmp_path) -> Clone:
    folder, home = tmp_path / "instruct", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    for path in ROOT.iterdir():
        if not path.name.startswith(".") and path.name not in ("runs", "build", "tests"):
            (folder / path.name).symlink_to(path)
    (folder / "small.gin").write_text(SMALL_GIN)
    variables = {"HOME": str(home), "PATH": f"{forked_python.parent}:{os.environ['PATH']}"}
    variables["XLA_FLAGS"] = QUICK_COMPILATION
    # Stores lie where they lie for a user, below the home folder.
    own = {name: value for name, value in os.environ.items() if not name.startswith("INSTRUCT_")}
    return Clone(folder, home, own | variables)


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_short_and_say_what_is_not_run(page):
    text = (FOLDER / f"{page}.md").read_text()
    assert len(text.splitlines()) <= MOST_LINES
    head = text.split("\n## ")[0]
    assert all(word in head for word in ("**You need**", "**Time**", "**At the end**"))
    not_run = [block for block in blocks(page) if block.not_run]
    assert len(not_run) <= MOST_NOT_RUN
    prose = re.sub("<!--.*?-->", "", text)
    assert not not_run or "ot run" in prose, "the prose says so, too"
    assert len(blocks(page)) == len(re.findall("^```", text, re.MULTILINE)) / 2


@pytest.mark.parametrize("page", PAGES)
def test_what_is_small_in_the_test_is_on_the_page(page):
    run = [b.text for b in blocks(page) if b.file or (b.language == "bash" and not b.not_run)]
    assert [text for text in SMALL[page] if text not in "".join(run)] == []


@pytest.mark.slow(secs=20)
def test_finetune_flan_t5(clone):
    write_flan_t5(clone.home / "flan-t5-small")
    write_dialogues(clone.home / "dialogues" / "train.jsonl", 40)
    write_dialogues(clone.home / "dialogues" / "test.jsonl", 4)
    clone.follow("finetune_flan_t5")
    assert "own.dialogues" in (clone.folder / "runs/tuned/before_after.md").read_text()
    files = {path.name for path in (clone.home / "my-flan-t5").iterdir()}
    assert {"config.json", "model.safetensors", "spiece.model"} <= files


def write_dialogsum(folder: pathlib.Path) -> None:
    """The files of DialogSum with some of its dialogues, or with made-up ones without them."""
    published = ROOT.parent / "shared" / "data" / "dialogsum"
    folder.mkdir(parents=True)
    for split, source, count in (("train", "dev", 40), ("dev", "dev", 4), ("test", "test", 8)):
        path = folder / f"dialogsum.{split}.jsonl"
        if (published / f"dialogsum.{source}.jsonl").is_file():
            lines = (published / f"dialogsum.{source}.jsonl").read_text().splitlines()
            path.write_text("\n".join(lines[-count:]) + "\n")
        else:
            write_dialogues(path, count)
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            rows = [row | {"fname": f"{split}_{n}"} for n, row in enumerate(rows)]
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.slow(secs=20)
def test_dialogsum(clone):
    write_flan_t5(clone.home / "flan-t5-base")
    write_dialogsum(clone.home / "instruct_data" / "dialogsum")
    printed = clone.follow("dialogsum")
    assert "dialogsum.main direct" in printed and "trains " in printed
    runs = clone.folder / "runs"
    for run in ("full", "lora", "full_and_lora"):
        page = (runs / run / "before_after.md").read_text()
        assert "rougeL" in page and "invent" in page, run
    page = (runs / "full" / "forgetting.md").read_text()
    assert "gym.easy_legs" in page or "gym." in page
    assert json.loads((clone.home / "my-adapter/adapter_config.json").read_text())["r"] == 8
    assert (clone.home / "my-dialogsum" / "model.safetensors").is_file()


@pytest.mark.slow(secs=20)
def test_add_a_task(clone):
    clone.follow("add_a_task")
    report = (clone.folder / "runs/mine/report.md").read_text()
    assert "weather.reports" in report and r"one\_word" in report
    mixture = json.loads((clone.folder / "runs/mine/mixture.json").read_text())
    shares = {leaf["name"]: leaf["asked"] for leaf in mixture["leaves"]}
    assert shares["weather.reports.zs_noopt"] == pytest.approx(0.25 * 2 / 3)


@pytest.mark.slow(secs=20)
def test_reproduce_table_3(clone):
    printed = clone.follow("reproduce_table_3")
    assert "25 runs, 20 of them trained" in printed and "chip-hours" in printed
    assert "540B" in printed and "2 runs: 2 done" in printed
    assert (clone.folder / "runs/replica_30min/study.html").is_file()


@pytest.mark.slow(secs=20)
def test_scale_out(clone):
    printed = clone.follow("scale_out")
    lines = (clone.folder / "runs/scale/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]
    assert "fits" in printed
    jobs = clone.folder / "runs/gym_scale/jobs"
    assert "sbatch" in (jobs / "submit.sh").read_text()
