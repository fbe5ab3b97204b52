"""URLs of object storage, and errors of stores, which repeat no secret."""

import sys

import fsspec
import pytest

from emotion_tf import remote
from emotion_tf.errors import UserError
from emotion_tf.remote import Store, StoreError

SECRET = "wJalr/XUtnFEMI/K7MDENG"


@pytest.mark.parametrize("path", ["s3://bucket/a", "s3:/bucket/a", "gs://bucket/a/", "memory://bucket/a"])
def test_a_url_with_one_slash_or_two(path):
    assert remote.is_url(path)
    remote.check_url("--data", path)
    assert remote.url_of(path) in ("s3://bucket/a", "gs://bucket/a", "memory://bucket/a")


@pytest.mark.parametrize("path", ["tfrecords/demo", "/s3/a", "https://host/a", "file:///a", "C:/a", "s3", "xs3://b/a"])
def test_what_is_no_url_of_a_store(path):
    assert not remote.is_url(path) and remote.url_of(path) == path
    remote.check_url("--data", path)


@pytest.mark.parametrize(
    "path", [f"s3://AKIA:{SECRET}@bucket/a", f"s3:/AKIA:{SECRET}@bucket/a", f"az://bucket/a?sig={SECRET}", "s3://b/a#1"]
)
def test_a_url_with_a_secret_is_refused_without_it(path, command):
    with pytest.raises(UserError) as caught:
        remote.check_url("--data", path)
    assert SECRET not in str(caught.value)
    for words in (
        ["train", "--data", path],
        ["train", "--name", path],
        ["train", "--resume", "--name", path],
        ["prepare", "demo", "--out", path],
        ["evaluate", path],
        ["predict", path, "--text", "x"],
        ["audit", path],
        ["train", "--dta", path],
    ):
        code, output = command(*words)
        assert code == 2 and output.err.count("\n") == 1, output.err
        assert SECRET not in output.err + output.out, words


@pytest.mark.parametrize("path", ["s3://bucket", "s3://", "s3://bucket/../a"])
def test_a_url_without_a_folder(path):
    with pytest.raises(UserError, match="Expected SCHEME://BUCKET/FOLDER"):
        remote.check_url("--data", path)


def test_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    fsspec.filesystem("memory").clear_instance_cache()
    with pytest.raises(UserError, match=r"the package gcsfs is not installed. .* pip install 'emotion_tf\[gs\]'"):
        Store("gs://bucket/a").read("b")


class Refusal(Exception):
    response = {"Error": {"Code": "InvalidAccessKeyId", "Message": SECRET}}  # noqa: RUF012


class ConnectionClosedError(Exception):
    pass


class NoCredentialsError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionClosedError(SECRET), "the server does not answer"),
        (NoCredentialsError(SECRET), "no credentials are in the environment"),
        (Refusal(SECRET), r"Refusal \(InvalidAccessKeyId\)"),
        (PermissionError(SECRET), "the server refuses these credentials"),
        (FileNotFoundError(SECRET), "no such object or bucket"),
        (ValueError(SECRET), "ValueError"),
    ],
)
def test_errors_have_no_text_of_the_library(monkeypatch, error, reason):
    def fail(*args, **options):
        raise error

    store = Store("memory://bucket/a")
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "get_file", fail)
    with pytest.raises(StoreError, match=f"^Cannot read memory://bucket/a/b: {reason}") as caught:
        store.download("b", "nowhere")
    assert SECRET not in str(caught.value)


def test_text_before_an_at_sign_in_a_url_is_hidden():
    assert remote.without_secrets(f"no --dta s3://AKIA:{SECRET}@b/a") == "no --dta s3://***@b/a"
    assert remote.without_secrets("write to me@example.org") == "write to me@example.org"
