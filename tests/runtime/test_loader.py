"""What the loader makes of whole and of broken model directories."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.utils import load_model, quantize_model, save_model

from runtime.errors import ModelError
from runtime.mlx import device, loader
from tests.tiny import make_tiny_llama

IDS = [[5, 300, 41, 7]]

on_cpu = pytest.mark.skipif(device.name() != "cpu", reason="what the CPU needs")


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return make_tiny_llama(tmp_path / "llama")


def change_config(model: Path, **changes: object) -> None:
    config = json.loads((model / "config.json").read_text()) | changes
    config = {key: value for key, value in config.items() if value is not None}
    (model / "config.json").write_text(json.dumps(config))


def load(model: Path) -> loader.LoadedModel:
    return loader.load(model, trust_remote_code=False)


def test_a_loaded_model_states_what_the_house_must_know(llama: Path) -> None:
    loaded = load(llama)
    parameters = 2 * 512 * 64 + 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 128 * 64 + 2 * 64) + 64
    assert (loaded.context_tokens, loaded.vocab_size, loaded.dtype) == (2048, 512, "float32")
    assert loaded.weight_bytes == 4 * parameters
    assert loaded.config["model_type"] == "llama"


def test_the_vocabulary_counts_rows_that_the_tokenizer_does_not_know(tmp_path: Path) -> None:
    assert load(make_tiny_llama(tmp_path / "llama", vocab=640)).vocab_size == 640


def quantised(model: Path) -> Path:
    module, config = load_model(model)
    module, config = quantize_model(module, config, group_size=32, bits=4)
    save_model(model, module)
    (model / "config.json").write_text(json.dumps(config))
    return model


@on_cpu
def test_on_the_cpu_a_quantised_model_becomes_float32_without_further_loss(llama: Path) -> None:
    loaded = load(quantised(llama))
    kept, _ = load_model(llama)
    assert loaded.dtype == "float32"
    assert loaded.vocab_size == 512
    assert loaded.weight_bytes == load(make_tiny_llama(llama.parent / "plain")).weight_bytes
    np.testing.assert_allclose(np.array(loaded.model(mx.array(IDS))), np.array(kept(mx.array(IDS))), atol=1e-4)


@on_cpu
def test_on_the_cpu_bfloat16_scales_are_widened_before_they_are_used(llama: Path) -> None:
    """quant * scale + bias rounded to bfloat16 would be another weight."""
    module, config = load_model(llama)
    module.set_dtype(mx.bfloat16)
    module, config = quantize_model(module, config, group_size=32, bits=4)
    save_model(llama, module)
    (llama / "config.json").write_text(json.dumps(config))
    head = module.lm_head
    scales, biases = head.scales.astype(mx.float32), head.biases.astype(mx.float32)
    exact = mx.dequantize(head.weight, scales, biases, 32, 4)
    assert mx.array_equal(load(llama).model.lm_head.weight, exact)


@on_cpu
def test_on_the_cpu_half_precision_becomes_float32(llama: Path) -> None:
    module, _ = load_model(llama)
    module.set_dtype(mx.float16)
    save_model(llama, module)
    assert load(llama).dtype == "float32"


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"max_position_embeddings": 77}, 77),
        ({"max_position_embeddings": None, "n_positions": 99}, 99),
        ({"max_position_embeddings": None, "text_config": {"max_position_embeddings": 55}}, 55),
        ({"max_position_embeddings": None}, loader.UNSTATED_CONTEXT_TOKENS),
    ],
)
def test_the_context_is_what_the_configuration_calls_it(llama: Path, changes: dict[str, object], expected: int) -> None:
    change_config(llama, **changes)
    assert load(llama).context_tokens == expected


def cut_weights_short(model: Path) -> None:
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data[: len(data) // 2])


def garble_weights(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"\xff" * 1000)


def change_weights(model: Path, **changes: mx.array | None) -> None:
    weights = mx.load(str(model / "model.safetensors"))
    assert isinstance(weights, dict)
    changed = {**weights, **changes}
    mx.eval(weights)
    kept = {name: array for name, array in changed.items() if array is not None}
    mx.save_safetensors(str(model / "model.safetensors"), kept)


@pytest.mark.parametrize(
    "damage, reason",
    [
        (cut_weights_short, "exceeding the size of the file"),
        (garble_weights, "model.safetensors"),
        (lambda model: (model / "model.safetensors").unlink(), "No safetensors found"),
        (lambda model: change_weights(model, **{"model.norm.weight": None}), "Missing 1 parameters: model.norm.weight"),
        (lambda model: change_weights(model, **{"extra.weight": mx.zeros(3)}), "not in model"),
        (lambda model: change_weights(model, **{"model.norm.weight": mx.zeros(3)}), "Expected shape (64,)"),
        (lambda model: (model / "config.json").write_text("{"), "Expecting property name"),
        (lambda model: (model / "config.json").unlink(), "config.json"),
        (lambda model: change_config(model, model_type=None), "its config.json lacks 'model_type'"),
        (lambda model: change_config(model, model_type="nonsense"), "Model type nonsense not supported"),
        (lambda model: change_config(model, hidden_size=None), "hidden_size"),
        (lambda model: change_config(model, hidden_size=96), "Expected shape"),
        (lambda model: change_config(model, hidden_size="wide"), "unsupported operand"),
        (lambda model: change_config(model, num_attention_heads=0), "division"),
        (lambda model: change_config(model, rope_scaling={"rope_type": "odd"}), "Unsupported RoPE type odd"),
        (lambda model: change_config(model, model_file="evil.py"), "'evil.py'"),
    ],
)
def test_a_broken_model_is_one_clear_line(llama: Path, damage: object, reason: str) -> None:
    assert callable(damage)
    damage(llama)
    with pytest.raises(ModelError) as caught:
        load(llama)
    message = str(caught.value)
    assert message.startswith(f"{llama} cannot be loaded: ")
    assert reason in message
    assert "\n" not in message


def test_code_that_comes_with_a_model_runs_only_if_it_is_trusted(llama: Path) -> None:
    (llama / "own.py").write_text("from mlx_lm.models.llama import Model, ModelArgs\nran = True\n")
    change_config(llama, model_file="own.py")
    with pytest.raises(ModelError, match="trust_remote_code"):
        load(llama)
    assert loader.load(llama, trust_remote_code=True).vocab_size == 512


def test_architectures_are_known_by_name_without_loading(llama: Path) -> None:
    assert loader.is_supported({"model_type": "llama"})
    assert loader.is_supported({"model_type": "mistral"})
    assert not loader.is_supported({"model_type": "nonsense"})
    assert not loader.is_supported({"model_type": "cache"})
