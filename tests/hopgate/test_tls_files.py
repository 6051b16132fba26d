"""A rotated certificate is taken once, as a whole; anything that can't be used leaves the one in force."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hopgate.tls_files import TlsFiles, TlsFilesError
from tests.authz.certificates import Mounted


@pytest.fixture
def mounted(tmp_path: Path) -> Mounted:
    return Mounted(tmp_path / "tls")


def test_a_pair_is_read_with_its_end(mounted: Mounted) -> None:
    pair = TlsFiles(mounted.certificate, mounted.private_key).pair
    assert pair.certificate_pem == mounted.certificate.read_bytes()
    assert pair.private_key_pem.reveal() == mounted.private_key.read_bytes()
    assert 0 < pair.expires_at - time.time() <= 86_400
    assert "PRIVATE" not in repr(pair)


def test_a_rotation_is_told_once(mounted: Mounted) -> None:
    files = TlsFiles(mounted.certificate, mounted.private_key)
    assert files.changed() is None
    rotated = mounted.rotate()
    changed = files.changed()
    assert changed is not None
    assert (changed.certificate_pem, files.pair) == (rotated, changed)
    assert files.changed() is None


def test_the_same_pair_written_again_is_no_change(mounted: Mounted) -> None:
    files = TlsFiles(mounted.certificate, mounted.private_key)
    mounted.write(mounted.certificate.read_bytes(), mounted.private_key.read_bytes())
    assert files.changed() is None


@pytest.mark.parametrize("broken", ["another key", "no certificate", "no key", "nothing", "an empty file"])
def test_what_cannot_be_used_leaves_the_pair_in_force_until_it_is_mended(
    mounted: Mounted, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    files = TlsFiles(mounted.certificate, mounted.private_key)
    before = files.pair
    certificate, key = mounted.certificate.read_bytes(), mounted.private_key.read_bytes()
    mounted.rotate()
    match broken:
        case "another key":
            mounted.write(mounted.certificate.read_bytes(), key)
        case "no certificate":
            mounted.write(b"certificate", mounted.private_key.read_bytes())
        case "no key":
            mounted.write(certificate, b"key")
        case "an empty file":
            mounted.write(b"", b"")
        case _:
            mounted.private_key.unlink()
    assert [files.changed(), files.changed()] == [None, None]
    assert files.pair == before
    [said] = caplog.messages
    assert "the certificate in force stays" in said
    assert "PRIVATE" not in said
    if broken == "nothing":
        mounted.private_key.symlink_to("..data/tls.key")
    rotated = mounted.rotate()
    changed = files.changed()
    assert changed is not None
    assert changed.certificate_pem == rotated


def test_there_is_no_start_without_a_pair(mounted: Mounted, tmp_path: Path) -> None:
    with pytest.raises(TlsFilesError, match="nowhere"):
        TlsFiles(tmp_path / "nowhere", mounted.private_key)
    mounted.write(mounted.certificate.read_bytes(), b"key")
    with pytest.raises(TlsFilesError, match="expected a PEM certificate") as caught:
        TlsFiles(mounted.certificate, mounted.private_key)
    assert caught.value.__cause__ is None
