"""Folders in object storage, by fsspec: `s3://BUCKET/FOLDER`, `gs://...`. TensorFlow's wheel reads no `s3://`.

Credentials come from where the store's library looks for them, such as the environment or ~/.aws. A URL with a secret
in it is refused, and errors have no text of a library, which may repeat one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from emotion_tf.errors import UserError
from emotion_tf.locks import WriteError

PACKAGES = {
    "s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs", "oss": "ossfs",
    "oci": "ocifs", "hdfs": "pyarrow", "memory": "fsspec",
}  # fmt: skip
"""Scheme -> the package with which fsspec opens it."""
EXTRAS = {"s3fs": "emotion_tf[s3]", "gcsfs": "emotion_tf[gs]"}
URL = re.compile(rf"({'|'.join(PACKAGES)}):/+(.*)", re.DOTALL)  # a `Path` has one slash
SECRET = re.compile(r"([A-Za-z][\w+.-]*:/{1,2})\S*@")
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "s3": {
        "config_kwargs": {"connect_timeout": 10, "read_timeout": 15, "retries": {"total_max_attempts": 1}},
        "use_listings_cache": False,
    }
}
"""Scheme -> options of its file system. s3fs itself tries five times: a server that hangs is noticed after 80 s."""
Result = TypeVar("Result")


class StoreError(WriteError):
    """An object store does not answer, or refuses. What was written before stays, and can be continued."""


def is_url(path: str | Path) -> bool:
    """Whether a path is the URL of an object store."""
    return URL.fullmatch(str(path)) is not None


def check_url(name: str, path: str) -> None:
    """Raises UserError for a URL that may have a secret in it. The message does not repeat it."""
    if is_url(path) and re.search(r"[@?#\s]", path):
        raise UserError(
            f"Invalid `{name}`. Expected SCHEME://BUCKET/FOLDER without `@`, `?`, `#` and spaces: URLs stand in runs "
            "and reports. Put keys and tokens where the store's own tools look for them (environment, ~/.aws, gcloud)."
        )
    parts = url_of(path).split("/")[2:] if is_url(path) else ["BUCKET", "FOLDER"]
    if len(parts) < 2 or {"", ".", ".."} & set(parts):
        raise UserError(f"Invalid `{name}`. Expected SCHEME://BUCKET/FOLDER. Received: {path}.")


def url_of(path: str | Path) -> str:
    """Returns a URL with both slashes, and none at its end; a local path as it is."""
    url = URL.fullmatch(str(path))
    return f"{url[1]}://{url[2].strip('/')}" if url else str(path)


def without_secrets(text: str) -> str:
    """Returns a text without what stands before the @ of URLs."""
    return SECRET.sub(r"\1***@", text)


class Store:
    """A folder in object storage. There are no folders in a store: only objects, whose names may have slashes.

    An object is written whole or not at all. Errors are `StoreError`: the server does not answer, or refuses.

    Args:
        path: its URL.
    """

    def __init__(self, path: str | Path) -> None:
        self.url = url_of(path)
        check_url("URL", self.url)
        self._scheme, _, self._root = self.url.partition("://")

    def names(self) -> dict[str, str]:
        """Lists the objects below the folder: name -> what changes with its content."""

        def find() -> dict[str, Any]:
            self._files.invalidate_cache()
            return self._files.find(self._root, detail=True)

        objects = self._try("list", "", find)
        root = self._files._strip_protocol(self.url).rstrip("/") + "/"
        return {path.removeprefix(root): _version(about) for path, about in sorted(objects.items())}

    def read(self, name: str) -> bytes | None:
        """Returns the content of a small object; None if there is none."""
        return self._try("read", name, lambda: self._files.cat_file(self._path(name)), missing=True)

    def download(self, name: str, path: Path) -> None:
        """Writes an object to a local file, which may be left unfinished after an error."""
        self._try("read", name, lambda: self._files.get_file(self._path(name), str(path)))

    def upload(self, path: Path, name: str) -> None:
        """Writes a local file to an object."""
        self._try("write", name, lambda: self._files.put_file(str(path), self._path(name)))

    def delete(self, name: str) -> None:
        """Deletes an object, if it exists."""
        self._try("delete", name, lambda: self._files.rm_file(self._path(name)), missing=True)

    def has(self, name: str) -> bool:
        """Returns whether there is an object of this name."""
        return self._try("read", name, lambda: self._files.info(self._path(name)), missing=True) is not None

    def version(self, name: str) -> str:
        """Returns what changes with the content of an object."""
        return _version(self._try("read", name, lambda: self._files.info(self._path(name))))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @cached_property
    def _files(self) -> Any:
        package = PACKAGES[self._scheme]
        try:
            import fsspec

            return fsspec.filesystem(self._scheme, **OPTIONS.get(self._scheme, {}))
        except ImportError:
            raise UserError(
                f"Cannot open {self.url}: the package {package} is not installed. Install it with: pip install "
                f"'{EXTRAS.get(package, package)}'"
            ) from None

    def _try(self, verb: str, name: str, function: Callable[[], Result], missing: bool = False) -> Any:
        """Calls a function of the store's library, which may raise anything; `missing`: None if there is no object."""
        try:
            return function()
        except UserError:  # of `_files`
            raise
        except FileNotFoundError as error:
            if missing and not _code(error).startswith("NoSuchBucket"):
                return None
            reason = "no such object or bucket. Check the URL"
        except Exception as error:
            reason = _reason(error)
        place = f"{self.url}/{name}" if name else self.url
        raise StoreError(f"Cannot {verb} {place}: {reason}.")


def _version(about: Mapping[str, Any]) -> str:
    """Returns the parts of an object's description that change with its content."""
    names = ("ETag", "etag", "md5Hash", "created", "mtime", "LastModified")
    value = next((about[name] for name in names if about.get(name)), "")
    if isinstance(value, datetime):  # in a list it is a number
        value = value.timestamp()
    return f"{value} {about.get('size')}"


def _causes(error: BaseException | None) -> list[BaseException]:
    causes: list[BaseException] = []
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__ or error.__context__
    return causes


def _code(error: BaseException) -> str:
    """Returns the code with which S3 refuses; empty: none. Its text may repeat a key."""
    for cause in _causes(error):
        response = getattr(cause, "response", None)
        if isinstance(response, dict) and re.fullmatch(r"[A-Za-z0-9.]{1,60}", code := str(_error_of(response))):
            return code
    return ""


def _error_of(response: Mapping[str, Any]) -> Any:
    error = response.get("Error")
    return error.get("Code", "") if isinstance(error, Mapping) else ""


def _reason(error: Exception) -> str:
    """Returns why a call failed, in our words: those of the library may contain a secret."""
    names = " ".join(type(cause).__name__ for cause in _causes(error))
    code = f" ({_code(error)})" if _code(error) else ""
    if "Credential" in names or "RefreshError" in names:
        return "no credentials are in the environment or in the files of the store's own tools, or they are not valid"
    if isinstance(error, PermissionError):
        return f"the server refuses these credentials{code}"
    if re.search("Connect|Timeout|Disconnected|Resolver|gaierror", names):
        return "the server does not answer"
    return f"{type(error).__name__}{code}"
