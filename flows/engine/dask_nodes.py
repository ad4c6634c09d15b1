"""Dask's scheduler and worker as this program starts them: without servers that answer anybody.

Both have an HTTP server beside their TLS one, for pages that show the tasks, their errors and the logs, which
asks nobody who he is. A module of its own, because importing Dask takes a second and worker processes import
their class by its name.
"""

from __future__ import annotations

from typing import Any

from distributed import Scheduler, Worker


class ClosedScheduler(Scheduler):
    """A scheduler whose HTTP server starts only where ``dashboard_address`` is given."""

    def start_http_server(self, routes: Any, dashboard_address: Any, *more: Any, **named: Any) -> None:
        """Start the HTTP server if its address is given."""
        if dashboard_address is not None:
            super().start_http_server(  # type: ignore[no-untyped-call]  # it has no annotations
                routes, dashboard_address, *more, **named
            )


class ClosedWorker(Worker):
    """A worker without an HTTP server."""

    def start_http_server(self, *_: Any, **__: Any) -> None:
        """Start nothing."""
