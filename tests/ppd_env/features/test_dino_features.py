"""DINOv2 and DINOv3 features: those of the library itself, and errors that say what to do."""

import functools
import http.server
import json
import pickle
import sys
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from ppd_env.errors import ConfigError
from ppd_env.features.contract import FeatureExtractor
from ppd_env.features.dino import load_dino
from ppd_env.uris import parse_uri

transformers = pytest.importorskip("transformers")

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56}
CONFIGS = {
    "dinov2": lambda **changes: transformers.Dinov2Config(**{**SMALL, "mlp_ratio": 2, **changes}),
    "registers": lambda **changes: transformers.Dinov2WithRegistersConfig(
        **{**SMALL, "mlp_ratio": 2, "num_register_tokens": 4, "patch_size": 14, **changes}
    ),
    "swiglu": lambda **changes: transformers.Dinov2Config(
        **{**SMALL, "mlp_ratio": 4, "use_swiglu_ffn": True, **changes}
    ),
    "dinov3": lambda **changes: transformers.DINOv3ViTConfig(
        **{**SMALL, "intermediate_size": 48, "num_register_tokens": 4, **changes}
    ),
}
CLASSES = {
    "dinov2": "Dinov2Model",
    "registers": "Dinov2WithRegistersModel",
    "swiglu": "Dinov2Model",
    "dinov3": "DINOv3ViTModel",
}


def make(kind, seed=0, **changes):
    """A model with seeded random weights, the gates of its layers and its positions included."""
    model = getattr(transformers, CLASSES[kind])(CONFIGS[kind](**changes)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def save(kind, folder, **changes):
    make(kind, **changes).save_pretrained(folder)
    return folder


def load(folder, scheme="dinov2"):
    return load_dino(parse_uri(f"{scheme}:{folder}"), torch.device("cpu"))


def scheme_of(kind):
    return "dinov3" if kind == "dinov3" else "dinov2"


def directly(model, image, side, resample):
    """Patch tokens of the library's own class, image stretched to (side, side)."""
    stretched = np.asarray(Image.fromarray(image).resize((side, side), resample))
    pixels = torch.from_numpy((stretched / 255 - MEAN) / STD).permute(2, 0, 1)[None].float()
    extra = 1 + getattr(model.config, "num_register_tokens", 0)
    with torch.no_grad():
        return model(pixels).last_hidden_state[0, extra:]


@pytest.fixture(scope="module")
def image():
    return data.chelsea()[:180, :97].copy()


@pytest.mark.parametrize("kind", sorted(CONFIGS))
@pytest.mark.parametrize("grid", [4, 7])
def test_features_are_the_librarys_patch_tokens_over_one_scale(tmp_path, image, kind, grid):
    features = load(save(kind, tmp_path), scheme_of(kind))
    model = make(kind)
    patch, resample = (16, Image.Resampling.BILINEAR) if kind == "dinov3" else (14, Image.Resampling.BICUBIC)
    scale = torch.pdist(directly(model, data.astronaut(), 16 * patch, resample)).mean()
    expected = directly(model, image, grid * patch, resample) / scale
    found = features.extract(image, grid)
    assert found.shape == (grid * grid, features.dim) == (grid * grid, 24)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert isinstance(features, FeatureExtractor)


def test_the_paper_has_560_pixels_for_40_patches_per_side(tmp_path, image, monkeypatch):
    features = load(save("dinov2", tmp_path))
    seen = []
    forward = features._model.forward

    def watched(pixel_values):
        seen.append(tuple(pixel_values.shape))
        return forward(pixel_values=pixel_values)

    monkeypatch.setattr(features._model, "forward", watched)
    assert features.extract(image, 40).shape == (1600, 24)
    assert seen == [(1, 3, 560, 560)]


def test_the_grid_covers_the_whole_of_any_image(tmp_path):
    # With one layer that adds nothing, a token is its own patch and position.
    folder = save("dinov2", tmp_path, num_hidden_layers=0)
    features = load(folder)
    assert features.extract(np.zeros((1, 5, 3), np.uint8), 4).isfinite().all()
    for height, width in ((37, 211), (300, 20)):
        plain = features.extract(np.zeros((height, width, 3), np.uint8), 4)
        corner = np.zeros((height, width, 3), np.uint8)
        corner[-1:, -max(1, width // 8) :] = 255
        changed = (features.extract(corner, 4) - plain).norm(dim=1)
        assert changed.argmax() == 15


def test_features_of_an_image_need_not_be_contiguous(tmp_path, image):
    features = load(save("dinov2", tmp_path))
    assert torch.equal(features.extract(image[:, ::-1], 4), features.extract(image[:, ::-1].copy(), 4))


def test_random_patches_lie_about_one_apart(tmp_path):
    for number, gain in enumerate((0.05, 5.0)):
        model = make("dinov2")
        with torch.no_grad():
            model.layernorm.weight.mul_(gain)
        model.save_pretrained(tmp_path / str(number))
        features = load(tmp_path / str(number))
        assert 0.5 < torch.pdist(features.extract(data.coffee(), 16)).mean() < 2


def test_the_signature_is_of_weights_architecture_and_preprocessing_not_of_the_place(tmp_path):
    first = load(save("dinov2", tmp_path / "a")).signature
    assert load(save("dinov2", tmp_path / "b")).signature == first
    others = [
        load(save("dinov2", tmp_path / "c", seed=1)).signature,
        load(save("dinov2", tmp_path / "d", layer_norm_eps=1e-3)).signature,
        load(save("dinov2", tmp_path / "e", num_attention_heads=3)).signature,
    ]
    (tmp_path / "b" / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.4, 0.4, 0.3]}))
    others.append(load(tmp_path / "b").signature)
    assert len({first, *others}) == 5


