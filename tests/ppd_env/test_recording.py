"""Recorded episodes: whole, atomic, and rejected when anything in them is not as it was."""

import json

import gymnasium as gym
import numpy as np
import pytest

from ppd_env import recording
from ppd_env.errors import ConfigError, EpisodeError
from ppd_env.recording import read_episode, replay
from ppd_env.wrappers import RecordEpisode


def play(env, episodes=1, seed=5, options=None):
    """Play random legal episodes and return the files they left."""
    rng = np.random.default_rng(seed)
    files = []
    for number in range(episodes):
        _, info = env.reset(seed=seed if number == 0 else None, options=options)
        over = False
        while not over:
            legal = np.flatnonzero(info["action_mask"])
            action = rng.choice(legal[:-1] if len(legal) > 1 else legal)
            _, _, terminated, truncated, info = env.step(action)
            over = terminated or truncated
        files.append(info["recording"])
    return files


@pytest.fixture
def recorded(tiny_kwargs, tmp_path):
    env = gym.make("PPD-v0", attack_steps=4, defence_steps=4, **tiny_kwargs)
    play(RecordEpisode(env, tmp_path))
    return tmp_path / "episode-000000.json"


def signed(content):
    """What a forger would write who knows how the checksum is made."""
    body = {key: value for key, value in content.items() if key != "checksum"}
    return {**body, "checksum": recording._checksum(body)}


@pytest.fixture
def edit(recorded):
    """A function that changes the file and signs it anew, so that only the replay can tell."""

    def change(edited, sign=True):
        content = json.loads(recorded.read_text())
        edited(content)
        recorded.write_text(json.dumps(signed(content) if sign else content))
        return recorded

    return change


def test_an_honest_file_passes(recorded):
    episode = read_episode(recorded)
    assert len(episode.actions) == 4
    assert episode.truncated
    replay(episode)


@pytest.mark.parametrize("role", ["attacker", "defender"])
@pytest.mark.parametrize("options", [None, {"scene": 2, "steps": 3}, {"start": "noise", "prompts": None}])
def test_every_way_to_begin_can_be_replayed(tiny_kwargs, tmp_path, role, options):
    env = RecordEpisode(gym.make("PPD-v0", role=role, attack_steps=[2, 4], **tiny_kwargs), tmp_path)
    for path in play(env, 3, options=options):
        replay(read_episode(tmp_path / path))


def test_given_prompts_can_be_replayed(tiny_kwargs, tmp_path):
    status = np.zeros(36, np.int8)
    status[[3, 8, 20]] = (1, 2, 1)
    env = RecordEpisode(gym.make("PPD-v0", start="ideal", **tiny_kwargs), tmp_path)
    for path in play(env, 2, options={"prompts": status, "scene": 0}):
        replay(read_episode(tmp_path / path))


def test_recording_changes_nothing(tiny_kwargs, tmp_path):
    plain = gym.make("PPD-v0", **tiny_kwargs)
    watched = RecordEpisode(gym.make("PPD-v0", **tiny_kwargs), tmp_path)
    for seed in (1, None, None):
        (a, _), (b, _) = plain.reset(seed=seed), watched.reset(seed=seed)
        assert np.array_equal(a["status"], b["status"])


def drop_last(content):
    for name in ("actions", "rewards", "dice"):
        content[name].pop()
    content["final_dice"] = content["dice"][-1]


def add_one(content):
    content["actions"].append(72)
    content["rewards"].append(0.0)
    content["dice"].append(content["dice"][-1])


def illegal(content):
    content["actions"][1] = content["actions"][0]


def flatter(content):
    content["dice"][-1] = content["final_dice"] = content["dice"][-1] + 0.01


