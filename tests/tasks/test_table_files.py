import pytest

from tasks import table_files


def test_rows_by_column(tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "FOLDER", tmp_path)
    text = '# a comment\nname\tnote\n# another\none\t-\n"two\tsays "hi"\n'
    (tmp_path / "x.tsv").write_text(text, encoding="utf-8")
    rows = table_files.read_table("x")
    assert rows == [{"name": "one", "note": ""}, {"name": '"two', "note": 'says "hi"'}]


@pytest.mark.parametrize("name", ["cot", "flan2021", "niv2", "t0"])
def test_every_line_has_every_cell(name):
    lines = (table_files.FOLDER / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    cells = [line.split("\t") for line in lines if not line.startswith("#")]
    assert {len(row) for row in cells} == {len(cells[0])}
    assert all(cell.strip() for row in cells for cell in row)
