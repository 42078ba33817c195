"""`prepare`: builds what is missing, and says what is there."""

import json

from instruct.cli import arguments, prepare

TASK = "gym.chain_sum.zs_noopt"


def test_stores_are_built_once(capsys, tmp_path):
    flags = arguments.parse(["prepare", f"--mixture={TASK}", "--workers=1", "--json"])
    stores = []
    for status in ("built", "there"):
        assert prepare.run(flags) == 0
        stores = json.loads(capsys.readouterr().out)
        assert {store["status"] for store in stores} == {status}
    assert {store["split"] for store in stores} == {"train", "validation", "test"}
    assert all(store["records"] > 0 for store in stores)
    manifests = list((tmp_path / "stores").glob("*/*/manifest.json"))
    assert len(manifests) == len(stores)


def test_the_mixture_may_come_from_gin(capsys, tmp_path):
    recipe = ["--gin_file=gin/recipes/gym_demo.gin", "--gin.MODEL_DIR=/not/made"]
    flags = [*recipe, f"--gin.MIXTURE_OR_TASK_NAME={TASK}", "--workers=1"]
    assert prepare.run(arguments.parse(["prepare", *flags])) == 0
    out = capsys.readouterr().out
    assert "gym.chain_sum" in out and str(tmp_path / "stores") in out.replace("\n", "")
