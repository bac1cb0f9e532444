"""A taskset of verifiers 0.4 with state, tools that misbehave, and several rewards."""

import asyncio
import os
import sqlite3
import time

import verifiers.v1 as vf
from pydantic import Field


class ShelfState(vf.State):
    moved: list[str] = Field(default_factory=list)


class ShelfData(vf.TaskData):
    book: str
    shelf: str


class ShelfToolset(vf.Toolset[vf.ToolsetConfig, ShelfState]):
    TOOL_PREFIX = "shelves"

    async def setup(self) -> None:
        self.database = sqlite3.connect(":memory:")
        self.database.execute("create table shelves (book text, shelf text)")

    async def setup_task(self, task: ShelfData) -> None:
        self.database.execute("insert into shelves values (?, ?)", (task.book, task.shelf))

    @vf.tool
    def find(self, book: str) -> dict:
        """Says where a book stands."""
        row = self.database.execute("select shelf from shelves where book = ?", (book,)).fetchone()
        if row is None:
            raise LookupError(f"there is no book {book}")
        return {"book": book, "shelf": row[0]}

    @vf.tool
    async def move(self, book: str, shelf: str) -> str:
        """Puts a book on another shelf."""
        await asyncio.sleep(0)
        self.state.moved.append(f"{book} to {shelf}")
        if shelf == "none":
            raise ValueError("there is no such shelf")
        self.database.execute("update shelves set shelf = ? where book = ?", (shelf, book))
        return f"{len(self.state.moved)} moved"

    @vf.tool
    def misbehave(self, how: str) -> str:
        """Hangs, dies, prints, or returns what is odd."""
        if how == "hang":
            time.sleep(3600)
        if how == "die":
            print("out of memory", flush=True)
            os._exit(9)
        print("said on stdout")
        return {"odd": "\udc80", "huge": "x" * 100_000}.get(how, "fine")


class Common(vf.Toolset[vf.SharedToolsetConfig]):
    async def setup(self) -> None:
        self.counted = 0

    @vf.tool
    async def count(self) -> str:
        """Counts how often it was called, by whomever."""
        self.counted += 1
        return str(self.counted)


class ShelfTask(vf.Task[ShelfData, ShelfState]):
    @classmethod
    def toolsets(cls, config: vf.TaskConfig) -> list[vf.Toolset]:
        return [ShelfToolset(vf.ToolsetConfig())]

    async def setup(self, trace: vf.Trace, runtime: vf.Runtime) -> None:
        await runtime.write("desk.txt", self.data.book.encode())

    async def finalize(self, trace: vf.Trace, runtime: vf.Runtime) -> None:
        trace.info["written"] = (await runtime.read("desk.txt")).decode()

    @vf.reward(weight=2.0)
    async def moved(self, trace: vf.Trace) -> float:
        return float(trace.state.moved == [f"{self.data.book} to archive"])

    @vf.reward
    async def said(self, trace: vf.Trace, runtime: vf.Runtime) -> float:
        if trace.last_reply == "raise":
            raise KeyError("no reply")
        if trace.last_reply == "nan":
            return float("nan")
        return float("archive" in trace.last_reply and trace.info["written"] == self.data.book)

    @vf.reward(weight=0.0)
    async def outcome(self, trace: vf.Trace) -> float:
        return float(trace.num_turns)


class ShelfConfig(vf.TasksetConfig):
    books: int = 8


class ShelfTaskset(vf.Taskset[ShelfTask, ShelfConfig]):
    @classmethod
    def toolsets(cls, config: ShelfConfig) -> list[vf.Toolset]:
        return [Common(vf.SharedToolsetConfig())]

    def load(self) -> list[ShelfTask]:
        return [
            ShelfTask(
                ShelfData(
                    id=f"book-{number}",
                    system_prompt="You keep a library.",
                    prompt=f"Archive {name}.",
                    book=name,
                    shelf="A1",
                ),
                self.config.task,
            )
            for number, name in enumerate(f"Book{one}" for one in range(self.config.books))
        ]


__all__ = ["ShelfTaskset"]
