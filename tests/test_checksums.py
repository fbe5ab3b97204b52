"""Checksums of the files of a folder."""

import os
import subprocess

import pytest

from emotion_tf import checksums


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "assets").mkdir()
    (tmp_path / "graph").write_bytes(b"graph")
    (tmp_path / "assets" / "vocab.txt").write_text("a\nb\n")
    checksums.write(tmp_path)
    return tmp_path


def test_an_undamaged_folder_passes(folder):
    assert checksums.find_damage(folder) == ""
    subprocess.run(["sha256sum", "--status", "-c", "SHA256SUMS"], cwd=folder, check=True)


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        (lambda folder: (folder / "assets/vocab.txt").write_text("b\na\n"), "assets/vocab.txt"),
        (lambda folder: (folder / "assets/vocab.txt").write_bytes(b""), "assets/vocab.txt"),
        (lambda folder: (folder / "assets/vocab.txt").unlink(), "assets/vocab.txt"),
        (lambda folder: (folder / "graph").rename(folder / "renamed"), "graph"),
        (lambda folder: (folder / "assets" / "added").write_bytes(b""), "assets/added"),
        (lambda folder: (folder / "SHA256SUMS").write_bytes(b"\xff\xfe"), "SHA256SUMS"),
        (lambda folder: (folder / "SHA256SUMS").write_bytes(b""), "assets/vocab.txt"),
        (lambda folder: ((folder / "graph").unlink(), os.mkfifo(folder / "graph")), "graph"),
    ],
    ids=["reordered", "emptied", "gone", "renamed", "added", "sums-garbage", "sums-emptied", "pipe"],
)
def test_the_first_damaged_file_is_named(folder, damage, name):
    damage(folder)
    assert checksums.find_damage(folder) == name


def test_a_folder_without_checksums_is_not_believed(folder):
    """Whoever can delete the checksums must not get new ones for files that were changed."""
    (folder / checksums.NAME).unlink()
    assert checksums.find_damage(folder) == checksums.NAME and not (folder / checksums.NAME).exists()


def test_hidden_files_do_not_count(folder):
    """A file manager, NFS, or the killed writer of another file leaves them, and removes them."""
    killed = folder / ".SHA256SUMS.host.123"
    for path in (killed, folder / ".DS_Store", folder / "assets/.nfs0001", folder / ".hidden/file"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    assert checksums.find_damage(folder) == ""
    checksums.write(folder)
    sums = (folder / checksums.NAME).read_text()
    assert "/." not in sums and "  ." not in sums
    (folder / checksums.NAME).write_text(f"{'0' * 64}  {killed.name}\n{sums}")  # as two writers at once left it
    killed.unlink()
    assert checksums.find_damage(folder) == ""
