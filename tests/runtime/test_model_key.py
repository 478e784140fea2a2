"""Models that compute the same share a key, and no others."""

import os
from pathlib import Path

import pytest

from runtime.mlx import device, kv_header
from runtime.mlx import model_key as key

WEIGHTS = b"w" * 100


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "model-1.safetensors").write_bytes(WEIGHTS)
    (path / "model-2.safetensors").write_bytes(WEIGHTS[::-1])
    return path


class Keys:
    """Asks for keys, and counts how often weights are read for them."""

    def __init__(self, cache_dir: Path) -> None:
        self.cache_dir = cache_dir
        self.chunks = 0

    def beat(self, _doing: str) -> None:
        self.chunks += 1

    def of(
        self, model: Path, dtype: str = "float32", kv_bits: int | None = None, chunks: int = 0, invariant: bool = False
    ) -> str:
        return key.model_key(
            model,
            cache_dir=self.cache_dir,
            dtype=dtype,
            kv_bits=kv_bits,
            chunk_tokens=chunks,
            invariant=invariant,
            beat=self.beat,
        )

    def anew(self, model: Path) -> str:
        """The same with nothing remembered: a file that changes twice within a tick of the clock looks the same."""
        (self.cache_dir / key.MEMO).unlink(missing_ok=True)
        return self.of(model)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "cache")


def test_a_key_is_a_good_name_for_a_folder(keys: Keys, model: Path) -> None:
    assert len(keys.of(model)) == 32
    assert set(keys.of(model)) <= set("0123456789abcdef")


def test_the_same_content_elsewhere_has_the_same_key(keys: Keys, model: Path) -> None:
    before = keys.anew(model)
    assert keys.anew(model.rename(model.with_name("moved"))) == before


@pytest.mark.parametrize("name", ["config.json", "model-2.safetensors"])
def test_other_content_of_the_same_length_has_another_key(keys: Keys, model: Path, name: str) -> None:
    before = keys.anew(model)
    content = bytearray((model / name).read_bytes())
    content[-1] ^= 1
    (model / name).write_bytes(content)
    assert keys.anew(model) != before


def test_weights_that_change_places_have_another_key(keys: Keys, model: Path) -> None:
    before = keys.anew(model)
    (model / "model-1.safetensors").write_bytes(WEIGHTS[:50] + b"v" + WEIGHTS[51:])
    changed = keys.anew(model)
    (model / "model-2.safetensors").rename(model / "swap")
    (model / "model-1.safetensors").rename(model / "model-2.safetensors")
    (model / "swap").rename(model / "model-1.safetensors")
    assert len({before, changed, keys.anew(model)}) == 3


def test_more_weights_have_another_key(keys: Keys, model: Path) -> None:
    before = keys.anew(model)
    (model / "model-3.safetensors").write_bytes(b"")
    assert keys.anew(model) != before


def test_what_takes_no_part_in_computing_does_not_change_the_key(keys: Keys, model: Path) -> None:
    before = keys.of(model)
    (model / "README.md").write_text("A model.")
    assert keys.of(model) == before


def test_types_and_bits_and_devices_and_versions_have_keys_of_their_own(
    keys: Keys, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {keys.of(model), keys.of(model, dtype="bfloat16"), keys.of(model, kv_bits=4), keys.of(model, kv_bits=8)}
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(device, "name", lambda: "a device of the future")
        found.add(keys.of(model))
    with monkeypatch.context() as later:
        later.setattr(key, "versions", lambda: {"mlx": "99.0", "mlx-lm": "99.0"})
        found.add(keys.of(model))
    with monkeypatch.context() as later:
        later.setattr(kv_header, "FORMAT", "troupe-kv-99")
        found.add(keys.of(model))
    assert len(found) == 7


def test_fixed_chunks_and_batch_invariance_have_keys_of_their_own(keys: Keys, model: Path) -> None:
    found = {keys.of(model), keys.of(model, chunks=64), keys.of(model, chunks=64, invariant=True)}
    assert len(found) == 3


def test_weights_are_read_once(keys: Keys, model: Path) -> None:
    before = keys.of(model)
    assert keys.chunks == 3
    assert keys.of(model) == before
    assert keys.chunks == 3


def test_only_the_file_that_changed_is_read_again(keys: Keys, model: Path) -> None:
    keys.of(model)
    (model / "model-1.safetensors").write_bytes(WEIGHTS + b"!")
    keys.of(model)
    assert keys.chunks == 4


def test_a_file_that_is_dated_back_is_read_again(keys: Keys, model: Path) -> None:
    before = keys.of(model)
    path = model / "model-1.safetensors"
    dates = path.stat()
    while path.stat().st_ctime_ns == dates.st_ctime_ns:  # Until the clock has moved on.
        path.write_bytes(WEIGHTS[:-1] + b"?")
        os.utime(path, ns=(dates.st_atime_ns, dates.st_mtime_ns))
    assert keys.of(model) != before


@pytest.mark.parametrize("memo", [b"", b"{", b"[]", b'{"a": 1}', b"\xff", b'{"a": {"size": "x"}}'])
def test_without_a_memo_that_can_be_read_all_is_read_again(keys: Keys, model: Path, memo: bytes) -> None:
    before = keys.of(model)
    (keys.cache_dir / key.MEMO).write_bytes(memo)
    assert keys.of(model) == before
    assert keys.chunks == 6


def test_where_nothing_can_be_remembered_the_key_is_the_same(keys: Keys, model: Path) -> None:
    before = keys.of(model)
    keys.cache_dir = model / "config.json" / "not a folder"
    assert keys.of(model) == before


def test_files_that_are_gone_are_forgotten(keys: Keys, model: Path) -> None:
    keys.of(model)
    (model / "model-2.safetensors").rename(model / "model-3.safetensors")
    keys.of(model)
    memo = (keys.cache_dir / key.MEMO).read_text()
    assert "model-3" in memo
    assert "model-2" not in memo


def test_the_memo_is_for_its_owner_only(keys: Keys, model: Path) -> None:
    keys.of(model)
    assert (keys.cache_dir / key.MEMO).stat().st_mode & 0o777 == 0o600
    assert keys.cache_dir.stat().st_mode & 0o777 == 0o700
