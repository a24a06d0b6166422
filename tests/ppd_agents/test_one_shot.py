from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ppd_agents.evaluation.one_shot import matching_statuses, reference_rows, scene_class
from ppd_env.errors import ConfigError
from ppd_env.game.actions import NEGATIVE, POSITIVE


def bank(names, groups=None, **more):
    return SimpleNamespace(names=names, groups=groups or names, uri="here://", **more)


def drawn(bank, seed=0):
    return reference_rows(bank, [np.random.default_rng([seed, row]) for row in range(len(bank.names))])


def test_references_share_the_class_and_are_never_the_scene_itself():
    scenes = bank(["cat/1", "cat/2", "cat/3", "dog/1", "dog/2"])
    seen = {}
    for seed in range(30):
        for row, reference in enumerate(drawn(scenes, seed)):
            assert reference != row
            assert scene_class(scenes.names[row]) == scene_class(scenes.names[reference])
            seen.setdefault(row, set()).add(reference)
    assert seen == {0: {1, 2}, 1: {0, 2}, 2: {0, 1}, 3: {4}, 4: {3}}
    assert drawn(scenes, 3) == drawn(scenes, 3)


def test_a_class_of_one_looks_elsewhere_but_not_at_its_own_image():
    scenes = bank(["cat/1", "dog/1", "dog/2"], ["photo-1", "photo-1", "photo-2"])
    for seed in range(10):
        references = drawn(scenes, seed)
        assert references[0] == 2
        assert references[1] == 2


def test_scenes_without_classes_draw_from_the_whole_set():
    found = {drawn(bank(list("abcd")), seed)[0] for seed in range(40)}
    assert found == {1, 2, 3}


def test_one_image_alone_is_refused():
    with pytest.raises(ConfigError, match="another as reference"):
        drawn(bank(["a", "b"], ["same", "same"]))


def test_matching_takes_the_signs_of_the_reference():
    features = torch.tensor([[[0.0], [1.0], [2.0], [3.0]], [[3.0], [2.0], [1.0], [0.0]]])
    mask = np.zeros((4, 4), bool)
    mask[:2, :2] = True
    asked = []

    def truth(row):
        asked.append(row)
        return mask

    status = matching_statuses(bank(["a", "b"], features=features, grid=2), [1, 1], truth)
    assert asked == [1]
    assert status.tolist() == [[NEGATIVE] * 3 + [POSITIVE], [POSITIVE] + [NEGATIVE] * 3]