def test_normalisation_beside_the_weights_is_used(tmp_path, image):
    folder = save("dinov3", tmp_path)
    usual = load(folder, "dinov3").extract(image, 4)
    given = {"image_mean": [0.43, 0.411, 0.296], "image_std": [0.213, 0.156, 0.143]}
    (folder / "preprocessor_config.json").write_text(json.dumps(given))
    assert not torch.allclose(load(folder, "dinov3").extract(image, 4), usual, atol=1e-3)
    (folder / "preprocessor_config.json").write_text('{"image_std": [0, 1, 1]}')
    with pytest.raises(ConfigError, match=r"preprocessor_config.json cannot be used"):
        load(folder, "dinov3")


def test_weights_in_torchs_own_format_are_taken_without_unpickling(tmp_path, image):
    folder = save("dinov2", tmp_path)
    safe = load(folder)
    torch.save(make("dinov2").state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert load(folder).signature == safe.signature
    assert torch.equal(load(folder).extract(image, 4), safe.extract(image, 4))
    touched = tmp_path / "touched"

    class Evil:
        def __reduce__(self):
            return open, (str(touched), "w")

    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ConfigError, match="download them again"):
        load(folder)
    torch.save({"evil": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="download them again"):
        load(folder)
    assert not touched.exists()


def test_safetensors_come_first(tmp_path, image):
    folder = save("dinov2", tmp_path)
    (folder / "pytorch_model.bin").write_bytes(b"never looked at")
    load(folder)


def spoil_nothing_there(folder):
    (folder / "config.json").unlink()


def spoil_no_weights(folder):
    (folder / "model.safetensors").unlink()


def spoil_truncated(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-200])


def spoil_a_weight_is_lost(folder):
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    del state["layernorm.weight"]
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def spoil_other_shapes(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 48}))


def spoil_other_model(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "sam"}))


