"""Loading published SAM weights: errors that say what to do, and signatures that tell models apart."""

import hashlib
import importlib.util
import json
import pickle
import shutil
import sys
import warnings
from dataclasses import replace

import pytest
import tiny_sam
import torch
from safetensors.torch import load_file, save_file

from ppd_env.errors import ConfigError
from ppd_env.segmenters.registry import LOADERS
from ppd_env.segmenters.sam import checkpoint
from ppd_env.uris import parse_uri

pytest.importorskip("transformers")
if importlib.util.find_spec("segment_anything") is None:
    pytest.skip("segment-anything is not installed", allow_module_level=True)

CPU = torch.device("cpu")


def load(uri):
    """Load without the registry, which loads once per process."""
    parsed = parse_uri(uri)
    return LOADERS[parsed.scheme](parsed, CPU)


@pytest.fixture(autouse=True)
def tiny_architecture(monkeypatch):
    monkeypatch.setitem(checkpoint.ARCHITECTURES, "tiny", tiny_sam.TINY)


@pytest.fixture(scope="module")
def state():
    return tiny_sam.official().state_dict()


@pytest.fixture
def file(tmp_path, state):
    torch.save(state, tmp_path / "tiny.pth")
    return tmp_path / "tiny.pth"


@pytest.fixture(scope="module")
def sam_folder(tmp_path_factory):
    return tiny_sam.save_sam(tmp_path_factory.mktemp("saved") / "sam")


@pytest.fixture
def folder(tmp_path, sam_folder):
    return shutil.copytree(sam_folder, tmp_path / "sam")


@pytest.mark.parametrize(
    "uri", ["checkpoint:vit_t:/a.pth", "checkpoint:", "checkpoint:vit_b", "checkpoint:/a.pth"]
)
def test_checkpoints_name_their_architecture(uri):
    with pytest.raises(
        ConfigError, match=r"checkpoint:NAME:/path\.pth, where NAME is one of vit_b, vit_l, vit_h"
    ):
        load(uri)


def test_unknown_keys_are_errors(file):
    with pytest.raises(ConfigError, match="unknown key 'half'"):
        load(f"checkpoint:tiny:{file}?half=1")


def test_a_missing_checkpoint_says_what_to_download(tmp_path):
    with pytest.raises(
        ConfigError, match=r"no file .*gone\.pth; download it from https.*sam_vit_l_0b3195\.pth"
    ):
        load(f"checkpoint:vit_l:{tmp_path / 'gone.pth'}")


def test_a_missing_package_says_what_to_install(file, monkeypatch):
    monkeypatch.delitem(sys.modules, checkpoint._MODULE, raising=False)
    monkeypatch.setattr(checkpoint.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install segment-anything"):
        load(f"checkpoint:tiny:{file}")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.6, 0.999])
def test_truncated_checkpoints_are_refused(file, share):
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ConfigError, match=r"tiny\.pth: not a readable checkpoint, or a truncated one"):
        load(f"checkpoint:tiny:{file}")


class Malicious:
    """Runs code where a file is unpickled without care."""

    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


@pytest.mark.parametrize("save", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing, 2))])
def test_checkpoints_are_never_unpickled(file, state, save):
    save({**state, "more": Malicious()}, file)
    with pytest.raises(ConfigError, match="not a readable checkpoint"):
        load(f"checkpoint:tiny:{file}")


def test_anything_but_a_state_dict_is_refused(file, state):
    torch.save({"model": dict(state), "epoch": 3}, file)
    with pytest.raises(ConfigError, match="no plain state dict"):
        load(f"checkpoint:tiny:{file}")


def test_weights_of_another_architecture_are_named(file, monkeypatch):
    other = replace(tiny_sam.TINY, width=tiny_sam.WIDTH * 2)
    monkeypatch.setitem(checkpoint.ARCHITECTURES, "wide", other)
    with pytest.raises(ConfigError, match=r"not the weights of wide: 'image_encoder.*it looks like tiny"):
        load(f"checkpoint:wide:{file}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "image_encoder.blocks.1.attn.qkv.bias",
            r"not the weights of tiny: 'image_encoder\.blocks\.1\.attn\.qkv\.bias'",
        ),
        ("mask_decoder.iou_token.weight", r"'output_tokens' has the shape \(4, 32\) instead of \(5, 32\)"),
        ("prompt_encoder.no_mask_embed.weight", "'prompts.no_mask' is missing"),
    ],
)
def test_missing_parameters_are_named(file, state, name, message):
    torch.save({key: value for key, value in state.items() if key != name}, file)
    with pytest.raises(ConfigError, match=message):
        load(f"checkpoint:tiny:{file}")


