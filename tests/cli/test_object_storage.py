"""Data set and run on an S3 server: URLs alone, a cache smaller than the data set, a server that stops, no secrets."""

import shutil

import pytest

from emotion_tf.data import staging

SMALL = (
    *("--towers", "text", "--text.word-dim", 8, "--text.gru-units", 8, "--text.context", 0),
    *("--train.batch-size", 16, "--fusion.dense-units", 8),
)


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An S3 server; what the command line writes has neither its key nor its id."""
    s3fs = pytest.importorskip("s3fs")
    from object_store import KEY, ObjectStore, variables

    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("EMOTION_TF_CACHE", str(tmp_path / "cache"))
    store = ObjectStore()
    secrets = (KEY, store.environment["AWS_ACCESS_KEY_ID"])
    with variables(store.environment):
        yield store
    contents = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    contents += [store.read(name) for name in store.names()]
    store.stop()
    assert len(contents) > 20
    assert not [text for text in contents if any(secret.encode() in text for secret in secrets)]


def run(command, *words, code=0):
    received, output = command(*words)
    assert received == code, output.err
    assert not any(secret in output.out + output.err for secret in ("PLANTED", "planted"))
    return output


@pytest.mark.slow
def test_urls_alone_a_small_cache_and_a_server_that_stops(store, manifest_path, command, monkeypatch, tmp_path):
    from emotion_tf.data import records
    from emotion_tf.remote import Store

    monkeypatch.setattr(records, "ROWS_PER_SHARD", 30)
    data, name = "s3://bucket/data/tiny", "s3://bucket/runs/mine"
    words = ("prepare", "table", manifest_path, "--out", data, "--face-size", 32, "--tokenizer", "learned")
    run(command, *words)
    assert "exists" in run(command, *words, code=2).err
    assert sorted(store.names("data/tiny/")) == sorted({"dataset_info.json", "vocab.txt"} | shards(store))
    assert len(shards(store)) == 9 and not any((tmp_path / "cache" / "prepared").rglob("*.tfrecord"))

    size = sum(len(store.read(f"data/tiny/{shard}")) for shard in shards(store))
    monkeypatch.setenv(staging.VARIABLE, str(0.4 * size / 1e9))
    uploads, upload = [], Store.upload

    def stop_in_epoch_2(self, path, name):
        uploads.append(name)
        if uploads.count("history.csv") == 2:
            store.stop()
        upload(self, path, name)

    monkeypatch.setattr(Store, "upload", stop_in_epoch_2)
    train = ("train", "--data", data, "--name", name, *SMALL, "--train.epochs", 3)
    error = run(command, *train, code=2).err.splitlines()[-1]
    assert error.startswith(f"error: Cannot write {name}/") and "the server does not answer" in error
    assert error.endswith(f"Continue with: python main.py train --resume --name {name}")
    assert cache(tmp_path) <= 0.4 * size
    monkeypatch.setattr(Store, "upload", upload)
    assert run(command, "train", "--resume", "--name", name, code=2).err.count("\n") == 1  # it does not answer yet

    store.start()
    assert "Resumed after epoch 2" in run(command, "train", "--resume", "--name", name).out
    assert cache(tmp_path) <= 0.4 * size
    assert {"run.json", "model.keras", "metrics.json", "report.html"} <= set(store.names("runs/mine/"))
    assert not [name for name in store.names("runs/mine/") if name.startswith("checkpoint/")]

    shutil.rmtree(tmp_path / "cache")  # another machine
    printed = run(command, "evaluate", name, "--split", "dev").out
    assert f"{name} on dev of" in printed and data in printed
    assert "neutral" in run(command, "predict", name, "--text", "I am so happy").out
    assert cache(tmp_path) <= 0.4 * size


def shards(store):
    return {name for name in store.names("data/tiny/") if name.endswith(".tfrecord")}


def cache(folder):
    return sum(path.stat().st_size for path in (folder / "cache" / "shards").iterdir())
