"""``ppd serve``: its options, and the server it starts; heavy packages are imported when it does."""

from __future__ import annotations

import errno
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ppd_env.errors import ConfigError, PPDError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from ppd_agents.demo.studio import Models


@dataclass(frozen=True)
class Serve:
    """Serve the web demo: click prompts on a picture, attack them, defend them; all on this machine."""

    segmenter: str = "mini"
    """URI of the segmenter, such as sam:facebook/sam-vit-huge."""
    features: str | None = None
    """URI of the patch features that references are matched by; those of the defender where None."""
    attacker: str = "mini"
    """Name or folder of a trained attacker."""
    defender: str | None = None
    """Name or folder of a trained defender; where none is named, the one of `ppd run`, else `mini`."""
    scenes: tuple[str, ...] = ("shapes://test?count=12&seed=0", "photos://test")
    """URIs of scenes the first 24 of each are offered as examples with ground truth."""
    host: str = "127.0.0.1"
    """Address to listen on; anything but this machine's own opens the demo to the network."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    names: tuple[str, ...] = ()
    """Further host names under which browsers reach the server, such as demo.example.org behind a proxy."""
    megabytes: float = 20.0
    """Largest file that may be sent, in millions of bytes."""
    megapixels: float = 40.0
    """Largest picture that may be sent, in millions of pixels."""
    device: str = "cpu"
    """A torch device, such as cuda."""


def run_serve(options: Serve) -> int:
    """Load the models, listen until interrupted, and return the exit code.

    Raises:
        PPDError: A model cannot be loaded, the address cannot be listened on, or a package is missing.
    """
    try:
        import uvicorn

        from ppd_agents.demo.guard import is_local
    except ImportError as error:
        raise _lacking(error) from None
    with listening(options.host, options.port) as door:
        print("Loading the models ...", flush=True)
        app = make_app(options)
        if not is_local(options.host):
            print(
                f"Warning: everybody who can reach {options.host} can use this server, and nothing is "
                "encrypted. It listens on this machine alone without --host.",
                file=sys.stderr,
            )
        print(f"Open {address(options.host, door.getsockname()[1])} (stop with Ctrl+C)", flush=True)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=2
        )
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[door])
        print("\nStopped.")
    return 0


def make_app(options: Serve) -> ASGIApp:
    """Load everything the options name, and return the application to serve.

    Raises:
        PPDError: A model or a set of scenes cannot be loaded, or a package is missing.
    """
    try:
        from ppd_agents.demo.server import Server
    except ImportError as error:
        raise _lacking(error) from None
    from ppd_agents.demo.examples import open_examples
    from ppd_agents.demo.studio import Studio
    from ppd_agents.demo.uploads import Limits

    if min(options.megabytes, options.megapixels) <= 0:
        raise ConfigError("--megabytes and --megapixels must be larger than 0.")
    examples, limits = open_examples(options.scenes), Limits(options.megabytes, options.megapixels)
    return Server(Studio(_models(options)), examples, limits).app(options.host, options.names)


def _lacking(error: ImportError) -> PPDError:
    return PPDError(
        f"The web demo needs the package {error.name!r}: pip install 'point-prompt-defender[demo]'."
    )


def _models(options: Serve) -> Models:
    """Load what the options name."""
    from ppd_agents.defender import Defender
    from ppd_agents.demo.studio import load_models
    from ppd_agents.refining import choose_defender
    from ppd_agents.shipped import open_agent
    from ppd_env.loading import as_device
    from ppd_env.segmenters.registry import load_segmenter

    device = as_device(options.device)
    defender = Defender.load(choose_defender(options.defender), device)
    attacker = open_agent(options.attacker, "attacker", device)
    return load_models(load_segmenter(options.segmenter, device), options.features, defender, attacker)


def address(host: str, port: int) -> str:
    """Return the address to open in a browser on this machine."""
    if host in ("", "0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Args:
        host: An address of this machine.
        port: The port; 0 for a free one.

    Raises:
        PPDError: The address cannot be listened on; the message says why and what to do.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port must lie in [0, 65535], got {port}.")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = f"Port {port} of {host} is in use: choose another by --port, or 0 for a free one."
        elif error.errno == errno.EACCES:
            reason = f"Port {port} may not be used without special rights: choose one from 1024 on."
        else:
            why = str(error.strerror or error).partition(" (while attempting")[0]
            reason = f"{host!r} is not an address to listen on here ({why}); try 127.0.0.1."
        raise PPDError(reason) from None
