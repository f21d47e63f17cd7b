"""`make doctor`: `python -m api.doctor` for what `make run` started, or for REDIS_URL."""

import os
from pathlib import Path
from urllib.parse import quote

from api import doctor
from deploy.local.valkey import socket_path


def main() -> None:
    if "REDIS_URL" not in os.environ:
        port = os.environ.get("PORT", "8000")
        data_dir = Path(os.environ.get("DATA_DIR") or Path("data") / f"port-{port}").resolve()
        os.environ["REDIS_URL"] = f"unix://{socket_path(data_dir)}"
        os.environ.setdefault("UPLOADS_URL", f"file://{quote(str(data_dir / 'uploads'))}")
    doctor.main()


if __name__ == "__main__":
    main()
