"""A source of scenes of one's own: the arrays ``images`` and ``masks`` of one .npz file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from ppd_env.errors import SceneError
from ppd_env.scenes.scene import RawScene
from ppd_env.uris import Uri


class ArchiveSource:
    """Scene i is ``images[i]`` (H, W, 3) uint8 RGB with ``masks[i]`` (H, W) bool."""

    def __init__(self, uri: str, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as archive:
                self._images, self._masks = archive["images"], archive["masks"].astype(bool)
            content = path.read_bytes()
        except (OSError, KeyError, ValueError) as error:
            raise SceneError(str(path), f"no .npz file with the arrays images and masks ({error})") from error
        self.uri = uri
        self.signature = "npz-1-" + hashlib.sha256(content).hexdigest()  # other scenes, other cache entries

    def __len__(self) -> int:
        """Return the number of scenes."""
        return len(self._images)

    def __getitem__(self, index: int) -> RawScene:
        """Return scene ``index``; one that cannot be used is left out with the reason given here."""
        name = f"scene-{index}"
        if not self._masks[index].any():
            raise SceneError(name, "its mask is empty")
        return RawScene(name, self._images[index], self._masks[index], group=name)


def load(uri: Uri) -> ArchiveSource:
    """Open the scenes that ``my_scenes:load?file=/data/mine.npz`` names."""
    uri.require_keys(["file"])
    return ArchiveSource(uri.text, Path(uri.query["file"]))
