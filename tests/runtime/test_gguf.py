"""Tiny GGUF files become model directories that answer exactly as the models they were made from."""

import json
import shutil
from pathlib import Path

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from mlx_lm.utils import load_model

from runtime.errors import ModelError
from runtime.mlx.gguf import convert
from tests.tiny import make_tiny_llama
from tests.tiny_gguf import make_tiny_gguf, tiny_metadata, tiny_tensors, write_gguf

IDS = [[5, 300, 41, 7, 7, 499, 120, 64, 3, 210]]


def converted(gguf: Path) -> Path:
    target = gguf.parent / "converted"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    convert(gguf, target)
    return target


def logits(model: Path) -> np.ndarray:
    return np.array(load_model(model)[0](mx.array(IDS)).astype(mx.float32))


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return make_tiny_llama(tmp_path / "llama")


@pytest.mark.parametrize("tied", [False, True])
def test_a_converted_model_computes_what_the_original_computes(tmp_path: Path, tied: bool) -> None:
    llama = make_tiny_llama(tmp_path / "llama", tied=tied)
    target = converted(make_tiny_gguf(tmp_path / "tiny.gguf", llama))
    np.testing.assert_allclose(logits(target), logits(llama), rtol=0, atol=1e-5)
    assert json.loads((target / "config.json").read_text())["tie_word_embeddings"] is tied


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1"])
def test_a_quantised_file_stays_quantised_and_loses_nothing_more(tmp_path: Path, llama: Path, kind: str) -> None:
    """MLX's own reader gives the weights that the blocks stand for; they are put into a copy of the original."""
    gguf = make_tiny_gguf(tmp_path / "tiny.gguf", llama, kind)
    target = converted(gguf)
    config = json.loads((target / "config.json").read_text())
    assert config["quantization"] == {"group_size": 32, "bits": 8 if kind == "Q8_0" else 4}

    plain = make_tiny_gguf(tmp_path / "plain.gguf", llama)
    write_gguf(plain, tiny_metadata(llama), dequantised_by_mlx(gguf))
    shutil.move(target, tmp_path / "quantised")
    np.testing.assert_allclose(logits(tmp_path / "quantised"), logits(converted(plain)), rtol=0, atol=1e-4)


def dequantised_by_mlx(gguf: Path) -> dict[str, np.ndarray]:
    arrays = mx.load(str(gguf))
    assert isinstance(arrays, dict)
    tensors = {}
    for name, array in arrays.items():
        module = name.removesuffix(".weight")
        if f"{module}.scales" in arrays:
            scales, biases = (arrays[f"{module}.{part}"].astype(mx.float32) for part in ("scales", "biases"))
            array = mx.dequantize(array, scales, biases, 32, array.shape[1] // scales.shape[1])
        if name.endswith(".weight"):
            tensors[name] = np.array(array)
    return tensors


def test_modules_of_other_widths_are_named_in_the_configuration(tmp_path: Path, llama: Path) -> None:
    """As in the default model, whose embedding has 8 bits and the rest 4."""
    gguf, tensors = tmp_path / "tiny.gguf", tiny_tensors(llama)
    write_gguf(
        gguf,
        tiny_metadata(llama),
        tensors,
        {name: "Q8_0" if name == "token_embd.weight" else "Q4_1" for name in tensors},
    )
    config = json.loads((converted(gguf) / "config.json").read_text())
    assert config["quantization"] == {"group_size": 32, "bits": 4, "model.embed_tokens": {"group_size": 32, "bits": 8}}


def test_scales_are_float32_and_a_float16_model_is_float16_throughout(tmp_path: Path, llama: Path) -> None:
    def dtypes(kind: str) -> set[str]:
        arrays = mx.load(str(converted(make_tiny_gguf(tmp_path / "tiny.gguf", llama, kind)) / "model.safetensors"))
        assert isinstance(arrays, dict)
        return {str(array.dtype).removeprefix("mlx.core.") for array in arrays.values()}

    assert dtypes("Q4_0") == {"uint32", "float32"}
    assert dtypes("F16") == {"float16"}


def test_llama_3_frequency_factors_work_as_llama_3_scaling_does(tmp_path: Path, llama: Path) -> None:
    """llama.cpp stores the factors; Hugging Face stores what they are computed from."""
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    config = json.loads((llama / "config.json").read_text()) | {"rope_scaling": scaling}
    (llama / "config.json").write_text(json.dumps(config))
    frequencies = load_model(llama)[0].layers[0].self_attn.rope._freqs
    factors = np.array(frequencies) / 10000.0 ** (np.arange(0, 16, 2) / 16)
    assert (factors.min(), factors.max()) == (pytest.approx(1), pytest.approx(8))

    gguf = tmp_path / "tiny.gguf"
    write_gguf(gguf, tiny_metadata(llama), tiny_tensors(llama) | {"rope_freqs.weight": factors.astype(np.float32)})
    np.testing.assert_allclose(logits(converted(gguf)), logits(llama), rtol=0, atol=1e-4)


def test_linear_scaling_is_kept(tmp_path: Path, llama: Path) -> None:
    changes = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    target = converted(make_tiny_gguf(tmp_path / "tiny.gguf", llama, changes=changes))
    config = json.loads((llama / "config.json").read_text())
    assert logits(target) != pytest.approx(logits(llama), abs=1e-2)
    (llama / "config.json").write_text(json.dumps(config | {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}))
    np.testing.assert_allclose(logits(target), logits(llama), rtol=0, atol=1e-5)


def test_mlx_lm_loads_the_directory_and_generates_the_same_text(tmp_path: Path, llama: Path) -> None:
    target = converted(make_tiny_gguf(tmp_path / "tiny.gguf", llama))
    texts = []
    for path in (llama, target):
        model, tokenizer = mlx_lm.load(str(path))[:2]
        prompt = tokenizer.apply_chat_template([{"role": "user", "content": "Hello!"}], add_generation_prompt=True)
        texts.append(mlx_lm.generate(model, tokenizer, prompt, max_tokens=12))
        assert tokenizer.eos_token_ids == {2}
    assert texts[0] == texts[1] != ""


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"general.architecture": "qwen2"}, "its architecture is qwen2; of GGUF files only those of llama"),
        ({"general.architecture": None}, "no text under general.architecture"),
        ({"llama.block_count": None}, "no whole number under llama.block_count"),
        ({"llama.block_count": 3}, "said to have 3 layers, but holds the tensors of 2"),
        ({"llama.attention.head_count": 5}, "its 5 attention heads do not fit 64 rows"),
        ({"llama.rope.dimension_count": 8}, "rotates only a part of each head"),
        ({"llama.rope.scaling.type": "yarn"}, "stretches its context by yarn"),
        ({"split.count": 3}, "one part of a split file"),
        ({"tokenizer.ggml.model": "t5"}, "its tokenizer is of the kind t5"),
        ({"tokenizer.ggml.pre": "chatglm-bpe"}, "splits words as chatglm-bpe does"),
        ({"tokenizer.ggml.tokens": ["a"] * 600}, "its tokenizer has 600 tokens, but the model knows only 512"),
        ({"tokenizer.ggml.tokens": ["a"] * 512}, "the same token twice"),
        ({"tokenizer.ggml.merges": ["a nonsense"]}, "a merge of tokens it does not have: 'a nonsense'"),
        ({"tokenizer.ggml.token_type": [1, 1]}, "not as many entries under token_type as it has tokens"),
        ({"tokenizer.ggml.token_type": None}, "no usable list under tokenizer.ggml.token_type"),
        ({"tokenizer.ggml.eos_token_id": 512}, "the token id under tokenizer.ggml.eos_token_id is out of range"),
        ({"general.alignment": 0}, "cut short or damaged"),
    ],
)
def test_what_cannot_be_converted_is_one_clear_line(
    tmp_path: Path, llama: Path, changes: dict[str, object], reason: str
) -> None:
    gguf = make_tiny_gguf(tmp_path / "tiny.gguf", llama, changes=changes)
    with pytest.raises(ModelError) as caught:
        converted(gguf)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("left_out", ["token_embd.weight", "blk.1.attn_k.weight", "output_norm.weight"])
