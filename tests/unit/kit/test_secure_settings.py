"""Settings of TLS and of Kafka's users: what cannot work stops the start with one line, and what is secret is not printed."""

import pytest
from support.certificates import Authority

from assay_kit.kafka import KafkaConnection
from assay_kit.settings import ServiceSettings, load_settings, settings_or_complaint


@pytest.fixture(scope="module")
def authority():
    return Authority()


def refusal(monkeypatch, capsys, **environment) -> str:
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(SystemExit) as end:
        load_settings(ServiceSettings, "reward", [])
    assert end.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder, other: (folder / "tls.crt").unlink(), "tls.crt cannot be read: No such file or directory"),
        (lambda folder, other: (folder / "tls.key").write_bytes(other[1]), "are no certificate and its key: key values mismatch"),
        (lambda folder, other: (folder / "tls.key").write_text("x"), "are no certificate and its key"),
        (lambda folder, other: (folder / "ca.crt").write_text("x"), "ca.crt is no certificate of an authority"),
        (lambda folder, other: (folder / "ca.crt").write_bytes(Authority("x").certificate), "unable to get local issuer certificate"),
    ],
    ids=["missing", "another key", "no key", "no authority", "another authority"],
)
def test_a_certificate_of_no_use_stops_the_start_with_one_line(authority, tmp_path, monkeypatch, capsys, spoil, said):
    spoil(authority.write(tmp_path), authority.signed("other"))
    line = refusal(monkeypatch, capsys, ASSAY_TLS_DIR=tmp_path)
    assert said in line and line.startswith("assay-reward: ASSAY_TLS_DIR: ")


def test_good_certificates_let_the_service_start(authority, tmp_path, monkeypatch):
    monkeypatch.setenv("ASSAY_TLS_DIR", str(authority.write(tmp_path)))
    assert load_settings(ServiceSettings, "reward", []).tls_dir == tmp_path


def test_files_of_the_brokers_that_are_of_no_use_stop_the_start(authority, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ASSAY_KAFKA_SECURITY_PROTOCOL", "SSL")
    line = refusal(monkeypatch, capsys, ASSAY_KAFKA_TLS_DIR=tmp_path)
    assert line.startswith(f"assay-reward: ASSAY_KAFKA_TLS_DIR: {tmp_path}/ca.crt is no certificate of an authority: No such file")
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    (tmp_path / "user.crt").write_bytes(authority.signed("user")[0])
    assert "user.crt and" in refusal(monkeypatch, capsys, ASSAY_KAFKA_TLS_DIR=tmp_path)


def test_a_client_certificate_is_shown_where_there_is_one(authority, tmp_path):
    certificate, key = authority.signed("user")
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    settings = ServiceSettings(kafka_bootstrap="127.0.0.1:1", kafka_security_protocol="SSL", kafka_tls_dir=tmp_path, data_dir=tmp_path)
    assert KafkaConnection.from_settings(settings).access.options() == {
        "security_protocol": "SSL",
        "ssl_cafile": str(tmp_path / "ca.crt"),
    }
    (tmp_path / "user.crt").write_bytes(certificate)
    (tmp_path / "user.key").write_bytes(key)
    options = KafkaConnection.from_settings(settings).access.options()
    assert (options["ssl_certfile"], options["ssl_keyfile"]) == (str(tmp_path / "user.crt"), str(tmp_path / "user.key"))


def test_a_user_without_a_password_is_refused_and_no_password_is_shown(monkeypatch, capsys):
    monkeypatch.setenv("ASSAY_KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("ASSAY_KAFKA_PASSWORD", "a-secret")
    complaint = settings_or_complaint(ServiceSettings, "reward", {})
    assert complaint == "ASSAY_KAFKA_SECURITY_PROTOCOL=SASL_SSL needs ASSAY_KAFKA_USERNAME and ASSAY_KAFKA_PASSWORD"
    monkeypatch.setenv("ASSAY_KAFKA_USERNAME", "assay-reward")
    with pytest.raises(SystemExit) as end:
        load_settings(ServiceSettings, "reward", ["--print-config"])
    printed = capsys.readouterr().out
    assert end.value.code == 0
    assert "ASSAY_KAFKA_USERNAME=assay-reward\nASSAY_KAFKA_PASSWORD=**********\nASSAY_KAFKA_TLS_DIR=\n" in printed
    assert "a-secret" not in printed
    assert "a-secret" not in repr(KafkaConnection.from_settings(ServiceSettings(data_dir="/nowhere", instance="0")).access)


def test_the_instance_names_a_replica_in_kafka(tmp_path):
    settings = ServiceSettings(kafka_bootstrap="127.0.0.1:1", data_dir=tmp_path, instance="assay-reward-0")
    assert KafkaConnection.from_settings(settings).instance == "assay-reward-0"
    assert not list(tmp_path.iterdir())
