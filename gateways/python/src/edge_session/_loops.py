"""Differences between asyncio and trio."""

import asyncio


def asyncio_loop() -> asyncio.AbstractEventLoop | None:
    """Returns the event loop of the running task; None on trio."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return None
    return task.get_loop() if task else None
