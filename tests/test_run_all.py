"""The shell script up to the point where it would set anything up."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "run_all.sh"


def call(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    return subprocess.run([SCRIPT, *arguments], cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_names_every_profile_from_any_folder(flag, tmp_path):
    shown = call(flag, cwd=tmp_path)
    assert shown.returncode == 0
    assert all(word in shown.stdout for word in ("smoke", "quick", "paper", "test", "--force"))
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_word_is_one_sentence_with_the_choice():
    refused = call("qiuck")
    assert refused.returncode == 2
    assert "'qiuck'" in refused.stderr and "quick" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_ci_calls_the_same_tests():
    ci = SCRIPT.parent / ".ci" / "run"
    assert ci.stat().st_mode & 0o111
    assert 'run_all.sh" test' in ci.read_text()


def test_it_runs_as_git_for_windows_checks_it_out(tmp_path):
    clone = tmp_path / "clone"
    git = ["git", "-c", "core.autocrlf=true", "clone", "--quiet", SCRIPT.parent, clone]
    if not (SCRIPT.parent / ".git").exists():
        pytest.skip("no clone of git's")
    subprocess.run(git, check=True)
    assert subprocess.run([clone / "run_all.sh", "--help"], capture_output=True).returncode == 0
    for name in ("environment.yml", "pyproject.toml"):  # the script reads them line by line
        assert b"\r" not in (clone / name).read_bytes()
