"""The Gymnasium environment: one game, one role."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from ppd_env.config import EnvConfig
from ppd_env.envs.single_role import SingleRoleGames
from ppd_env.errors import ConfigError
from ppd_env.game.actions import action_count
from ppd_env.rendering import Renderer

RENDER_MODES = ("rgb_array", "human")
RENDER_FPS = 4


class PointPromptEnv(gymnasium.Env):
    """Attack or defend the point prompts of a segmentation model.

    ## Description

    A promptable segmenter such as SAM turns an image and a set of point prompts into a mask, and it is
    brittle: a few wrong points, negative ones above all, can ruin the mask. Point Prompt Defender (PPD)
    makes a game of it. The image is cut into a grid of `grid` x `grid` patches, the N nodes of a graph. A
    node may hold a positive prompt ("this belongs to the object"), a negative one, or none. The **attacker**
    activates prompts that hurt the mask, the **defender** removes prompts to restore it. The reward is the
    change in Dice between the segmenter's mask and the ground truth.

    ```python
    import gymnasium as gym
    import ppd_env

    env = gym.make("PPD-v0", role="defender")
    observation, info = env.reset(seed=0)
    over = False
    while not over:
        action = env.action_space.sample(observation["action_mask"])
        observation, reward, terminated, truncated, info = env.step(action)
        over = terminated or truncated
    ```

    ## Action Space

    `Discrete(2N + 1)`, N = `grid` ** 2.

    | action | meaning |
    |---|---|
    | `a < N` | the positive prompt at node `a` |
    | `N <= a < 2N` | the negative prompt at node `a - N` |
    | `2N` | STOP |

    The attacker activates the prompt, whose node must be inactive; the defender deactivates it, so it must
    be active. The last positive prompt is never removed (nor, in a start without positives, the last
    prompt). Which actions are legal is offered in three places: `observation["action_mask"]` and
    `info["action_mask"]` (int8), and `env.get_wrapper_attr("action_masks")()` (bool). An illegal action
    changes nothing and uses a step; see `invalid_action`.

    With `prompts_per_step=k`, an action takes along the k - 1 legal candidates of the same sign that are
    nearest to it in feature distance.

    ## Observation Space

    A flat `Dict` of `Box` arrays, by default:

    | key | shape | dtype | range | meaning |
    |---|---|---|---|---|
    | `status` | (N,) | int8 | [0, 2] | 0 inactive, 1 positive, 2 negative |
    | `steps_left` | (1,) | float32 | [0, 1] | share of the step budget left |
    | `action_mask` | (2N + 1,) | int8 | [0, 1] | 1 where an action is legal |
    | `features` | (N, d) | float32 | [-inf, inf] | patch features; two random patches lie about 1 apart |
    | `positions` | (N, 2) | float32 | [0, 1] | patch centres (x, y) in the unit square |
    | `edge_index` | (2, 16N) | int32 | [0, N - 1] | each node's 8 nearest in feature space, then in the image; row 1 the node |
    | `edge_attr` | (16N, 2) | float32 | [0, inf] | feature distance and physical distance of each edge |

    And on request:

    | key | shape | dtype | range | with | meaning |
    |---|---|---|---|---|---|
    | `feature_distance` | (N, N) | float32 | [0, inf] | `edges="dense"` | of all pairs of nodes; takes the place of the edges |
    | `physical_distance` | (N, N) | float32 | [0, inf] | `edges="dense"` | the same in the unit square |
    | `feedback` | (N,) | float32 | [0, 1] | `feedback=True` | share of each patch in the segmenter's mask now |
    | `predicted_iou` | (1,) | float32 | [-inf, inf] | `feedback=True` | the segmenter's own estimate now |
    | `scene` | (1,) | int64 | [0, S - 1] | `observation="compact"` | row of the bank of S scenes, in place of all that never changes in a scene |

    `edges="none"` leaves the edges out. What `feedback=True` adds comes from the segmenter alone, without
    ground truth. d is the length of a feature: 132 with `mini`.

    ## Rewards

    The defender receives `Dice(after) - Dice(before)`, the attacker its negative, so the rewards of an
    episode sum to the whole change. Dice is taken on the segmenter's low-resolution mask inside the image;
    without any prompt the mask is empty. `invalid_action="penalty"` takes 0.1 off for an illegal action,
    outside that sum.

    ## Starting State

    A scene is drawn from `scenes`, and with it, by default: ideal prompts (one random node in each cell of
    3, 4 or 5 nodes a side, up to 30 % dropped, positive inside the object and negative outside); for the
    defender, an attack on them by `opponent` follows. `start="matching"` matches features with another scene
    of the bank, and `start="noise"` draws prompts at random. `reset(options=...)` takes `scene` (a row of
    the bank), `prompts` ((N,) statuses, or `{"points": (n, 2) pixels, "labels": (n,)}`), `start` and
    `steps`.

    ## Episode End

    *Termination*: STOP, or nothing but STOP is legal. *Truncation*: the step budget is used up.

    ## Info

    | key | type | meaning |
    |---|---|---|
    | `action_mask` | (2N + 1,) int8 | as in the observation |
    | `invalid_action` | bool | the last action was illegal |
    | `dice` | float | Dice now |
    | `initial_dice` | float | Dice when the episode began |
    | `ideal_dice` | float | Dice before the opponent's attack; only where there was one |
    | `predicted_iou` | float | the segmenter's own estimate |
    | `active_prompts` | int | prompts now |
    | `steps` | int | the step budget of this episode |
    | `scene` | int | row of the scene bank |
    | `scene_name` | str | its name |

    ## Arguments

    | argument | default | meaning |
    |---|---|---|
    | `role` | `"defender"` | or `"attacker"` |
    | `start` | `None` | `"ideal"`, `"ideal+attack"`, `"matching"`, `"noise"`; None: `"ideal+attack"` for the defender, `"ideal"` for the attacker |
    | `opponent` | `"random"` | who attacks at the start: `"random"`, `"oracle"`, `"module:callable?path=..."` |
    | `scenes` | `"shapes://train?count=1000&seed=0"` | URI of the scenes |
    | `segmenter` | `"mini"` | URI of the segmenter |
    | `features` | `"mini"` | URI of the patch features |
    | `grid` | 16 | patches per side |
    | `layout` | `"jittered"` | of ideal prompts, or `"lattice"` |
    | `attack_steps`, `defence_steps` | 20 | step budgets; an integer or `[lo, hi]` |
    | `prompts_per_step` | 1 | prompts one action touches |
    | `label_mode` | `"free"` | `"truth"`: an attacker may only give a node its true sign |
    | `allow_stop` | True | False: STOP is legal only where nothing else is |
    | `invalid_action` | `"noop"` | `"penalty"`, `"raise"` |
    | `edges` | `"knn"` | `"dense"`, `"none"` |
    | `feedback` | False | show the segmenter's own mask and estimate |
    | `observation` | `"full"` | `"compact"` |
    | `device` | `"cpu"` | torch device of scenes and segmenter |
    | `max_batch` | None | prompt sets decoded at once; None: 64, on a GPU with memory for them up to 256 |
    | `render_mode` | `None` | `"rgb_array"`, `"human"` |

    ## Version History

    * v0: first version.
    """  # noqa: E501 (tables cannot be wrapped)

    metadata = {"render_modes": list(RENDER_MODES), "render_fps": RENDER_FPS}  # noqa: RUF012 (Gymnasium's own form)

    def __init__(self, render_mode: str | None = None, **kwargs: Any) -> None:
        check_render_mode(render_mode)
        self.render_mode = render_mode
        self.config = EnvConfig.from_kwargs(**kwargs)
        self.play = SingleRoleGames(self.config, 1)
        self.observation_space = self.play.observer.space()
        self.action_space = spaces.Discrete(action_count(self.play.games.nodes))
        self._renderer = Renderer(self.render_mode, RENDER_FPS)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: Seeds everything random; None goes on with the present generator.
            options: See Starting State; unknown options warn.

        Returns:
            Observation and info.
        """
        super().reset(seed=seed)
        self.play.reset(self.play.games.everyone(), [self.np_random], options)
        observation, info = self._look(invalid=False)
        self._show()
        return observation, info

    def step(self, action: np.int64 | int) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Play one action; see the class for its meaning.

        Returns:
            Observation, reward, terminated, truncated and info.

        Raises:
            PPDError: The action is outside the action space, or illegal with ``invalid_action="raise"``.
        """
        played = self.play.step(np.array([action]))
        observation, info = self._look(invalid=bool(played.invalid[0]))
        self._show()
        return (
            observation,
            float(played.reward[0]),
            bool(played.terminated[0]),
            bool(played.truncated[0]),
            info,
        )

    def _look(self, *, invalid: bool) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        observation, infos = self.play.look(self.play.games.everyone(), np.array([invalid]))
        return {name: value[0] for name, value in observation.items()}, unbatched(infos, 0)

    def action_masks(self) -> np.ndarray:
        """Return the legal actions now, (2N + 1,) bool."""
        return self.play.masks(self.play.games.everyone())[0]

    def render(self) -> np.ndarray | None:
        """Return the picture (height, width, 3) uint8 in mode ``rgb_array``; None otherwise."""
        return self._renderer.render(self.play.games, 0)

    def _show(self) -> None:
        if self.render_mode == "human":
            self._renderer.render(self.play.games, 0)

    def close(self) -> None:
        """Close the window, if one is open."""
        self._renderer.close()


def check_render_mode(render_mode: str | None) -> None:
    """Raise ``ConfigError`` for a render mode that does not exist."""
    if render_mode not in (None, *RENDER_MODES):
        raise ConfigError(f"render_mode must be None, 'rgb_array' or 'human'; got {render_mode!r}.")


def unbatched(infos: dict[str, np.ndarray], game: int) -> dict[str, Any]:
    """Take one game's info out of batched infos; scalars become Python's own."""
    return {
        name: values[game] if values.ndim > 1 or values.dtype == object else values[game].item()
        for name, values in infos.items()
    }