@pytest.mark.parametrize(
    ("edited", "says"),
    [
        (lambda c: c["rewards"].__setitem__(2, c["rewards"][2] + 0.05), "step 3: the reward"),
        (lambda c: c["dice"].__setitem__(1, 1.0), "step 2: Dice"),
        (flatter, "step 4: Dice"),
        (lambda c: c.update(final_dice=1.0), "final Dice is not"),
        (lambda c: c["start"].update(initial_dice=0.5), "initial_dice"),
        (lambda c: c["start"].update(ideal_dice=0.123), "ideal_dice"),
        (lambda c: c["start"].update(scene_name="other"), "scene_name"),
        (lambda c: c["start"].pop("ideal_dice"), "its start holds"),
        (drop_last, "goes on after its 3 steps"),
        (add_one, "step 5: the game was over"),
        (illegal, "step 2: action .* is illegal"),
        (lambda c: c["actions"].__setitem__(0, 1000), "action 1000 is illegal"),
        (lambda c: c["actions"].__setitem__(0, -1), "action -1 is illegal"),
        (lambda c: c["actions"].__setitem__(0, True), "not an integer"),
        (lambda c: c["actions"].pop(), "one reward and one Dice"),
        (lambda c: c.update(actions=[], rewards=[], dice=[]), "at least one action"),
        (lambda c: c.update(terminated=True, truncated=False), "ended in another way"),
        (lambda c: c.update(seed=c["seed"] + 1), "and not"),
        (lambda c: c.update(seed=None), "seed or a generator"),
        (lambda c: c.update(seed=None, generator={"bit_generator": "PCG64"}), "cannot be begun"),
        (lambda c: c.update(seed=-4), "cannot be begun"),
        (lambda c: c.update(options={"scene": 99}), "cannot be begun"),
        (lambda c: c["make"].update(grid=7), "and not"),
        (lambda c: c["make"].update(colour="red"), "cannot be made.*colour"),
        (lambda c: c["make"].update(max_episode_steps=2), "cannot be made.*max_episode_steps"),
        (lambda c: c["make"].update(opponent="os:system?command=true"), "is not run"),
        (lambda c: c["signatures"].update(segmenter="mine"), "other segmenter"),
        (lambda c: c["signatures"].update(scenes="mine"), "other scenes"),
        (lambda c: c["versions"].update({"point-prompt-defender": "9.9"}), "version 9.9"),
        (lambda c: c.update(env_id="PPD-v9"), "no environment"),
        (lambda c: c.update(env_id="CartPole-v1"), "no environment"),
        (lambda c: c.update(format="ppd-episode/2"), "its format"),
        (lambda c: c.update(note="hello"), "missing or unknown: note"),
        (lambda c: c.pop("dice"), "missing or unknown: dice"),
        (lambda c: c["rewards"].__setitem__(0, float("nan")), "NaN, which is no number"),
        (lambda c: c["dice"].__setitem__(0, float("-inf")), "-Infinity, which is no number"),
        (lambda c: c["dice"].__setitem__(0, None), "not a number"),
        (lambda c: c["start"].update(initial_dice="0.1"), "initial_dice"),
        (lambda c: c.update(make=[]), "make is of the wrong kind"),
    ],
)
def test_a_forged_file_is_rejected(edit, edited, says):
    with pytest.raises(EpisodeError, match=says):
        replay(read_episode(edit(edited)))


def test_a_number_too_large_for_a_float_is_rejected(edit):
    path = edit(lambda c: c["dice"].__setitem__(0, 12345.0))
    path.write_text(path.read_text().replace("12345.0", "1e999"))
    with pytest.raises(EpisodeError, match="not a number"):
        read_episode(path)


def test_any_change_of_the_text_breaks_the_checksum(edit):
    with pytest.raises(EpisodeError, match="it was edited"):
        read_episode(edit(lambda c: c["versions"].update(torch="0"), sign=False))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_file_cut_short_is_rejected(recorded, share):
    text = recorded.read_text().strip()
    recorded.write_text(text[: int(len(text) * share)])
    with pytest.raises(EpisodeError, match="cut short"):
        read_episode(recorded)


@pytest.mark.parametrize("text", ["[]", "3", '"episode"', "{}"])
def test_json_of_another_kind_is_rejected(recorded, text):
    recorded.write_text(text)
    with pytest.raises(EpisodeError, match="its format"):
        read_episode(recorded)


def test_other_versions_can_be_replayed_on_request(edit):
    path = edit(lambda c: c["versions"].update({"point-prompt-defender": "9.9"}))
    replay(read_episode(path), any_version=True)


def test_the_device_of_the_record_does_not_matter(edit):
    replay(read_episode(edit(lambda c: c["make"].update(device="cuda:7"))))


def test_huge_and_absent_files_are_rejected(recorded, tmp_path):
    recorded.write_text(" " * (recording.LARGEST + 1))
    with pytest.raises(EpisodeError, match="larger than"):
        read_episode(recorded)
    with pytest.raises(EpisodeError, match="cannot be read"):
        read_episode(tmp_path / "none.json")


def test_an_unfinished_episode_leaves_no_file(tiny_kwargs, tmp_path):
    env = RecordEpisode(gym.make("PPD-v0", **tiny_kwargs), tmp_path / "records")
    _, info = env.reset(seed=0)
    env.step(np.flatnonzero(info["action_mask"])[0])
    env.reset()
    env.close()
    assert not (tmp_path / "records").exists()


def test_a_write_that_fails_leaves_the_old_file(recorded, tiny_kwargs, monkeypatch):
    before = recorded.read_text()
    env = gym.make("PPD-v0", attack_steps=4, defence_steps=4, **tiny_kwargs)
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        play(RecordEpisode(env, recorded.parent), seed=6)
    assert recorded.read_text() == before


def test_other_environments_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="CartPole"):
        RecordEpisode(gym.make("CartPole-v1"), tmp_path)
