"""Which libraries a machine has."""

from pathlib import Path

import pytest

from birthmark.doctor import file_inspection


def test_a_tpms_library_comes_last_where_there_is_no_tpm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("usr/lib/any/libtpm2_pkcs11.so.1", "usr/lib/any/softhsm/libsofthsm2.so"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    ours = [str(path) for path in tmp_path.rglob("*.so*")]

    def found() -> list[str]:
        return [Path(path).name for path in file_inspection.libraries(tmp_path) if path in ours]

    monkeypatch.setattr(file_inspection, "_TPMS", ())
    monkeypatch.delenv("TPM2_PKCS11_TCTI", raising=False)
    assert found() == ["libsofthsm2.so", "libtpm2_pkcs11.so.1"]
    monkeypatch.setenv("TPM2_PKCS11_TCTI", "tabrmd:bus_type=session")
    assert found() == ["libtpm2_pkcs11.so.1", "libsofthsm2.so"]
