"""PerSAM and PerSAM-F: what they ask of the segmenter, and the fit of two weights."""

import numpy as np
import pytest
import torch

from ppd_agents.methods.contract import at_native_size, see_reference, see_target
from ppd_agents.methods.persam import PerSam
from ppd_agents.methods.persam_f import PerSamF, dice_plus_focal, fit_weights
from ppd_env.features.registry import load_features
from ppd_env.prompting import as_points, persam_prompts
from ppd_env.scenes.sources import open_source
from ppd_env.segmenters.fake import FakeSegmenter

GRID = 8


class Recorder(FakeSegmenter):
    """Remembers every call of ``decode`` and its answer; each time another of three masks is best."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def decode(self, embedding, points, labels, mask=None, multimask=False, rows=None):
        logits, iou = super().decode(embedding, points, labels, mask, multimask, rows)
        if multimask:
            iou = torch.tensor([[0.9, 0.5, 0.1]]).roll(len(self.calls), dims=1)
        self.calls.append((points, labels, mask, multimask, logits, iou))
        return logits, iou


@pytest.fixture
def setting():
    segmenter, features = Recorder(), load_features("fake")
    source = open_source("shapes://train?count=2&seed=3")
    first, second = source[0], source[1]
    reference = see_reference(first.image, first.mask, segmenter, features, GRID)
    return segmenter, reference, see_target(second.image, segmenter, features, GRID)


def test_persam_refines_its_first_mask_twice_with_the_best_of_three(setting):
    segmenter, reference, target = setting
    found = PerSam(segmenter).segment(reference, target)
    points, labels = as_points(persam_prompts(reference, target), target.size)
    assert np.array_equal(found.points, points)
    assert sorted(found.labels.tolist()) == [0, 1]
    assert [multimask for _, _, _, multimask, _, _ in segmenter.calls] == [False, True, True]
    assert all(np.array_equal(call[0][0].numpy(), points) for call in segmenter.calls)
    assert all(np.array_equal(call[1][0].numpy(), labels) for call in segmenter.calls)
    first, second, third = segmenter.calls
    assert first[2] is None
    assert torch.equal(second[2][0, 0], first[4][0, 0])
    assert torch.equal(third[2][0, 0], second[4][0, second[5][0].argmax()])
    assert np.array_equal(
        found.mask, at_native_size(segmenter, third[4][0, third[5][0].argmax()], target.size)
    )


def test_persam_f_mixes_three_scales_and_refines_the_mix_twice(setting):
    segmenter, reference, target = setting
    method = PerSamF(segmenter, steps=5)
    found = method.segment(reference, target)
    assert found.labels.tolist() == [1]
    on_reference, scales, second, third = segmenter.calls
    assert all(call[3] for call in segmenter.calls)
    assert on_reference[2] is None
    mixed = (method.weights(reference)[:, None, None] * scales[4][0]).sum(0)
    assert torch.allclose(second[2][0, 0], mixed)
    assert torch.equal(third[2][0, 0], second[4][0, second[5][0].argmax()])


def test_weights_are_fitted_once_per_reference(setting):
    segmenter, reference, _ = setting
    method = PerSamF(segmenter, steps=5)
    weights = method.weights(reference)
    assert len(segmenter.calls) == 1
    assert method.weights([reference]) is weights
    assert len(segmenter.calls) == 1
    method.weights([reference, reference])
    assert len(segmenter.calls) == 3


def scales_and_truth(best, seed=0):
    """Logits of three scales of which ``best`` shows the truth and the others another object."""
    rng = np.random.default_rng(seed)
    truth = torch.from_numpy(rng.random(400) < 0.3).float()
    logits = torch.stack([4 * torch.from_numpy(rng.random(400) < 0.5).float() - 2 for _ in range(3)])
    logits[best] = 4 * truth - 2
    return logits, truth


@pytest.mark.parametrize("best", [0, 1, 2])
def test_the_fit_turns_to_the_scale_that_shows_the_object(best):
    weights = fit_weights([scales_and_truth(best)], steps=200)
    assert weights.sum().item() == pytest.approx(1, abs=1e-5)
    assert int(weights.argmax()) == best
    assert weights[best] > 0.4
    assert not weights.requires_grad


def test_the_fit_is_a_third_each_at_first_and_repeats_exactly():
    pair = scales_and_truth(1)
    assert fit_weights([pair], steps=0).tolist() == pytest.approx([1 / 3] * 3)
    fitted = fit_weights([pair], steps=20)
    with torch.no_grad():  # as callers who only measure have it
        assert torch.equal(fit_weights([pair], steps=20), fitted)


def test_the_loss_is_dice_plus_focal_loss():
    logits, truth = scales_and_truth(2)
    share = 1 / (1 + np.exp(-logits[0].double().numpy()))
    wanted = truth.numpy() > 0
    dice = 1 - (2 * share[wanted].sum() + 1) / (share.sum() + wanted.sum() + 1)
    right = np.where(wanted, share, 1 - share)
    focal = -np.where(wanted, 0.25, 0.75) * (1 - right) ** 2 * np.log(right)
    assert dice_plus_focal(logits[0], truth).item() == pytest.approx(dice + focal.mean(), abs=1e-5)


def test_a_step_is_adams_against_the_gradient_of_the_loss():
    logits, truth = scales_and_truth(2)
    free = torch.full((2,), 1 / 3, requires_grad=True)
    dice_plus_focal(torch.cat([1 - free.sum()[None], free]) @ logits, truth).backward()
    step = free.grad / (free.grad.abs() + 1e-4)
    expected = free.detach() * (1 - 1e-3 * 0.01) - 1e-3 * step
    assert fit_weights([(logits, truth)], steps=1)[1:].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_several_references_share_the_weights():
    both = [scales_and_truth(0, seed=1), scales_and_truth(2, seed=2)]
    weights = fit_weights(both, steps=100)
    assert int(weights.argmin()) == 1