def spoil_torn_config(folder):
    (folder / "config.json").write_text('{"model_type": ')


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_nothing_there, "holds no config.json"),
        (spoil_no_weights, "holds no model.safetensors"),
        (spoil_truncated, "cannot be used .*download them again"),
        (spoil_a_weight_is_lost, "not of this architecture: 'layernorm.weight' is missing"),
        (spoil_other_shapes, "cannot be used"),
        (spoil_other_model, "of type 'sam', but 'dinov2' takes 'dinov2' or 'dinov2_with_registers'"),
        (spoil_torn_config, "config.json cannot be read"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(tmp_path, spoil, says):
    folder = save("dinov2", tmp_path)
    spoil(folder)
    with pytest.raises(ConfigError, match=says) as error:
        load(folder)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("dinov2:", "name a model on the hub, as in dinov2:OWNER/NAME, or a folder"),
        ("dinov2:/no/such/folder", "/no/such/folder is not a folder"),
        ("dinov2:base", "is not a folder; name one .* or a model on the hub as OWNER/NAME"),
        ("dinov2:facebook/dinov2-base?size=560", "unknown key 'size'"),
    ],
)
def test_wrong_uris_are_explained(uri, says):
    with pytest.raises(ConfigError, match=says):
        load_dino(parse_uri(uri), torch.device("cpu"))


def test_without_transformers_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"pip install transformers.*point-prompt-defender\[sam\]"):
        load(tmp_path)


class Hub(http.server.BaseHTTPRequestHandler):
    """Enough of the hub to serve one open folder, a gated model and none other."""

    folder = None

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def log_message(self, *_):
        pass

    def answer(self):
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/meta/") and "/tree/" in path:
            files = [
                {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": f.name}
                for f in self.folder.iterdir()
            ]
            return self.send(200, json.dumps(files).encode(), {"Content-Type": "application/json"})
        if path.startswith("/api/models/meta/"):
            files = [{"rfilename": entry.name} for entry in self.folder.iterdir()]
            return self.send(200, json.dumps({"id": "meta/x", "sha": "a" * 40, "siblings": files}).encode())
        if path.startswith("/meta/gated/resolve/"):
            return self.send(
                403, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."}
            )
        if path.startswith("/meta/open/resolve/"):
            content = (self.folder / path.rpartition("/")[2]).read_bytes()
            return self.send(200, content, {"X-Repo-Commit": "a" * 40, "ETag": f'"{len(content)}"'})
        return self.send(
            404, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
        )

    def send(self, code, content, headers=None):
        self.send_response(code)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on this machine that the library asks instead of the public one; its folder."""
    import huggingface_hub

    folder = save("dinov2", tmp_path / "served")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("OwnHub", (Hub,), {"folder": folder}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    own = {
        "endpoint": f"http://127.0.0.1:{server.server_port}",
        "cache_dir": tmp_path / "hub",
        "token": False,
    }
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", functools.partial(huggingface_hub.snapshot_download, **own)
    )
    yield server
    server.shutdown()


def test_a_model_on_the_hub_is_downloaded_once(tmp_path, hub, image):
    found = load_dino(parse_uri("dinov2:meta/open"), torch.device("cpu"))
    assert torch.equal(found.extract(image, 4), load(tmp_path / "served").extract(image, 4))
    hub.shutdown()
    hub.server_close()
    assert load_dino(parse_uri("dinov2:meta/open"), torch.device("cpu")).signature == found.signature


def test_gated_weights_say_where_to_ask_and_how_to_log_in(hub):
    with pytest.raises(ConfigError) as error:
        load_dino(parse_uri("dinov3:meta/gated"), torch.device("cpu"))
    for part in (
        "https://huggingface.co/meta/gated",
        "hf auth login",
        "HF_TOKEN",
        "config.json and model.safetensors",
        "dinov3:/path",
    ):
        assert part in str(error.value)


def test_a_model_the_hub_does_not_have(hub):
    with pytest.raises(ConfigError, match=r"the hub has no model 'nobody/nothing'"):
        load_dino(parse_uri("dinov2:nobody/nothing"), torch.device("cpu"))


def test_without_a_network_the_error_says_how_to_bring_the_weights(hub):
    hub.shutdown()
    hub.server_close()
    with pytest.raises(ConfigError, match=r"cannot be downloaded .*hf download meta/open --local-dir FOLDER"):
        load_dino(parse_uri("dinov2:meta/open"), torch.device("cpu"))
