"""What gunicorn serves: `gunicorn -k gthread --threads 64 services.dashboard.wsgi:app`. One process: SSE counts its streams."""

from services.dashboard.app import create_app
from services.dashboard.context import NAME
from shared import settings as environment
from shared.queue import celery_app
from shared.store import Store

settings = environment.load()
app = create_app(settings, Store(settings.data), celery_app(settings))
app.extensions[NAME].watch.start()
