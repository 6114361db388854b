"""Once before the services start: folders, their owner, the session's secret, Grafana's password, and a sign-in link.

python -m services.dashboard.init [USER:GROUP]
"""

import os
import sys
from pathlib import Path

from shared import auth
from shared import settings as environment
from shared.store import Store

FOLDERS = (
    *("datasets", "runs", "sweeps", "adapters", "exports", "aliases", "keys", "secrets", "secrets/grafana", "workers"),
    *("redis", "prometheus", "grafana", "kernels", "kernels/inference"),
)


def main(owner: str = "") -> None:
    """Make what is missing and print the link. Started by root, it gives the folders to `owner`, "user:group" in numbers,
    and goes on as that user."""
    settings = environment.load()
    folders = [settings.data, settings.hf_home, *(settings.data / name for name in FOLDERS)]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    user, _, group = owner.partition(":")
    if os.getuid() == 0 and user and group:
        for folder in folders:
            give(folder, int(user), int(group))
        os.setgroups([])
        os.setgid(int(group))
        os.setuid(int(user))
    store = Store(settings.data)
    store.secrets().chmod(0o700)
    store.keys().chmod(0o700)
    auth.session_secret(store)
    auth.grafana_password(store)
    token = auth.new_sign_in(store)
    print(f"Sign in, once, within a day: {settings.public_url}/sign-in?token={token}", flush=True)


def give(folder: Path, user: int, group: int) -> None:
    """Make user and group the owner of a folder; of all that is in it only if the folder was another's."""
    status = folder.stat()
    if (status.st_uid, status.st_gid) == (user, group):
        return
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, user, group, follow_symlinks=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
