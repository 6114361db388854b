"""Several streams as one, each item as soon as it is there."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


async def merged(streams: Sequence[AsyncIterator[Item]]) -> AsyncIterator[Item]:
    """The items of all `streams` in the order in which they come. Raises what the first stream that fails raises."""
    if len(streams) == 1:
        async for item in streams[0]:
            yield item
        return
    items: asyncio.Queue[Item | None] = asyncio.Queue()

    async def read(stream: AsyncIterator[Item]) -> None:
        try:
            async for item in stream:
                items.put_nowait(item)
        finally:
            items.put_nowait(None)

    reading = [asyncio.create_task(read(stream)) for stream in streams]
    try:
        for _ in streams:
            while (found := await items.get()) is not None:
                yield found
        for task in reading:
            await task
    finally:
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
