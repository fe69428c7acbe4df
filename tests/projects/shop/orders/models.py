"""What the shop keeps."""

from __future__ import annotations

from django.db import models


class Order(models.Model):
    """One order; an agent moves its state."""

    item = models.CharField(max_length=100)
    state = models.CharField(max_length=20, default="placed")

    class Meta:
        app_label = "orders"
