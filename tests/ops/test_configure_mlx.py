"""configure_mlx.sh on Macs that are not there: every command that it asks or tells is a fake on its PATH."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "configure_mlx.sh"
GIB = 1 << 30

SYSCTL = """#!{bash}
case "$1 ${{2:-}}" in
    "-n hw.memsize") echo {memory} ;;
    "-n iogpu.wired_limit_mb") [ -e "{here}/limit" ] || exit 1; cat "{here}/limit" ;;
    iogpu.wired_limit_mb=*) echo "$1" >> "{here}/told"; {obey} ;;
    *) exit 2 ;;
esac
"""
OBEY = 'echo "${{1#*=}}" > "{here}/limit"; echo "iogpu.wired_limit_mb: 0 -> ${{1#*=}}"'


@dataclass
class Mac:
    """A folder of fakes; `run` starts the script with nothing else on its PATH."""

    here: Path

    def fake(self, name: str, text: str) -> None:
        file = self.here / "bin" / name
        file.write_text(text)
        file.chmod(0o755)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        bash = str(shutil.which("bash"))
        path = {"PATH": str(self.here / "bin")}
        return subprocess.run(
            [bash, SCRIPT, *arguments], env=path, capture_output=True, text=True, timeout=30, check=False
        )

    @property
    def limit(self) -> int:
        return int((self.here / "limit").read_text())

    @property
    def told(self) -> list[str]:
        file = self.here / "told"
        return file.read_text().split() if file.exists() else []


@pytest.fixture
def mac(tmp_path: Path) -> Callable[..., Mac]:
    def make(
        *,
        system: str = "Darwin",
        machine: str = "arm64",
        version: str = "15.1",
        memory: int = 64 * GIB,
        limit: str | None = "0",
        user: int = 501,
        sudo: str | None = '"$@"',
        obey: str = OBEY,
    ) -> Mac:
        bash = str(shutil.which("bash"))
        made = Mac(tmp_path)
        (tmp_path / "bin").mkdir()
        if limit is not None:
            (tmp_path / "limit").write_text(limit)
        values = {"bash": bash, "here": tmp_path, "memory": memory}
        cat = shutil.which("cat")
        made.fake("cat", f'#!{bash}\nexec {cat} "$@"\n')
        made.fake("uname", f'#!{bash}\n[ "$1" = -s ] && echo {system} || echo {machine}\n')
        made.fake("sw_vers", f"#!{bash}\necho {version}\n")
        made.fake("id", f"#!{bash}\necho {user}\n")
        made.fake("sysctl", SYSCTL.format(**values, obey=obey.format(**values)))
        if sudo is not None:
            made.fake("sudo", f'#!{bash}\necho sudo >> "{tmp_path}/told"\n{sudo}\n')
        return made

    return make


@pytest.mark.parametrize(
    ("memory_gib", "rest_mib"), [(8, 2048), (16, 3276), (24, 4915), (36, 7372), (64, 8192), (128, 8192), (512, 8192)]
)
def test_a_fifth_of_the_memory_is_left_and_2_to_8_gib_at_that(
    mac: Callable[..., Mac], memory_gib: int, rest_mib: int
) -> None:
    it = mac(memory=memory_gib * GIB)
    done = it.run()
    assert (done.returncode, done.stderr) == (0, "")
    assert it.limit == memory_gib * 1024 - rest_mib
    assert it.told == ["sudo", f"iogpu.wired_limit_mb={it.limit}"]
    assert "restart of this Mac" in done.stdout


def test_a_second_time_there_is_nothing_to_do(mac: Callable[..., Mac]) -> None:
    it = mac()
    it.run()
    told = it.told
    done = it.run()
    assert done.returncode == 0
    assert "Nothing to do" in done.stdout
    assert it.told == told


def test_a_dry_run_only_says_what_would_be_run(mac: Callable[..., Mac]) -> None:
    it = mac()
    done = it.run("--dry-run")
    assert done.returncode == 0
    assert "Would run: sudo sysctl iogpu.wired_limit_mb=57344" in done.stdout
    assert (it.limit, it.told) == (0, [])


def test_a_reset_gives_the_choice_back_to_macos(mac: Callable[..., Mac]) -> None:
    it = mac(limit="57344")
    assert it.run("--reset").returncode == 0
    assert it.limit == 0


def test_a_number_of_ones_own(mac: Callable[..., Mac]) -> None:
    it = mac()
    assert it.run("--mb", "60000").returncode == 0
    assert it.limit == 60000


def test_root_needs_no_sudo(mac: Callable[..., Mac]) -> None:
    it = mac(user=0, sudo=None)
    assert it.run().returncode == 0
    assert it.told == [f"iogpu.wired_limit_mb={it.limit}"]


REFUSALS = [
    ({"system": "Linux"}, (), "on macOS only"),
    ({"machine": "x86_64"}, (), "no Apple silicon"),
    ({"version": "14.6.1"}, (), "macOS 14.6.1"),
    ({"limit": None}, (), "does not know iogpu.wired_limit_mb"),
    ({"sudo": None}, (), "there is no sudo"),
    ({"sudo": "exit 1"}, (), "administrator's password"),
    ({"obey": ":"}, (), "the limit is still 0"),
    ({}, ("--mb",), "needs a number"),
    ({}, ("--mb", "64g"), "'64g' is not a number"),
    ({}, ("--mb", "9999999999999999999999"), "is not a number"),
    ({}, ("--mb", "0"), "--reset"),
    ({}, ("--mb", "64000"), "less than 2 GiB"),
    ({}, ("--mb", "60000", "--reset"), "exclude each other"),
    ({}, ("--force",), "there is no --force"),
]


@pytest.mark.parametrize(("machine", "arguments", "said"), REFUSALS, ids=[refusal[2] for refusal in REFUSALS])
def test_what_cannot_be_done_is_one_line_and_changes_nothing(
    mac: Callable[..., Mac], machine: dict[str, object], arguments: tuple[str, ...], said: str
) -> None:
    it = mac(**machine)
    done = it.run(*arguments)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("configure_mlx.sh: ")
    assert said in line
    assert "limit" not in machine or it.told == []


def test_help_says_that_a_restart_undoes_it(mac: Callable[..., Mac]) -> None:
    done = mac().run("--help")
    assert done.returncode == 0
    assert "restart of the Mac undoes" in done.stdout


def test_shellcheck_finds_nothing() -> None:
    shellcheck = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([shellcheck, SCRIPT], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")
