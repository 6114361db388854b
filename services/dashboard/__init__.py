"""The dashboard: pages, REST and server-sent events over the data directory. It writes requests and never computes."""

from services.dashboard.app import create_app

__all__ = ["create_app"]
