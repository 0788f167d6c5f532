"""Work of one name that is asked for while it is under way is done together, by the next run.

So a busy account's requests share a statement, a transaction and a lock instead of queueing for each; who comes alone
is served at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

N = TypeVar("N", bound=Hashable)
Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Together(Generic[N, Asked, Answer]):
    """Brings together what asks for work of the same name."""

    def __init__(self, run: Callable[[N, Sequence[Asked]], Awaitable[Sequence[Answer]]]) -> None:
        """`run` does the work of a name for all who ask: it returns an answer for each, in their order.

        What it raises is what each of them would have met; a run begins after all of its askers came.
        """
        self._run = run
        self._waiting: dict[N, list[tuple[Asked, asyncio.Future[Answer]]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, name: N, asked: Asked) -> Answer:
        """Return the answer of the run that this is done in."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.get(name)
        if waiting is None:
            self._waiting[name] = [(asked, answer)]
            self._go_on(name)
        else:
            waiting.append((asked, answer))
        return await answer

    def _go_on(self, name: N) -> None:
        """Have those served who are there when the event loop has come round: they came at the same moment."""
        if not self._waiting[name]:
            del self._waiting[name]
            return
        task = asyncio.create_task(self._serve(name), name="together")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, name: N) -> None:
        waiting, self._waiting[name] = self._waiting[name], []
        try:
            found = await self._run(name, [asked for asked, _ in waiting])
            for (_, answer), one in zip(waiting, found, strict=True):
                if not answer.done():
                    answer.set_result(one)
        except Exception as error:  # whatever it was, it is what each of them would have met
            for _, answer in waiting:
                if not answer.done():
                    answer.set_exception(error)
        finally:
            for _, answer in waiting:
                answer.cancel()
            self._go_on(name)
