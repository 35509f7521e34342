"""What the README shows runs as it stands."""

import re
from pathlib import Path

import pytest

import fake
from test_runs import examples, happen

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "clients" / "python" / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_readme_has_its_examples() -> None:
    assert len(BLOCKS) == 4


@pytest.mark.parametrize("block", BLOCKS, ids=["runs", "by hand", "asyncio", "any call"])
def test_examples_run(block: str, state: fake.State, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOUST_CLUSTER", str(folder))
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    happen(state, 3)
    state.applied = examples()
    exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})
    assert state.calls