def test_unknown_and_misshapen_decoder_parameters_are_named(file, state):
    torch.save({**state, "mask_decoder.extra.weight": torch.zeros(2)}, file)
    with pytest.raises(ConfigError, match=r"'mask_decoder\.extra\.weight' is unknown"):
        load(f"checkpoint:tiny:{file}")
    torch.save({**state, "mask_decoder.output_upscaling.0.bias": torch.zeros(3)}, file)
    with pytest.raises(ConfigError, match=r"'up1\.bias' has the shape \(3,\) instead of \(8,\)"):
        load(f"checkpoint:tiny:{file}")


def test_a_file_other_than_the_published_one_is_a_warning(file, monkeypatch):
    published = replace(tiny_sam.TINY, file="sam_tiny.pth", sha256="0" * 64)
    monkeypatch.setitem(checkpoint.ARCHITECTURES, "tiny", published)
    with pytest.warns(UserWarning, match=r"is not the file Meta published as sam_tiny\.pth"):
        load(f"checkpoint:tiny:{file}")
    right = replace(published, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    monkeypatch.setitem(checkpoint.ARCHITECTURES, "tiny", right)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(f"checkpoint:tiny:{file}")


def test_published_architectures_are_those_of_the_package():
    """Counted without memory for the parameters, against the sizes given for the published encoders."""
    modeling = checkpoint.official_modeling(parse_uri("checkpoint:vit_b:none"))
    for name, millions in (("vit_b", 89.67), ("vit_l", 308.28), ("vit_h", 637.03)):
        encoder = checkpoint._encoder(modeling, checkpoint.ARCHITECTURES[name])
        count = sum(parameter.numel() for parameter in encoder.parameters())
        assert count / 1e6 == pytest.approx(millions, abs=0.01), name


def test_half_precision_files_compute_in_float32(file, state):
    torch.save({name: tensor.half() for name, tensor in state.items()}, file)
    segmenter = load(f"checkpoint:tiny:{file}")
    parameters = [*segmenter.encoder.parameters(), *segmenter.decoder.parameters()]
    assert {parameter.dtype for parameter in parameters} == {torch.float32}


def test_signatures_follow_the_weights_and_not_the_place(file, tmp_path, folder, state):
    first = load(f"checkpoint:tiny:{file}").signature
    copied = shutil.copy(file, tmp_path / "copy.pth")
    assert load(f"checkpoint:tiny:{copied}").signature == first
    nudged = {name: tensor.clone() for name, tensor in state.items()}
    nudged["mask_decoder.iou_token.weight"][0, 0] += 1e-3
    torch.save(nudged, copied)
    assert load(f"checkpoint:tiny:{copied}").signature != first
    second = load(f"sam:{folder}").signature
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert load(f"sam:{moved}").signature == second
    tensors = load_file(moved / "model.safetensors")
    tensors["mask_decoder.iou_token.weight"][0, 0] += 1e-3
    save_file(tensors, moved / "model.safetensors", {"format": "pt"})
    assert load(f"sam:{moved}").signature not in (first, second)
    moved = shutil.copytree(folder, tmp_path / "other")
    config = json.loads((moved / "config.json").read_text())
    config["mask_decoder_config"]["num_attention_heads"] = 4
    (moved / "config.json").write_text(json.dumps(config))
    assert load(f"sam:{moved}").signature not in (first, second)


def test_safetensors_come_first_and_pickles_give_tensors_only(folder, state):
    before = load(f"sam:{folder}").signature
    evil = {"mask_decoder.iou_token.weight": Malicious()}
    torch.save(evil, folder / "pytorch_model.bin")
    assert load(f"sam:{folder}").signature == before
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="cannot be used"):
        load(f"sam:{folder}")
    torch.save(tiny_sam.to_transformers(state), folder / "pytorch_model.bin")
    assert load(f"sam:{folder}").signature == before


def test_folders_of_another_model_are_refused(folder):
    with pytest.raises(ConfigError, match=r"type 'sam', but 'sam2' takes 'sam2' or 'sam2_video'"):
        load(f"sam2:{folder}")


def test_truncated_safetensors_are_refused(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ConfigError, match="download them again"):
        load(f"sam:{folder}")


def test_image_and_points_must_be_encoded_alike(tmp_path):
    import transformers

    folder = tiny_sam.save_sam2(tmp_path)
    model = transformers.Sam2Model.from_pretrained(folder)
    model.shared_image_embedding.positional_embedding.data.mul_(2)
    model.save_pretrained(folder)
    with pytest.raises(ConfigError, match="encodes image and points alike"):
        load(f"sam2:{folder}")
