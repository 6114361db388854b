"""Make an API key from a shell on the server: `python -m services.dashboard.key NAME`. It is shown this once."""

import sys

from shared import auth
from shared import settings as environment
from shared.store import BadName, Store


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    try:
        key, _ = auth.create_key(Store(environment.load().data), sys.argv[1])
    except BadName as error:
        raise SystemExit(str(error)) from None
    print(key)


if __name__ == "__main__":
    main()
