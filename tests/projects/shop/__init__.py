"""A small Django project with Celery in the usual place."""

from tests.projects.shop.celery_app import app

__all__ = ["app"]
