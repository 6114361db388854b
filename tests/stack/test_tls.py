"""A certificate in the folder makes the port speak TLS."""

import shutil
import ssl
import subprocess

import httpx

from tests.stack.conftest import Stack


def test_a_mounted_certificate_makes_the_port_speak_tls(stack: Stack) -> None:
    folder = stack.folder / "tls"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    request += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "tls.key", "-out", folder / "tls.crt"]
    try:
        subprocess.run(request, check=True, capture_output=True)
        shutil.chown(folder / "tls.key", 1000, 1000)
        stack.up("--no-deps", "--force-recreate", "nginx")
        trusted = ssl.create_default_context(cafile=str(folder / "tls.crt"))
        with httpx.Client(base_url=f"https://127.0.0.1:{stack.port}", verify=trusted, trust_env=False) as person:
            answer = person.get("/health")
            assert answer.status_code == 200
            assert "max-age=31536000" in answer.headers["strict-transport-security"]
            models = person.get("/v1/models", headers={"Authorization": f"Bearer {stack.key}"})
            assert models.status_code == 200
        with stack.browser() as plain:
            assert plain.get("/health").status_code == 400, "plain HTTP is not answered on the same port"
    finally:
        for path in folder.glob("tls.*"):
            path.unlink()
        stack.up("--no-deps", "--force-recreate", "nginx")
    with stack.browser() as person:
        assert person.get("/health").status_code == 200
