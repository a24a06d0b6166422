"""Methods that segment from a reference: what all have in common, and the prompts of each."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ppd_agents.defender import Defender
from ppd_agents.dqn.agent import Agent, save_agent
from ppd_agents.dqn.potentials import GraphStatistics
from ppd_agents.dqn.q_network import GraphQNetwork, QNetworkConfig
from ppd_agents.methods import registry
from ppd_agents.methods.contract import (
    OneShotMethod,
    OneShotResult,
    SeenReference,
    bank_reference,
    bank_target,
    decode,
    see_reference,
    see_target,
)
from ppd_agents.methods.predecessor import FEWEST, MOST, climb, walk
from ppd_agents.methods.registry import METHODS, open_method
from ppd_agents.refining import segment
from ppd_env.errors import ConfigError, PPDError
from ppd_env.features.registry import load_features
from ppd_env.game.actions import NEGATIVE, POSITIVE
from ppd_env.metrics import dice
from ppd_env.prompting import as_points, feature_matching
from ppd_env.scenes.bank import open_bank
from ppd_env.scenes.patches import patch_centres
from ppd_env.scenes.sources import open_source
from ppd_env.segmenters.registry import load_segmenter

GRID = 8
NAMES = sorted({*METHODS} - {"ours"})


def untrained(role="defender", features="fake", **options):
    network = GraphQNetwork(QNetworkConfig(role=role, hidden=8, **options), torch.Generator().manual_seed(0))
    return Agent(network.eval(), features, load_features(features).signature, GRID, 1.0)


@pytest.fixture(scope="module")
def models():
    return load_segmenter("fake"), load_features("fake")


@pytest.fixture(scope="module")
def scenes():
    source = open_source("shapes://train?count=4&seed=3")
    return [source[index] for index in range(4)]


@pytest.fixture(scope="module")
def seen(models, scenes):
    """Two references and a target of another size."""
    references = [see_reference(one.image, one.mask, *models, GRID) for one in scenes[:2]]
    return references, see_target(scenes[2].image[20:, :100], *models, GRID)


@pytest.mark.parametrize("name", [*NAMES, "ppo?policy=random"])
def test_every_method_gives_a_native_mask_and_the_prompts_behind_it(name, models, seen):
    references, target = seen
    method = open_method("persam_f?steps=3" if name == "persam_f" else name, *models)
    assert isinstance(method, OneShotMethod)
    for reference in (references[0], references):
        found = method.segment(reference, target, np.random.default_rng(5))
        assert found.mask.shape == target.size
        assert found.mask.dtype == np.bool_
        assert found.points.dtype == np.float32
        assert found.points.shape == (len(found.labels), 2)
        assert set(found.labels.tolist()) <= {0, 1}
        assert (found.points >= 0).all()
        assert (found.points < target.size[::-1]).all()
        again = method.segment(reference, target, np.random.default_rng(5))
        assert np.array_equal(again.mask, found.mask)
        assert np.array_equal(again.points, found.points)


@pytest.mark.parametrize("name", ["matching", "gbmseg", "ppo"])
def test_methods_that_decode_once_return_the_mask_of_their_prompts(name, models, scenes):
    reference = see_reference(scenes[0].image, scenes[0].mask, *models, GRID)
    target = see_target(scenes[1].image, *models, GRID)
    found = open_method(name, *models).segment(reference, target)
    assert np.array_equal(found.mask, segment(models[0], scenes[1].image, found.points, found.labels))


def test_matching_finds_the_object_of_the_reference_itself(models, scenes):
    for one in scenes:
        reference = see_reference(one.image, one.mask, *models, 16)
        found = open_method("matching", *models).segment(reference, see_target(one.image, *models, 16))
        assert dice(found.mask, one.mask) > 0.6


@pytest.mark.parametrize("name", ["gbmseg", "matcher", "matching", "ours", "persam", "ppo"])
def test_mini_finds_the_object_of_the_reference_itself(name):
    models = load_segmenter("mini"), load_features("mini")
    source = open_source("shapes://test?count=2&seed=0")
    method = open_method(name, *models)
    for one in (source[0], source[1]):
        reference = see_reference(one.image, one.mask, *models, 16)
        found = method.segment(reference, see_target(one.image, *models, 16), np.random.default_rng(0))
        assert dice(found.mask, one.mask) > 0.6


def test_ours_with_mini_is_the_defender_that_ships():
    models = load_segmenter("mini"), load_features("mini")
    source = open_source("shapes://test?count=2&seed=0")
    reference = see_reference(source[0].image, source[0].mask, *models, 16)
    target = see_target(source[1].image, *models, 16)
    found = open_method("ours", *models).segment(reference, target)
    points, labels = as_points(feature_matching(reference, target), target.size)
    expected = Defender.load("mini", matched=True).refine(source[1].image, points, labels)
    assert np.array_equal(found.points, expected.points)
    assert np.array_equal(found.labels, expected.labels)


def test_banks_give_the_same_references_and_targets(models, scenes):
    bank = open_bank("shapes://train?count=4&seed=3", "fake", "fake", GRID)
    method = open_method("matching", *models)
    seen = see_reference(scenes[1].image, scenes[1].mask, *models, GRID)
    fresh = method.segment(seen, see_target(scenes[2].image, *models, GRID))
    kept = method.segment(bank_reference(bank, 1), bank_target(bank, 2))
    assert np.array_equal(fresh.mask, kept.mask)
    assert np.array_equal(fresh.points, kept.points)
    assert bank_target(bank, 2).mask is None


def test_patches_of_unknown_pixels_do_not_vote(models, scenes, monkeypatch):
    bank = open_bank("shapes://train?count=4&seed=3", "fake", "fake", GRID)
    void = np.zeros(scenes[1].mask.shape, bool)
    void[:, : void.shape[1] // 2] = True
    monkeypatch.setattr(
        type(bank), "raw", lambda self, row: replace(scenes[row], void=void & ~scenes[row].mask)
    )
    known = see_reference(scenes[1].image, scenes[1].mask, *models, GRID).votes
    foreground, background = bank_reference(bank, 1).votes
    assert np.array_equal(foreground, known[0])
    assert 0 < background.sum() < known[1].sum()
    assert not (background & ~known[1]).any()


def test_an_image_whose_features_are_the_segmenters_is_embedded_once(scenes, monkeypatch):
    segmenter = load_segmenter("mini")
    features = load_features("segmenter:mini")
    seen, embed = [], type(segmenter).embed
    monkeypatch.setattr(type(segmenter), "embed", lambda self, image: seen.append(1) or embed(self, image))
    target = see_target(scenes[0].image, segmenter, features, GRID)
    assert len(seen) == 1
    torch.testing.assert_close(target.features, features.extract(scenes[0].image, GRID))


def test_without_prompts_the_mask_is_empty(models, seen):
    _, target = seen
    logits, iou = decode(models[0], target.embedding, np.zeros((0, 2), np.float32), np.zeros(0, np.int64))
    assert logits.shape == (1, 32, 32)
    assert (logits < 0).all()
    assert iou.tolist() == [0.0]


def test_a_reference_mask_of_another_size_is_refused(models, scenes):
    with pytest.raises(ConfigError, match="does not fit its image"):
        see_reference(scenes[0].image, scenes[0].mask[:-1], *models, GRID)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("sam", "known ones: gbmseg, matcher, matching, ours, persam, persam_f, ppo"),
        ("matching:mini", "Unknown one-shot method"),
        ("matching?grid=3", "nothing after its name"),
        ("persam_f?epochs=3", "unknown key 'epochs'"),
        ("persam_f?steps=-1", "0 or more"),
        ("ppo?policy=best", "known ones: greedy, random"),
        ("ppo?policy=greedy&agent=mini", "not both"),
        ("ours?agent=nobody", "There is no defender 'nobody'"),
        ("ours", "trained on the features 'mini'"),
    ],
)
def test_what_cannot_be_opened_is_an_error(uri, words, models):
    with pytest.raises(PPDError, match=words):
        open_method(uri, *models)


def test_methods_that_draw_need_a_generator(models, seen):
    references, target = seen
    for name in ("matcher", "ppo?policy=random"):
        with pytest.raises(ConfigError, match="default_rng"):
            open_method(name, *models).segment(references, target)


def test_a_method_of_ones_own(models, seen, monkeypatch):
    class Everything:
        uri = "everything"

        def segment(self, reference, target, rng=None):
            return OneShotResult(np.ones(target.size, bool), np.zeros((0, 2), np.float32), np.zeros(0, int))

    monkeypatch.setitem(registry.METHODS, "everything", lambda uri, segmenter, features: Everything())
    references, target = seen
    found = open_method("everything", *models).segment(references, target)
    assert found.mask.all()
    assert found.mask.shape == target.size


@pytest.mark.parametrize("options", [{}, {"use_feedback": True}])
def test_ours_is_the_defender_on_matched_prompts(options, models, scenes, tmp_path):
    agent = untrained(**options)
    save_agent(agent, tmp_path / "agent")
    reference = see_reference(scenes[0].image, scenes[0].mask, *models, GRID)
    target = see_target(scenes[1].image, *models, GRID)
    points, labels = as_points(feature_matching(reference, target), target.size)
    for name, playing in (("ours", agent.for_matched()), ("ppo", agent)):
        expected = Defender(playing).refine(scenes[1].image, points, labels, segmenter=models[0])
        assert 0 < len(expected.kept) < len(points)
        found = open_method(f"{name}?agent={tmp_path / 'agent'}", *models).segment(reference, target)
        assert np.array_equal(found.points, expected.points)
        assert np.array_equal(found.labels, expected.labels)
        assert np.array_equal(found.mask, segment(models[0], scenes[1].image, found.points, found.labels))


def test_ours_may_start_from_other_prompts_and_refuses_attackers(models, seen, tmp_path):
    references, target = seen
    save_agent(untrained(), tmp_path / "defender")
    save_agent(untrained("attacker"), tmp_path / "attacker")
    found = open_method(f"ours?prompts=persam&agent={tmp_path / 'defender'}", *models)
    assert len(found.segment(references, target).points) <= 2
    with pytest.raises(ConfigError, match="names an attacker"):
        open_method(f"ours?agent={tmp_path / 'attacker'}", *models)


def test_contested_matches_only_leave_nothing_to_defend(models, scenes, tmp_path):
    save_agent(untrained(), tmp_path / "agent")
    plain = np.full((32, 32, 3), 90, np.uint8)  # every reference patch finds the same target patch
    reference = see_reference(plain, np.arange(32)[:, None] + np.zeros((32, 32)) < 16, *models, GRID)
    for name in ("matching", "ppo", f"ours?agent={tmp_path / 'agent'}"):
        found = open_method(name, *models).segment(reference, see_target(plain, *models, GRID))
        assert len(found.points) == 0
        assert not found.mask.any()


def matched(seed=0, grid=10, positives=40, negatives=30, dim=4):
    rng = np.random.default_rng(seed)
    status = np.zeros(grid * grid, np.int8)
    nodes = rng.permutation(grid * grid)
    status[nodes[:positives]] = POSITIVE
    status[nodes[positives : positives + negatives]] = NEGATIVE
    return status, torch.from_numpy(rng.normal(size=(grid * grid, dim))).float()


def rated(features, status):
    rate = GraphStatistics(features[None], patch_centres(round(len(features) ** 0.5)))
    given = torch.from_numpy(np.stack(status))[None]
    return rate(torch.zeros(1, dtype=torch.int64), given, given[:, 0])[0]


def test_the_predecessor_climbs_its_own_reward_until_no_move_raises_it():
    status, features = matched()
    chosen = climb(status, features)
    assert ((chosen == status) | (chosen == 0)).all()
    for sign in (POSITIVE, NEGATIVE):
        assert FEWEST <= (chosen == sign).sum() <= MOST
    moves = []
    for node in np.flatnonzero(status):
        moved = chosen.copy()
        moved[node] = status[node] if not chosen[node] else 0
        if FEWEST <= (moved == status[node]).sum() <= MOST:
            moves.append(moved)
    ratings = rated(features, [chosen, *moves])
    assert len(moves) > 20
    assert ratings[1:].max() <= ratings[0] + 1e-5
    walks = [walk(status, features, np.random.default_rng(seed)) for seed in range(20)]
    assert (rated(features, walks) < ratings[0]).all()


def test_the_predecessor_goes_on_past_the_fewest_and_takes_back_what_looks_wrong():
    status, features = np.zeros(64, np.int8), torch.zeros(64, 2)
    status[:9], status[30:38] = POSITIVE, NEGATIVE
    features[30:38] = features[0] = 10.0  # the first prompt, taken before anything can be compared, lies
    chosen = climb(status, features)
    assert chosen[0] == 0
    assert (chosen == POSITIVE).sum() >= FEWEST
    assert (chosen == NEGATIVE).sum() >= FEWEST


def test_the_predecessor_takes_all_where_there_are_few():
    status, features = matched(positives=3, negatives=2)
    assert np.array_equal(climb(status, features), status)
    assert np.array_equal(walk(status, features, np.random.default_rng(0)), status)
    assert not climb(np.zeros(9, np.int8), torch.zeros(9, 2)).any()


def test_the_random_walk_ends_at_five_to_twenty_prompts_of_each_sign():
    status, features = matched()
    walks = [walk(status, features, np.random.default_rng(seed)) for seed in range(200)]
    for sign in (POSITIVE, NEGATIVE):
        counts = {int((one == sign).sum()) for one in walks}
        assert counts == set(range(FEWEST, MOST + 1))
    assert all(((one == status) | (one == 0)).all() for one in walks)


def test_references_hold_their_embedding(models, scenes):
    reference = see_reference(scenes[0].image, scenes[0].mask, *models, GRID)
    assert isinstance(reference, SeenReference)
    assert reference.coverage.shape == (GRID * GRID,)
    assert len(reference.embedding) == 1
