"""The examples of docs/python.md run, one after another, in an empty directory."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "python.md"


@pytest.mark.skipif(not DOCUMENT.exists(), reason="the repository's docs are not here")
def test_every_example_runs_and_prints_what_the_document_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = DOCUMENT.read_text()
    cells = re.findall(r"```python\n(.*?)```(?:\n+```text\n(.*?)```)?", text, flags=re.DOTALL)
    assert len(cells) > 8
    names: dict[str, object] = {}
    for code, expected in cells:
        needed = re.findall(r"^(?:import|from) (torch|transformers|sentence_transformers)", code, flags=re.MULTILINE)
        if not all(importlib.util.find_spec(module) for module in needed):
            print(f"skipped, without {needed}:\n{code}", file=sys.stderr)
            continue
        capsys.readouterr()
        exec(compile(code, str(DOCUMENT), "exec"), names)  # noqa: S102
        printed = capsys.readouterr().out
        if expected:
            assert printed.split() == expected.split(), code
