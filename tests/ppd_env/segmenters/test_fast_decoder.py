"""The folded decoder: large batches, other types, compiled shapes, kept constants, counted operations."""

import importlib.util
import warnings
from dataclasses import replace
from functools import partial

import pytest
import tiny_sam
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode, addmm_flop

from ppd_env.errors import ConfigError
from ppd_env.segmenters.contract import ABSENT, Embedding
from ppd_env.segmenters.sam import options
from ppd_env.segmenters.sam.attention import mix_cells
from ppd_env.segmenters.sam.buckets import Buckets
from ppd_env.segmenters.sam.decoder import MaskDecoder, as_cells, as_plane
from ppd_env.segmenters.sam.flops import decode_flops, scene_bytes, scene_flops
from ppd_env.segmenters.sam.frames import Letterbox
from ppd_env.segmenters.sam.high_quality import HighQualityDecoder
from ppd_env.segmenters.sam.kept import KeptScenes, SceneTable
from ppd_env.segmenters.sam.options import DecoderOptions, split_options
from ppd_env.segmenters.sam.second import Sam2Decoder
from ppd_env.segmenters.sam.segmenter import SCALE_NAME, SamSegmenter
from ppd_env.segmenters.sam.weights import fill
from ppd_env.segmenters.two_way import Attention
from ppd_env.uris import parse_uri

SIZES = replace(tiny_sam.SIZES, vit_dim=tiny_sam.WIDTH)
CPU = torch.device("cpu")
BATCH, SCENES, WIDEST = 64, 5, 50

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("segment_anything") is None, reason="segment-anything is not installed"
)


def decoder(kind=MaskDecoder, sizes=SIZES, dtype=None):
    model = tiny_sam.randomise(kind(sizes), seed=1)
    model.requires_grad_(False)
    if dtype is not None:
        model.freeze(dtype)
    return model


def segmenter(found, **kwargs):
    return SamSegmenter(
        torch.nn.Identity(), found, Letterbox(tiny_sam.SIDE), "u", "s", CPU, DecoderOptions(**kwargs)
    )


def embedding(count=SCENES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(count, tiny_sam.DIM, SIZES.cells, SIZES.cells, generator=generator)
    sizes = torch.tensor([[64, 64], [30, 64], [64, 20], [48, 64], [64, 31]])[:count]
    return Embedding({"image": image, SCALE_NAME: torch.ones(count, 2)}, sizes)


def ragged(batch=BATCH, seed=0):
    """Rows, points and labels of sets of 1 to ``WIDEST`` points, empty slots anywhere between."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(batch, WIDEST, 2, generator=generator) * tiny_sam.SIDE
    labels = torch.randint(0, 2, (batch, WIDEST), generator=generator)
    counts = torch.randint(1, WIDEST + 1, (batch, 1), generator=generator)
    order = torch.rand(batch, WIDEST, generator=generator).argsort(dim=1)
    return torch.arange(batch) % SCENES, points, labels.masked_fill(order >= counts, ABSENT)


def library(model, images, rows, points, labels, multimask):
    """What the package's own modules give for each set alone."""
    found = []
    for row, some, signs in zip(rows.tolist(), points, labels, strict=True):
        there = signs != ABSENT
        given = some[there][None], signs[there][None].int()
        sparse, dense = model.prompt_encoder(points=given, boxes=None, masks=None)
        found.append(
            model.mask_decoder(
                image_embeddings=images[row : row + 1],
                image_pe=model.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=multimask,
            )
        )
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


@needs_package
@torch.no_grad()
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("multimask", [False, True])
def test_a_batch_of_64_is_the_librarys_own_decoder(layers, multimask):
    """Set by set on the cores, and all at once with masked slots, as a GPU decodes them."""
    sizes = replace(tiny_sam.SIZES, layers=layers)
    model = tiny_sam.official(replace(tiny_sam.TINY, decoder=sizes))
    ours = MaskDecoder(sizes)
    fill(ours, model.state_dict(), "test")
    scenes, (rows, points, labels) = embedding(), ragged()
    expected = library(model, scenes.tensors["image"], rows, points, labels, multimask)
    assert expected[0].std() > 0.1
    served = segmenter(ours)
    one_by_one = served.decode(scenes, points, labels, multimask=multimask, rows=rows)
    square = (points + 0.5) / tiny_sam.SIDE
    at_once = served._at_once(scenes, rows, square, labels, None, multimask)
    for found in (one_by_one, at_once):
        for mine, theirs in zip(found, expected, strict=True):
            # Random weights make numbers of 6 and more, whose last digits differ from CPU to CPU.
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=2e-5)


