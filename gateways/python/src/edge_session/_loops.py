"""What asyncio does in another way than trio does."""

import asyncio


def asyncio_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop of the running task; None where trio runs it."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return None
    return task.get_loop() if task else None
