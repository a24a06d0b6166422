"""Decoding ragged prompt sets."""

from types import SimpleNamespace

import pytest
import torch

from ppd_env.metrics import batch_dice, dice
from ppd_env.simulator import EMPTY_LOGIT, Simulator, batch_for


def counted(simulator, max_batch=64):
    """A simulator like the given one that notes the size of each decode."""
    sizes = []

    class Counting:
        low_res = simulator.segmenter.low_res

        def decode(self, embedding, points, labels, **kwargs):
            sizes.append(tuple(points.shape[:2]))
            return simulator.segmenter.decode(embedding, points, labels, **kwargs)

    return Simulator(simulator.bank, Counting(), max_batch), sizes


def random_status(simulator, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    density = torch.rand(count, 1, generator=generator)
    active = torch.rand(count, simulator.nodes, generator=generator) < density
    return torch.where(active, torch.randint(1, 3, active.shape, generator=generator), 0).to(torch.int8)


@pytest.mark.parametrize(("gib", "sets"), [(8, 64), (24, 96), (80, 256)])
def test_batches_grow_with_the_memory_of_a_gpu(monkeypatch, gib, sets):
    about = SimpleNamespace(total_memory=gib * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: about)
    assert batch_for(torch.device("cuda")) == sets
    assert batch_for(torch.device("cpu")) == 64


def test_a_batch_is_what_its_games_are_alone(tiny_simulator):
    status = random_status(tiny_simulator, 17)
    rows = torch.arange(17) % 4
    together = tiny_simulator.segment(rows, status)
    for game in range(17):
        one = torch.tensor([game])
        alone = tiny_simulator.segment(rows[one], status[one])
        assert torch.equal(alone.logits[0], together.logits[game])
        assert alone.dice[0] == together.dice[game]
        assert alone.predicted_iou[0] == together.predicted_iou[game]


def test_cores_share_a_batch_without_changing_it(tiny_simulator, two_threads):
    """Chunks are even, hold at most what is asked for, and give what one chunk after another gives."""
    simulator, sizes = counted(tiny_simulator, max_batch=20)
    rows, status = torch.arange(90) % 4, random_status(tiny_simulator, 90)
    status[:, 0] = 1  # none is empty
    one_by_one = simulator.segment(rows, status)
    sizes.clear()
    simulator._parallel = True
    shared = simulator.segment(rows, status)
    assert sorted(size for size, _ in sizes) == [15] * 6
    assert torch.equal(shared.logits, one_by_one.logits)
    assert torch.equal(shared.predicted_iou, one_by_one.predicted_iou)
    simulator.max_batch = 1
    assert torch.equal(simulator.segment(rows[:33], status[:33]).logits, one_by_one.logits[:33])


def test_only_a_segmenter_that_allows_it_is_called_from_several_threads(tiny_simulator):
    class Reentrant:
        low_res = tiny_simulator.segmenter.low_res
        reentrant = True

    assert Simulator(tiny_simulator.bank, Reentrant())._parallel
    assert not counted(tiny_simulator)[0]._parallel


def test_prompts_are_passed_on_with_their_points_and_signs(tiny_simulator):
    status = torch.zeros(1, tiny_simulator.nodes, dtype=torch.int8)
    status[0, 3], status[0, 10] = 2, 1
    points, labels = tiny_simulator._prompts(torch.tensor([2]), status, 3)
    assert labels.tolist() == [[0, 1, -1]]
    assert torch.equal(points[0, :2], tiny_simulator.bank.points[2, [3, 10]])


def test_games_without_prompts_are_not_decoded(tiny_simulator):
    simulator, sizes = counted(tiny_simulator)
    status = torch.zeros(2, simulator.nodes, dtype=torch.int8)
    status[1, 5] = 1
    out = simulator.segment(torch.tensor([0, 0]), status)
    assert sizes == [(1, 1)]
    assert out.dice[0] == 0
    assert out.predicted_iou[0] == 0
    assert (out.logits[0] == EMPTY_LOGIT).all()


def test_nothing_at_all_is_decoded_where_no_game_has_prompts(tiny_simulator):
    simulator, sizes = counted(tiny_simulator)
    out = simulator.segment(torch.arange(2), torch.zeros(2, simulator.nodes, dtype=torch.int8))
    assert sizes == []
    assert out.dice.tolist() == [0, 0]


def test_equal_sets_are_decoded_once(tiny_simulator):
    simulator, sizes = counted(tiny_simulator)
    status = random_status(simulator, 1).expand(6, -1)
    out = simulator.segment(torch.tensor([0, 0, 1, 1, 0, 1]), status)
    assert [count for count, _ in sizes] == [2]
    assert torch.equal(out.logits[0], out.logits[4])
    assert torch.equal(out.logits[2], out.logits[5])
    assert not torch.equal(out.logits[0], out.logits[2])


def test_chunks_hold_sets_of_like_size(tiny_simulator):
    simulator, sizes = counted(tiny_simulator, max_batch=2)
    status = torch.zeros(4, simulator.nodes, dtype=torch.int8)
    for game, count in enumerate((1, 20, 2, 21)):
        status[game, :count] = 1
    simulator.segment(torch.zeros(4, dtype=torch.int64), status)
    assert sizes == [(2, 2), (2, 21)]


def test_dice_is_that_of_the_low_resolution_mask(tiny_simulator):
    bank, status = tiny_simulator.bank, random_status(tiny_simulator, 4)
    rows = torch.arange(4)
    out = tiny_simulator.segment(rows, status)
    for game in range(4):
        valid = bank.valid[game].numpy()
        expected = dice((out.logits[game] > 0).numpy()[valid], bank.target[game].numpy()[valid])
        assert abs(expected - float(out.dice[game])) < 1e-6


def test_results_can_be_training_targets(tiny_simulator):
    out = tiny_simulator.segment(torch.tensor([0]), random_status(tiny_simulator, 1))
    weight = torch.ones(1, requires_grad=True)
    ((weight * out.dice - out.predicted_iou) ** 2).sum().backward()
    assert weight.grad is not None


def test_native_masks_have_the_size_and_place_of_the_image(tiny_simulator):
    bank = tiny_simulator.bank
    status = torch.where(bank.truth, 1, 2).to(torch.int8)
    masks = tiny_simulator.native_masks(torch.arange(4), status)
    for row, mask in enumerate(masks):
        truth = bank.raw(row).mask
        assert mask.shape == truth.shape
        assert dice(mask, truth) > 0.85


def test_feedback_is_the_share_of_each_patch(tiny_simulator):
    bank, side = tiny_simulator.bank, tiny_simulator.segmenter.low_res
    rows = torch.arange(4)
    everything = tiny_simulator.feedback(rows, torch.ones(4, side, side))
    assert torch.equal(everything, torch.ones(4, tiny_simulator.nodes))
    shares = tiny_simulator.feedback(rows, bank.target.float() - 0.5)
    # A patch is fully claimed only if its centre lies in the object, and not at all only if it does not.
    assert bank.truth[shares == 1].all()
    assert not bank.truth[shares == 0].any()
    assert (shares.view(4, 6, 6)[:, 0] == 0).all()


def test_the_ideal_mask_has_dice_one(tiny_simulator):
    bank = tiny_simulator.bank
    assert torch.equal(batch_dice(bank.target, bank.target, bank.valid), torch.ones(4))


def test_dice_at_native_size_is_that_of_the_native_masks(tiny_simulator):
    bank, rows = tiny_simulator.bank, torch.arange(4)
    status = random_status(tiny_simulator, 4)
    native = Simulator(bank, tiny_simulator.segmenter, resolution="native")
    found = native.segment(rows, status).dice
    masks = tiny_simulator.native_masks(rows, status)
    expected = [dice(mask, bank.raw(row).mask) for row, mask in enumerate(masks)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32))
    assert not torch.equal(found, tiny_simulator.segment(rows, status).dice)
