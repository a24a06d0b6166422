"""The web server behind the page: routes, and answers in words where something cannot be done."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as WebRequest
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from ppd_agents.demo.examples import Example, jpeg
from ppd_agents.demo.guard import Guard
from ppd_agents.demo.messages import (
    MOST_JSON,
    Request,
    about_picture,
    about_view,
    grey,
    png,
    read_request,
    stencil,
)
from ppd_agents.demo.pictures import GoneError, Picture, Shelf
from ppd_agents.demo.studio import LARGEST_BUDGET, Studio, View
from ppd_agents.demo.turns import BusyError, Turns
from ppd_agents.demo.uploads import Limits, TooLargeError, image_of, mask_of
from ppd_env.errors import PPDError
from ppd_env.game.actions import NEGATIVE, POSITIVE
from ppd_env.prompting.prompters import PROMPTERS
from ppd_env.rendering import HIGHLIGHT, MASK, SIGN_COLOURS, TRUTH

PAGE = Path(__file__).parent / "page"

SHOWN = (1600, 1600)
"""Width and height in pixels that a picture fits into where it is looked at; masks keep their own size."""

_STATUS: dict[type[Exception], int] = {GoneError: 404, TooLargeError: 413, BusyError: 503}
_LONGEST_NAME = 80

Answer = Callable[[WebRequest], Awaitable[Response]]


class Server:
    """Holds what visitors work on, and answers them.

    Args:
        studio: Does the work.
        examples: Scenes with ground truth that the page offers.
        limits: Of files that are sent.
        shelf: Holds the pictures.
    """

    def __init__(
        self,
        studio: Studio,
        examples: list[Example],
        limits: Limits | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        self.studio, self.examples = studio, examples
        self.limits, self.shelf = limits or Limits(), shelf or Shelf()
        self._models, self._files = Turns("models"), Turns("files")

    def app(self, host: str, names: tuple[str, ...] = ()) -> ASGIApp:
        """Return the ASGI application.

        Args:
            host: What it will be bound to.
            names: Further host names it goes by.
        """
        routes = [
            Route("/", _home),
            Route("/api/about", self._about),
            Route("/api/examples/{index:int}/thumbnail", self._thumbnail),
            Route("/api/examples/{index:int}", self._take_example, methods=["POST"]),
            Route("/api/pictures", self._upload, methods=["POST"]),
            Route("/api/pictures/{id}", self._drop, methods=["DELETE"]),
            Route("/api/pictures/{id}/image", self._image),
            Route("/api/pictures/{id}/truth", self._truth),
            Route("/api/pictures/{id}/mask", self._upload_mask, methods=["PUT"]),
            Route("/api/pictures/{id}/segment", self._segment, methods=["POST"]),
            Route("/api/pictures/{id}/propose", self._propose, methods=["POST"]),
            Route("/api/pictures/{id}/defend", self._defend, methods=["POST"]),
            Route("/api/pictures/{id}/attack", self._attack, methods=["POST"]),
            Route("/api/pictures/{id}/mask.png", self._download_mask, methods=["POST"]),
            Route("/api/pictures/{id}/overlay.png", self._download_overlay, methods=["POST"]),
            Mount("/page", StaticFiles(directory=PAGE)),
        ]
        handlers: Any = {PPDError: _refused, HTTPException: _not_there, Exception: _broken}
        return Guard(Starlette(routes=routes, exception_handlers=handlers), host, names)

    async def _about(self, request: WebRequest) -> Response:
        models = self.studio.models
        return JSONResponse(
            {
                "segmenter": _scheme(models.segmenter.uri),
                "features": _scheme(models.features.uri),
                "prompters": sorted(PROMPTERS),
                "examples": [example.name for example in self.examples],
                "largest_budget": LARGEST_BUDGET,
                "megabytes": self.limits.megabytes,
                "colours": {
                    "positive": SIGN_COLOURS[POSITIVE],
                    "negative": SIGN_COLOURS[NEGATIVE],
                    "mask": MASK,
                    "truth": TRUTH,
                    "highlight": HIGHLIGHT,
                },
            }
        )

    async def _thumbnail(self, request: WebRequest) -> Response:
        example = self._example(request)
        picture = await self._files.take(lambda: example.thumbnail)
        return Response(picture, media_type="image/jpeg", headers={"cache-control": "max-age=3600"})

    async def _take_example(self, request: WebRequest) -> Response:
        return await self._keep(await self._files.take(self._example(request).picture))

    async def _upload(self, request: WebRequest) -> Response:
        name = _name(request)
        content = await self._body(request, self.limits.bytes, self.limits.too_long(name))
        image = await self._files.take(image_of, content, name, self.limits)
        return await self._keep(Picture(name, image, content))

    async def _upload_mask(self, request: WebRequest) -> Response:
        picture, name = self._picture(request), _name(request)
        content = await self._body(request, self.limits.bytes, self.limits.too_long(name))
        shown = picture.image if picture.file is None else picture.file
        mask = await self._files.take(mask_of, content, name, shown, self.limits)
        await self._models.take(picture.learn, mask)
        return JSONResponse(about_picture(request.path_params["id"], picture))

    async def _keep(self, picture: Picture) -> Response:
        await self._models.take(self.studio.prepare, picture)
        return JSONResponse(about_picture(self.shelf.put(picture), picture), 201)

    async def _drop(self, request: WebRequest) -> Response:
        self.shelf.drop(request.path_params["id"])
        return Response(status_code=204)

    async def _image(self, request: WebRequest) -> Response:
        picture = self._picture(request)
        return Response(await self._files.take(jpeg, picture.image, SHOWN), media_type="image/jpeg")

    async def _truth(self, request: WebRequest) -> Response:
        scene = self._picture(request).scene()
        return Response(await self._files.take(stencil, scene.mask), media_type="image/png")

    async def _segment(self, request: WebRequest) -> Response:
        picture, asked = self._picture(request), await self._asked(request)
        view = await self._models.take(self.studio.segment, picture, asked.points, asked.labels)
        return JSONResponse(about_view(view))

    async def _propose(self, request: WebRequest) -> Response:
        picture, asked = self._picture(request), await self._asked(request)
        reference = None if asked.reference is None else self.shelf.get(asked.reference)
        return JSONResponse(
            about_view(await self._models.take(self.studio.propose, picture, asked.prompter, reference))
        )

    async def _defend(self, request: WebRequest) -> Response:
        picture, asked = self._picture(request), await self._asked(request)
        steps = self.studio.defend(picture, asked.points, asked.labels, asked.budget, matched=asked.matched)
        return await self._played(steps)

    async def _attack(self, request: WebRequest) -> Response:
        picture, asked = self._picture(request), await self._asked(request)
        return await self._played(self.studio.attack(picture, asked.points, asked.labels, asked.budget))

    async def _played(self, views: Iterator[View | str]) -> Response:
        """Send views line by line as they come; what is wrong with the request is known from the first."""
        first = await self._models.take(next, views)
        return StreamingResponse(self._lines(first, views), media_type="application/x-ndjson")

    async def _lines(self, first: View | str, views: Iterator[View | str]) -> AsyncIterator[str]:
        view: View | str | None = first
        while view is not None:
            yield json.dumps({"end": view} if isinstance(view, str) else about_view(view)) + "\n"
            try:
                view = await self._models.take(next, views, None)
            except Exception as error:
                logging.getLogger("ppd.demo").error("A game broke off", exc_info=error)
                yield json.dumps({"error": _in_words(error)}) + "\n"
                return

    async def _download_mask(self, request: WebRequest) -> Response:
        picture, asked = self._picture(request), await self._asked(request)
        view = await self._models.take(self.studio.segment, picture, asked.points, asked.labels)
        return Response(await self._files.take(grey, view.mask), media_type="image/png")

    async def _download_overlay(self, request: WebRequest) -> Response:
        picture, asked = self._picture(request), await self._asked(request)
        drawn = await self._models.take(self.studio.overlay, picture, asked.points, asked.labels)
        return Response(await self._files.take(png, drawn), media_type="image/png")

    def _picture(self, request: WebRequest) -> Picture:
        return self.shelf.get(request.path_params["id"])

    def _example(self, request: WebRequest) -> Example:
        index = request.path_params["index"]
        if index >= len(self.examples):
            raise GoneError("There is no such example.")
        return self.examples[index]

    async def _asked(self, request: WebRequest) -> Request:
        return read_request(await self._body(request, MOST_JSON, TooLargeError("The request is too long.")))

    async def _body(self, request: WebRequest, longest: int, too_long: PPDError) -> bytes:
        """Read what was sent, and stop reading where it gets too long."""
        announced = request.headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > longest:
            raise too_long
        content = bytearray()
        async for part in request.stream():
            content += part
            if len(content) > longest:
                raise too_long
        return bytes(content)


async def _home(request: WebRequest) -> Response:
    return RedirectResponse("/page/index.html")


def _name(request: WebRequest) -> str:
    """Return what the sender calls a file, without folders."""
    given = request.query_params.get("name", "").replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in given if c.isprintable())[:_LONGEST_NAME] or "the file"


def _scheme(uri: str) -> str:
    """Return the part of a URI that says nothing about this machine's folders."""
    scheme, _, rest = uri.partition(":")
    return f"{scheme}:{Path(rest).name}" if rest else scheme


def _in_words(error: Exception) -> str:
    """Return what may be said about an error; of unexpected ones the details stay on the server."""
    if isinstance(error, PPDError):
        return str(error)
    return "Something went wrong on the server; its terminal says what."


async def _refused(request: WebRequest, error: Exception) -> Response:
    return JSONResponse({"error": _in_words(error)}, _STATUS.get(type(error), 400))


async def _not_there(request: WebRequest, error: Exception) -> Response:
    code = error.status_code if isinstance(error, HTTPException) else 404
    return JSONResponse({"error": "There is nothing here."}, code)


async def _broken(request: WebRequest, error: Exception) -> Response:
    return JSONResponse({"error": _in_words(error)}, 500)
