"""What the web demo does with a picture, without the web."""

from itertools import pairwise

import numpy as np
import pytest
from demo_models import examples, models, studio

from ppd_agents.defender import Defender
from ppd_agents.demo.pictures import GoneError, Picture, Shelf
from ppd_agents.demo.studio import load_models
from ppd_agents.refining import segment
from ppd_agents.shipped import open_agent
from ppd_env.errors import PPDError
from ppd_env.game.actions import POSITIVE
from ppd_env.metrics import dice
from ppd_env.rendering import SIGN_COLOURS
from ppd_env.segmenters.fake import FakeSegmenter

ON, OFF = [[150.0, 60.0], [20.5, 30.0]], [1, 0]
ALONE = [[150.0, 60.0]], [1]
LAST = "nothing more may be removed: the last positive prompt, or else the last one, stays"


@pytest.fixture
def picture():
    return examples()[0].picture()


def strange(picture):
    """The same picture without its ground truth."""
    return Picture("mine", picture.image)


def test_clicks_are_segmented_as_ppd_refine_does(picture):
    view = studio().segment(picture, ON, OFF)
    wanted = segment(models().segmenter, picture.image, np.array(ON, np.float32), np.array(OFF))
    assert (view.mask == wanted).all()
    assert view.dice == dice(wanted, picture.mask)
    assert 0 < view.predicted_iou <= 1
    assert studio().segment(strange(picture), ON, OFF).dice is None


def test_without_points_there_is_no_mask(picture):
    view = studio().segment(picture, [], [])
    assert not view.mask.any()
    assert view.predicted_iou == 0


@pytest.mark.parametrize(
    ("points", "labels", "says"),
    [
        ([[1, 2]], [1, 0], "as many labels"),
        ([[300, 2]], [1], "outside the image"),
        ([[float("nan"), 2]], [1], "not finite"),
        ([[1, 2], [1, 2]], [1, 0], "positive and as negative"),
        ([[1, 2]] * 2001, [1] * 2001, "too many"),
    ],
)
def test_points_that_cannot_be_are_refused(picture, points, labels, says):
    with pytest.raises(PPDError, match=says):
        studio().segment(picture, points, labels)


def test_models_look_at_a_picture_once(picture):
    class Counted(FakeSegmenter):
        looks = 0

        def embed(self, image):
            Counted.looks += 1
            return super().embed(image)

    shared = models()
    counted = type(studio())(
        load_models(Counted(), None, shared.defender, shared.attacker),
    )
    counted.prepare(picture)
    counted.segment(picture, ON, OFF)
    list(counted.defend(picture, ON, OFF, 3))
    list(counted.attack(picture, ON, OFF, 2))
    assert Counted.looks == 1


def attacked(picture, budget=6):
    return list(studio().attack(picture, [], [], budget))


def test_an_attack_adds_points_and_breaks_the_mask(picture):
    *views, end = attacked(picture)
    assert end == "the budget of 6 steps is used up"
    assert len(views) == 7
    assert views[-1].dice < views[0].dice - 0.3
    for before, after in pairwise(views):
        assert len(after.labels) == len(before.labels) + 1
        assert len(after.touched) == 1
        new = {tuple(p) for p in after.points} - {tuple(p) for p in before.points}
        assert new == {tuple(p) for p in after.touched}
        assert after.dice == dice(after.mask, picture.mask)


def test_an_attack_starts_from_the_points_that_are_there(picture):
    first, *_ = studio().attack(picture, ON, OFF, 1)
    assert (first.points == [[24, 24], [152, 56]]).all()  # centres of their patches of 16 pixels
    assert first.labels.tolist() == [0, 1]


def test_attacks_need_a_ground_truth(picture):
    with pytest.raises(PPDError, match="ground truth is not known"):
        next(studio().attack(strange(picture), ON, OFF, 1))


def test_a_defence_takes_the_defenders_steps(picture):
    spoiled = attacked(picture)[-2]
    given = (spoiled.points, spoiled.labels)
    found = models().defender.refine(picture.image, *given)
    *views, end = studio().defend(picture, *given, 60)
    assert (views[-1].points == found.points).all()
    assert end == found.stopped
    removed = [tuple(point) for view in views[1:] for point in view.touched]
    assert removed == [verdict.point for verdict in found.removed]
    assert [view.reason for view in views[1:]] == [verdict.reason for verdict in found.removed]
    assert [len(view.labels) for view in views] == list(range(len(given[1]), len(found.labels) - 1, -1))