def test_a_file_without_one_of_its_tensors_is_refused(tmp_path: Path, llama: Path, left_out: str) -> None:
    tensors = tiny_tensors(llama)
    del tensors[left_out]
    write_gguf(tmp_path / "tiny.gguf", tiny_metadata(llama), tensors)
    with pytest.raises(ModelError, match=r"token_embd.weight|Missing 1 parameters"):
        converted(tmp_path / "tiny.gguf")


def test_a_mixture_of_experts_is_refused_by_the_name_of_its_tensors(tmp_path: Path, llama: Path) -> None:
    experts = {"blk.0.ffn_gate_inp.weight": np.zeros((8, 64), np.float32)}
    write_gguf(tmp_path / "tiny.gguf", tiny_metadata(llama), tiny_tensors(llama) | experts)
    with pytest.raises(ModelError, match=r"blk\.0\.ffn_gate_inp\.weight is not one of a plain Llama model"):
        converted(tmp_path / "tiny.gguf")


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path, llama: Path) -> None:
    gguf = make_tiny_gguf(tmp_path / "tiny.gguf", llama)
    whole = gguf.read_bytes()
    for size in [0, 3, 4, 6, 23, 24, 100, 1000, 9000, len(whole) // 2, len(whole) - 64]:
        gguf.write_bytes(whole[:size])
        with pytest.raises(ModelError, match=r"not a GGUF file|cut short"):
            converted(gguf)


def test_a_damaged_header_is_refused_without_a_crash(tmp_path: Path, llama: Path) -> None:
    """Every byte of the beginning is set to 255 in turn: lengths, counts, types and names."""
    gguf = make_tiny_gguf(tmp_path / "tiny.gguf", llama)
    whole = gguf.read_bytes()
    refused = 0
    for at in range(4, 200, 3):
        gguf.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
        try:
            converted(gguf)
        except ModelError:
            refused += 1
    assert refused > 40


def test_a_tensor_of_an_unknown_kind_is_refused_by_name_of_those_known(tmp_path: Path, llama: Path) -> None:
    gguf = make_tiny_gguf(tmp_path / "tiny.gguf", llama)
    data, name = gguf.read_bytes(), b"blk.0.attn_q.weight"
    kind_at = data.index(name) + len(name) + 4 + 2 * 8
    gguf.write_bytes(data[:kind_at] + bytes([20]) + data[kind_at + 1 :])
    with pytest.raises(ModelError, match=r"tensors of kind 20; those that can be read are F32, .*Q4_K"):
        converted(gguf)
