"""Generated code is that of the proto files and of the client for asyncio."""

import generate


def test_generated_files_have_not_drifted() -> None:
    assert generate.drift() == [], "run clients/python/generate.py"


def test_drift_is_noticed(monkeypatch) -> None:
    made = generate.outputs()
    path = min(made)
    monkeypatch.setattr(generate, "outputs", lambda: {p: t for p, t in made.items() if p != path} | {path.with_name("new.py"): ""})
    assert generate.drift() == sorted([f"{path.with_name('new.py')} is missing", f"{path} is not generated any more"])
