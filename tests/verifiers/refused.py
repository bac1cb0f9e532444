"""Tasksets of verifiers 0.4 that need what is not there."""

import verifiers.v1 as vf


class Elsewhere(vf.Toolset[vf.ToolsetConfig]):
    pass


class RefusedTask(vf.Task[vf.TaskData]):
    pass


class RefusedConfig(vf.TasksetConfig):
    why: str = ""


class RefusedTaskset(vf.Taskset[RefusedTask, RefusedConfig]):
    def __init__(self, config: RefusedConfig) -> None:
        super().__init__(config)
        RefusedTask.NEEDS_CONTAINER = config.why == "container"

    @classmethod
    def toolsets(cls, config: RefusedConfig) -> list[vf.Toolset]:
        return [Elsewhere(vf.ToolsetConfig(url="http://127.0.0.1:1"))] if config.why == "server" else []

    def load(self) -> list[RefusedTask]:
        image = "python:3" if self.config.why == "image" else None
        prompt = None if self.config.why == "no prompt" else "Hello"
        return [RefusedTask(vf.TaskData(prompt=prompt, image=image), self.config.task)]


__all__ = ["RefusedTaskset"]
