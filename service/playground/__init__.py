"""The page at `/`: build a history, and see what the model makes of it.

Static files that ask the API as any client does. They come from the service alone, and the
Content-Security-Policy lets the browser run nothing else: a name with markup in it is text.
"""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request, Response

PAGE = Path(__file__).with_name("page")
MEDIA_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
INDEX = "index.html"
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    # Asked for each time, so that no page mixes the files of two versions; unchanged ones are 304.
    "cache-control": "no-cache",
    "vary": "accept-encoding",
}

playground = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class _File:
    """A file of the page as it is sent."""

    plain: bytes
    compressed: bytes
    media_type: str
    tag: str


@playground.get("/")
async def page(request: Request) -> Response:
    """The page."""
    return _answer(request, INDEX)


@playground.get("/playground/{name:path}")
async def asset(request: Request, name: str) -> Response:
    """A script or a style of the page."""
    return _answer(request, name)


def _answer(request: Request, name: str) -> Response:
    if (file := _files().get(name)) is None:
        raise HTTPException(404)
    headers = HEADERS | {"etag": file.tag}
    if request.headers.get("if-none-match") == file.tag:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers |= {"content-encoding": "gzip"}
        return Response(file.compressed, headers=headers, media_type=file.media_type)
    return Response(file.plain, headers=headers, media_type=file.media_type)


@cache
def _files() -> dict[str, _File]:
    """All files by their name below the folder; nothing else can be asked for."""
    return {
        str(path.relative_to(PAGE)): _read(path)
        for path in PAGE.rglob("*")
        if path.suffix in MEDIA_TYPES
    }


def _read(path: Path) -> _File:
    plain = path.read_bytes()
    tag = f'"{hashlib.sha256(plain).hexdigest()[:32]}"'
    return _File(plain, gzip.compress(plain, mtime=0), MEDIA_TYPES[path.suffix], tag)