@torch.no_grad()
def test_bfloat16_hardly_moves_a_mask():
    """Measured bounds: the share of cells that change their side, and Dice between both masks."""
    scenes, (rows, points, labels) = embedding(), ragged()
    exact, rough = (
        segmenter(decoder(), dtype=dtype).decode(scenes, points, labels, rows=rows)
        for dtype in ("float32", "bfloat16")
    )
    assert rough[0].dtype == rough[1].dtype == torch.float32
    assert not torch.equal(rough[0], exact[0])
    before, after = exact[0] > 0, rough[0] > 0
    assert 0.2 < before.float().mean() < 0.8
    assert (before != after).float().mean() < 0.02
    both = (before & after).sum(dim=(1, 2, 3))
    dice = 2 * both / (before.sum(dim=(1, 2, 3)) + after.sum(dim=(1, 2, 3))).clamp(min=1)
    assert dice.median() > 0.98
    assert dice.min() > 0.9
    assert (rough[1] - exact[1]).abs().max() < 0.1 * exact[1].abs().max()


@torch.no_grad()
def test_compiled_shapes_change_nothing(monkeypatch):
    """Filled-up sets and batches give the same masks, in more shapes than torch allows, unbroken."""
    from torch._dynamo import config

    monkeypatch.setattr(config, "recompile_limit", 2, raising=False)
    found, scenes = decoder(dtype=torch.float32), embedding()
    compiled = Buckets(found, backend="eager")
    for batch in (1, 3, 5):
        rows, points, labels = ragged(batch, seed=batch)
        constants = found.constants(scenes[rows].tensors)
        for part, expected in zip(
            compiled(constants, points / 64, labels), found(constants, points / 64, labels), strict=True
        ):
            torch.testing.assert_close(part, expected, atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("kind", [MaskDecoder, HighQualityDecoder, Sam2Decoder])
@pytest.mark.parametrize("multimask", [False, True])
def test_the_count_of_operations_is_torchs(kind, multimask):
    found = decoder(kind, replace(SIZES, stability=(0.05, 0.9)), torch.float32)
    side = SIZES.cells
    dim, points = tiny_sam.DIM, torch.rand(1, 7, 2)
    parts = {
        found.image_name: torch.randn(1, dim, side, side),
        "fine": torch.randn(1, dim // 8, 4 * side, 4 * side),
        "side8": torch.randn(1, dim // 4, 2 * side, 2 * side),
        "side4": torch.randn(1, dim // 8, 4 * side, 4 * side),
    }
    with counter() as scene:
        constants = found.constants(parts)
    assert scene.get_total_flops() == scene_flops(found)
    assert sum(constants[name].nbytes for name in ("cells", "keys", "values", "queries", "ahead")) == (
        scene_bytes(found)
    )
    with counter() as counted, sdpa_kernel(SDPBackend.MATH):
        found(constants, points, torch.ones(1, 7, dtype=torch.int64), multimask)
    total = counted.get_total_flops()
    if kind is HighQualityDecoder:
        total -= refining(found, side)
    assert total == decode_flops(found, 7, multimask)


def counter():
    """Torch's own counter, which does not know products added in place."""
    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: addmm_flop.__wrapped__})


def refining(found, side):
    """SAM-HQ's correction, which the count leaves out."""
    with counter() as counted:
        finer = found.refine(torch.randn(1, tiny_sam.DIM // 8, 4 * side, 4 * side))
        found.hq_head(torch.randn(1, tiny_sam.DIM))[:, None] @ finer.flatten(2)
    return counted.get_total_flops()


def test_cells_and_planes_are_each_others_inverse():
    plane = torch.arange(2 * 3 * 16 * 16.0).view(2, 3, 16, 16)
    assert torch.equal(as_plane(as_cells(plane, 2)), plane)


def test_constants_are_computed_once_per_scene(monkeypatch):
    served, scenes = segmenter(decoder()), embedding()
    computed = []
    original = served.decoder.constants
    monkeypatch.setattr(
        served.decoder, "constants", lambda *args: computed.append(1) or original(*args), raising=False
    )
    rows, points, labels = ragged()
    first = served.decode(scenes, points, labels, rows=rows)
    assert len(computed) == SCENES
    again = served.decode(scenes, points, labels, rows=rows)
    assert len(computed) == SCENES
    assert torch.equal(first[0], again[0])
    served.decode(embedding(seed=1), points[:1], labels[:1], rows=rows[:1])
    assert len(computed) == SCENES + 1


@torch.no_grad()
def test_a_table_of_scenes_changes_nothing_and_is_built_once(monkeypatch):
    served, scenes = segmenter(decoder(dtype=torch.float32)), embedding()
    rows, points, labels = ragged()
    expected = served.decode(scenes, points, labels, rows=rows)
    monkeypatch.setattr(served, "_one_by_one", served._at_once)  # as on a GPU
    computed = []
    original = served.decoder.constants
    monkeypatch.setattr(
        served.decoder, "constants", lambda *args: computed.append(1) or original(*args), raising=False
    )
    for _ in range(2):
        for part, wanted in zip(served.decode(scenes, points, labels, rows=rows), expected, strict=True):
            torch.testing.assert_close(part, wanted, atol=1e-4, rtol=0)
        assert len(computed) == 2  # one scene to learn its size, then all
    served.decode(embedding(seed=1), points, labels, rows=rows)
    assert len(computed) == 4


def test_a_table_that_does_not_fit_is_not_built():
    table, images, rows = SceneTable(100), torch.zeros(3, 2), torch.tensor([2, 0])

    def compute(part):
        return {"x": torch.arange(3.0)[part, None].expand(-1, 10)}

    assert table.gather(images, rows, compute) is None  # 3 scenes of 40 bytes
    table.capacity = 120
    assert table.gather(images, rows, compute) is None  # as it was found before
    other = torch.zeros(3, 2)
    assert table.gather(other, rows, compute)["x"][:, 0].tolist() == [2, 0]
    del other
    assert table._kept is None  # the memory goes with the embedding


def test_a_table_whose_building_failed_is_built_the_next_time():
    table, images, rows = SceneTable(100), torch.zeros(2, 2), torch.tensor([1])
    with pytest.raises(ZeroDivisionError):
        table.gather(images, rows, lambda part: {"x": torch.zeros(1 // 0)})
    assert table.gather(images, rows, lambda part: {"x": torch.arange(2.0)[part]})["x"].tolist() == [1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 45, 65, 150])
@torch.no_grad()
def test_cells_attend_to_tokens_as_torch_has_it(dtype, tokens):
    generator = torch.Generator().manual_seed(tokens)

    def draw(count):
        return torch.randn(2, count, 48, generator=generator).to(dtype)

    attention, queries, keys, values = Attention(8, 3, 48), draw(5000), draw(tokens), draw(tokens)
    absent = torch.arange(tokens) >= torch.tensor([[tokens], [1 + tokens // 2]])
    mask = torch.zeros(2, 1, 1, tokens, dtype=dtype).masked_fill(absent[:, None, None], float("-inf"))
    close = {"atol": 1e-5 if dtype == torch.float32 else 0.03, "rtol": 0}
    for bias in (None, mask):
        heads = (part.float().unflatten(2, (3, 16)).transpose(1, 2) for part in (queries, keys, values))
        shift = None if bias is None else bias.float()
        expected = scaled_dot_product_attention(*heads, attn_mask=shift).transpose(1, 2).flatten(2)
        for way in (partial(mix_cells, attention), attention.mix):
            torch.testing.assert_close(way(queries, keys, values, bias).float(), expected, **close)
    along_cells = mix_cells(attention, queries, keys, values, None).stride(1) == 1
    assert along_cells == (tokens <= 64 or dtype == torch.bfloat16)


def test_kept_scenes_stay_within_their_memory():
    one = {"x": torch.zeros(10)}
    kept, images = KeptScenes(100), torch.zeros(9)
    scope = kept.scope(images)
    for row in range(4):
        scope.get(row, lambda: one)
    assert kept.held == 80  # the third and the fourth found no room beside scenes of their own call

    other = {"x": torch.ones(10)}
    assert kept.scope(images).get(1, lambda: other) is one
    kept.scope(images).get(7, lambda: one)  # drives out scene 0, unused for longer
    assert kept.scope(images).get(1, lambda: other) is one
    assert kept.scope(images).get(0, lambda: other) is other
    del images, scope
    kept.scope(torch.zeros(1))
    assert kept.held == 0


def test_options_come_from_the_uri(monkeypatch):
    monkeypatch.setattr(options, "cpu_has_bfloat16", lambda: True)
    uri, found = split_options(parse_uri("sam:a/b?dtype=bfloat16&keep=64&compile=1"), CPU)
    assert (uri.path, dict(uri.query)) == ("a/b", {})
    assert found == DecoderOptions("bfloat16", 64, True)
    assert split_options(parse_uri("sam:a/b"), CPU)[1] == DecoderOptions()
    for wrong in ("dtype=float16", "keep=-1", "keep=x", "compile=yes", "speed=1"):
        with pytest.raises(ConfigError, match=wrong.split("=")[0]):
            split_options(parse_uri(f"sam:a/b?{wrong}"), CPU)


def test_a_processor_without_bfloat16_decodes_in_float32(monkeypatch):
    monkeypatch.setattr(options, "cpu_has_bfloat16", lambda: False)
    with pytest.warns(UserWarning, match="no bfloat16"):
        assert split_options(parse_uri("sam:a/b?dtype=bfloat16"), CPU)[1].dtype == "float32"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert split_options(parse_uri("sam:a/b?dtype=bfloat16"), torch.device("cuda"))[1].dtype == "bfloat16"