@pytest.mark.parametrize("budget", [3, 60])
def test_matched_points_are_cleaned_by_their_own_rule_to_its_end(picture, budget):
    proposed = studio().propose(picture, "matching", examples()[1].picture())
    given = (proposed.points, proposed.labels)
    *views, end = studio().defend(picture, *given, budget, matched=True)
    found = Defender.load("mini", matched=True).refine(picture.image, *given)
    assert (views[-1].points == found.points).all()
    assert end == found.stopped
    assert len(found.removed) > 3
    assert len(views) == 1 + min(budget, found.removed[-1].step)
    assert list(studio().defend(picture, *ALONE, 3, matched=True))[-1] == LAST


def test_a_defence_keeps_to_its_budget(picture):
    spoiled = attacked(picture)[-2]
    *views, end = studio().defend(picture, spoiled.points, spoiled.labels, 2)
    assert len(views) == 3
    assert end == "the budget of 2 steps is used up"


def test_seen_images_are_refined_as_others(picture):
    spoiled = attacked(picture)[-2]
    seen = studio()._target(picture)
    defender = models().defender
    mine = defender.refine_seen(seen, spoiled.points, spoiled.labels)
    theirs = defender.refine(picture.image, spoiled.points, spoiled.labels)
    assert mine.verdicts == theirs.verdicts


def test_points_are_proposed_from_a_reference(picture):
    view = studio().propose(picture, "matching", picture)  # an object finds itself
    inside = picture.mask[tuple(view.points[view.labels == 1].astype(int).T[::-1])]
    assert inside.mean() > 0.8
    outside = picture.mask[tuple(view.points[view.labels == 0].astype(int).T[::-1])]
    assert outside.mean() < 0.1
    assert view.dice > 0.5


def test_proposals_say_what_they_lack(picture):
    with pytest.raises(PPDError, match="at least one reference"):
        studio().propose(picture, "matching", None)
    with pytest.raises(PPDError, match="ground truth"):
        studio().propose(strange(picture), "ideal", None)
    with pytest.raises(PPDError, match="ground truth is not known"):
        studio().propose(picture, "matching", strange(picture))
    with pytest.raises(PPDError, match="Unknown prompter"):
        studio().propose(picture, "magic", None)


def test_overlays_show_points_and_mask(picture):
    drawn = studio().overlay(picture, ON, OFF)
    assert drawn.shape[1] == 512
    assert tuple(drawn[120 + 5, 300 + 5]) == SIGN_COLOURS[POSITIVE]  # in the disc, beside its plus


def test_a_defender_is_no_attacker():
    with pytest.raises(PPDError, match="is a defender"):
        load_models(models().segmenter, None, models().defender, open_agent("mini", "defender"))


def test_other_features_match_while_agents_keep_theirs(picture):
    mixed = load_models(
        models().segmenter, "segmenter", Defender.load("mini"), open_agent("mini", "attacker")
    )
    assert mixed.features.uri == "segmenter:mini"
    both = type(studio())(mixed)
    assert both.propose(picture, "matching", picture).dice > 0.4
    assert len(list(both.defend(picture, ON, OFF, 2))) >= 2
    assert len(list(both.attack(picture, ON, OFF, 2))) == 4


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def small():
    return Picture("small", np.zeros((20, 20, 3), np.uint8))


def test_pictures_go_when_nobody_asks_for_them():
    clock = Clock()
    shelf = Shelf(seconds=60, clock=clock)
    old, used = shelf.put(small()), shelf.put(small())
    clock.now = 50
    shelf.get(used)
    clock.now = 100
    shelf.get(used)
    with pytest.raises(GoneError):
        shelf.get(old)
    assert len(shelf) == 1


def test_the_longest_untouched_go_first():
    shelf = Shelf(count=2)
    first, second = shelf.put(small()), shelf.put(small())
    shelf.get(first)
    third = shelf.put(small())
    with pytest.raises(GoneError):
        shelf.get(second)
    assert shelf.get(first) is not shelf.get(third)


def test_pictures_hold_a_limited_memory():
    shelf = Shelf(megabytes=1)
    held = [shelf.put(Picture("large", np.zeros((400, 400, 3), np.uint8))) for _ in range(4)]
    assert len(shelf) == 2
    shelf.get(held[-1])


def test_ids_cannot_be_guessed():
    shelf = Shelf()
    found = {shelf.put(small()) for _ in range(50)}
    assert len(found) == 50
    assert min(map(len, found)) >= 24
