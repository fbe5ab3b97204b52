"""Keeps the memory of the page flat: Gradio holds any number of answers that nobody collects."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio.to_thread

from emotion_tf.processes import release_memory

SWEEP_SECONDS = 60.0
"""Time between two sweeps. An answer is deleted when the second one finds it."""


class UncollectedAnswers:
    """What the queue has for visitors who do not read it.

    Args:
        queue: Gradio's queue. Its methods may only be called in the server's event loop.
    """

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self._waiting: set[str] = set()

    async def sweep(self) -> None:
        """Deletes the messages that were there at the last sweep already, their requests, and sessions without any."""
        messages, requests = self._queue.pending_messages_per_session, self._queue.pending_event_ids_session
        waiting = {session for session, unread in messages.items() if not unread.empty()}
        for session in waiting & self._waiting:
            await self._queue.clean_events(session_hash=session)
            messages.pop(session, None)
            requests.pop(session, None)
        for session in {*messages, *requests} - waiting:
            if not requests.get(session):
                messages.pop(session, None)
                requests.pop(session, None)
        self._waiting = waiting - self._waiting

    async def keep_sweeping(self) -> None:
        """Sweeps until it is cancelled, and returns the memory of earlier answers to the system."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await self.sweep()
            await anyio.to_thread.run_sync(release_memory)
